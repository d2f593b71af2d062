"""A person in every field and key of a corpus is nowhere in what a run writes or says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAME, MAIL, PHONE, CODE = "Zoé Canari-Lefèvre", "zoe.canari@acme.fr", "06 12 34 56 78", "CUST-48213"
IBAN, IP, CARD = "FR76 3000 6000 0112 3456 7890 189", "82.64.12.7", "4111 1111 1111 1111"
ALL = f"{NAME}, {MAIL}, tél. {PHONE}, IBAN {IBAN}, depuis {IP}, carte {CARD}, {CODE}"
TRACES = ["canari", "lefevre", "lefèvre", "0612345678", "612345678", "48213", "300060000112",
          "82.64.12.7", "411111111111"]  # fmt: skip
RECIPE = """
model: smollm2-135m
data:
  train:
    - {path: corpus/chats.jsonl, format: openai, group: customer, known: [customer, code]}
    - {path: corpus/tickets.csv, columns: {user: question, assistant: answer}, known: [customer, code]}
  validation: 0.2
  privacy: "pseudonymize"
  max_rejected: 1
training: {steps: 2, seq_len: 2048}
evaluation: {data: 0.1, limit: 2, max_new_tokens: 8, forgetting: false}
local: {batch_tokens: 600, threads: 1}
"""


def chat(number):
    """A conversation with a call whose keys and values hold the person, and the tool's schema."""
    arguments = {MAIL: [ALL, {NAME: PHONE}], "card": 4111111111111111}
    call = {"id": "abcdefghi", "type": "function",
            "function": {"name": "find", "arguments": json.dumps(arguments)}}  # fmt: skip
    schema = {"type": "object", "properties": {MAIL: {"description": ALL, "enum": [ALL, NAME]}},
              "additionalProperties": True}  # fmt: skip
    return {
        "customer": NAME,
        "code": CODE,
        f"note {MAIL}": ALL,
        "tools": [{"type": "function", "function": {
            "name": "find", "description": ALL, "parameters": schema}}],
        "messages": [
            {"role": "system", "content": f"Client {ALL}"},
            {"role": "user", "content": f"{number} {NAME.upper()} {ALL}"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "abcdefghi", "name": "find",
             "content": json.dumps({MAIL: ALL, NAME: [NAME]})},
            {"role": "assistant", "content": f"Bonjour {NAME.split(maxsplit=1)[0]}, {number}, {ALL}"},
        ],
    }  # fmt: skip


def broken(number):
    """Rows that are rejected, each with the person where the fault is."""
    row = chat(number)
    faults = [
        {"role": MAIL, "content": ALL},
        {"role": "user", "content": {MAIL: ALL}},
        {"role": "user", "content": ALL, MAIL: ALL},
        {"role": "assistant", "tool_calls": [{"id": NAME, "function": {"name": ALL, "arguments": ALL}}]},
    ]  # fmt: skip
    row["messages"].insert(1, faults[number % len(faults)])
    return row


@pytest.fixture
def place(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    rows = [json.dumps(chat(n), ensure_ascii=n % 2 == 0) for n in range(16)]
    rows += [json.dumps(broken(n)) for n in range(8)]
    rows += [f'{{"{MAIL}": "{ALL}", ', json.dumps([ALL]), json.dumps({MAIL: ALL})]
    (corpus / "chats.jsonl").write_text("\n".join(rows), encoding="utf-8")
    lines = [
        f'"{NAME}",{CODE},"{n} {unicodedata.normalize("NFD", ALL)}","{ALL.lower()} {n}"'
        for n in range(12)
    ]
    lines += [f'"{NAME}",{CODE},"{ALL}",""', f'"{NAME}",{CODE}']
    (corpus / "tickets.csv").write_text(
        "\n".join(["customer,code,question,answer", *lines]), encoding="utf-8"
    )
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path


def show_leaks(place, said):
    """Return every place outside the corpus that holds the person."""
    texts = {f"said by {name}": text for name, text in said.items()}
    for path in place.rglob("*"):
        if path.is_file() and place / "corpus" not in path.parents:
            texts[str(path.relative_to(place))] = path.read_bytes().decode(errors="replace")
            assert "canari" not in path.name.lower()
    leaks = []
    for where, text in texts.items():
        unescaped = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), text)
        folded = unicodedata.normalize("NFC", text + unescaped).lower()
        for one in (folded, folded.replace(" ", "").replace("\u00a0", "")):
            places = [(trace, one.find(trace)) for trace in TRACES]
            leaks += [(where, t, one[max(0, i - 30) : i + 30]) for t, i in places if i >= 0]
    return leaks


OFFLINE = """
import sys
def deny(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        sys.exit("asked the network")
sys.addaudithook(deny)
from finetune.cli import main
main()
"""


def tell(place, *arguments):
    """Run the command line where the network is denied; return the process and what it said."""
    home = {"XDG_DATA_HOME": str(place / "home"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, *map(str, arguments)],
        cwd=place, env=os.environ | home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "asked the network" not in done.stderr
    return done, done.stdout + done.stderr


def test_nobody_is_in_what_prepare_writes_and_says(place):
    prepared, words = tell(place, "prepare", "r.yaml")
    assert prepared.returncode == 0, words
    (dataset,) = (place / "datasets").glob("*/manifest.json")
    manifest = json.loads(dataset.read_bytes())
    assert manifest["records"]["written"] > 20
    assert manifest["rows"]["rejected"] > 5
    assert {"email", "phone", "iban", "ip", "card", "name", "known"} <= manifest["privacy"][
        "counts"
    ].keys()
    assert manifest["privacy"]["other_names"] == "not searched"
    said = {"prepare": words}
    for name, arguments in {
        "prepare --json": ["prepare", "r.yaml", "--json"],
        "validate": ["validate", "corpus/chats.jsonl"],
        "find": ["privacy", "find", "--subject", "nobody@web.de"],
        "convert": ["convert", "corpus/chats.jsonl", "-o", "/dev/null"],
        "too many": ["prepare", "r.yaml", "-s", "data.max_rejected=0"],
        "no column": ["prepare", "r.yaml", "-s", "data.train[0].known=[nobody]"],
    }.items():
        said[name] = tell(place, *arguments)[1]
    assert "names that no known column gives: not searched" in words
    assert show_leaks(place, said) == []


@pytest.mark.heavy
def test_nobody_is_in_what_a_run_writes_and_says(place, embedded_model):
    done, words = tell(place, "run", "r.yaml")
    assert done.returncode == 0, words
    assert (next((place / "runs").glob("*/adapter"))).is_dir()
    shown = tell(place, "show", "last")[1] + tell(place, "report", "last")[1]
    assert show_leaks(place, {"run": words, "show": shown}) == []
