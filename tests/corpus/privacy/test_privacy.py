"""Privacy on whole records: what is replaced, that it stays what it was, and that once is enough."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import records
from finetune.corpus.privacy import Privacy, fingerprint, provide_key
from finetune.errors import UsageError
from tests.corpus.privacy.texts import Texts, tickets

KEY = b"k" * 32
MODES = ("report", "mask", "pseudonymize")
CANARY = "zoe.canari@canari.example"
VALUES = [CANARY, "06 12 34 56 78", "FR76 3000 6000 0112 3456 7890 189", "4111 1111 1111 1111",
          "82.64.12.7", "2 95 10 99 126 111 93", "sk-abcDEF1234567890abcDEF"]  # fmt: skip


def treat(text, mode="pseudonymize", known=()):
    record = records.TextRecord(text=text)
    counts = Privacy(mode, KEY).apply(record, known)
    return record.text, counts


def everywhere(canary):
    """A conversation with the canary in every text, and in every key that holds data."""
    arguments = json.dumps({canary: [canary, {"deep": canary}], "n": 4111111111111111})
    return {
        "messages": [
            {"role": "system", "content": f"{canary} s"},
            {"role": "user", "content": [{"type": "text", "text": f"u {canary}"},
                                         {"type": "image_url", "image_url": f"https://x.eu/{canary}"}]},
            {"role": "assistant", "content": f"a {canary}", "tool_calls": [
                {"id": "abcdefghi", "type": "function",
                 "function": {"name": "f", "arguments": arguments}}]},
            {"role": "tool", "tool_call_id": "abcdefghi", "content": json.dumps({"é": canary})},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": [
                {"type": "text", "text": canary}]}, {"type": "text", "text": canary}]},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": canary, "parameters": {
            "type": "object", "properties": {canary: {"description": canary, "enum": [canary]}}}}}],
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["mask", "pseudonymize"])
def test_every_text_and_key_of_a_conversation_is_treated(mode):
    record = records.from_object("chat", everywhere(CANARY))
    counts = Privacy(mode, KEY).apply(record)
    line = records.encode(record).decode()
    assert "canari" not in line.lower()
    assert "4111111111111111" not in line
    assert sum(counts.values()) == 15
    assert {field for _, field in counts} == {
        "messages.system", "messages.user", "messages.assistant", "messages.tool_calls",
        "messages.tool", "tools"}  # fmt: skip
    arguments = json.loads(record.messages[2].tool_calls[0].function.arguments)
    assert len(arguments) == 2
    assert json.loads(record.messages[3].content)
    assert records.decode("chat", records.encode(record)) == record


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("preference", {part: [{"role": role, "content": CANARY}] for part, role in
                        [("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant")]}),
        ("rating", {"prompt": [{"role": "user", "content": CANARY}], "label": True,
                    "completion": [{"role": "assistant", "content": CANARY}]}),
        ("text", {"text": CANARY}),
        ("classifier", {"messages": [{"role": "user", "content": CANARY}], "labels": {"a": "b"}}),
    ],
)  # fmt: skip
def test_every_kind_of_record_is_treated(kind, value):
    record = records.from_object(kind, value)
    assert Privacy("mask").apply(record)
    assert b"canari" not in records.encode(record)


def test_labels_are_left_alone():
    record = records.from_object("classifier", {"text": CANARY, "labels": {"who": CANARY}})
    Privacy("mask").apply(record)
    assert (record.text, record.labels) == ("[EMAIL]", {"who": CANARY})


def test_report_counts_and_changes_nothing():
    record = records.from_object("chat", everywhere(CANARY))
    before = records.encode(record)
    counts = Privacy("report").apply(record)
    assert records.encode(record) == before
    assert counts == Privacy("mask").apply(record)


@pytest.mark.parametrize("value", VALUES)
def test_pseudonyms_are_the_same_under_one_key_only(value):
    ours, theirs = (
        records.TextRecord(text=f"Carte, tél. {value}."),
        records.TextRecord(text=f"Carte, tél. {value}."),
    )
    again, counts = treat(f"Carte, tél. {value}.")
    Privacy("pseudonymize", KEY).apply(ours)
    Privacy("pseudonymize", b"other" * 6).apply(theirs)
    assert sum(counts.values()) == 1
    assert value not in ours.text
    assert ours.text == again
    assert value.startswith("sk-") or ours.text != theirs.text


def test_one_number_has_one_pseudonym_in_every_form():
    text, counts = treat("06 12 34 56 78, tél. 0612345678, +33 (0)6.12.34.56.78, +33612345678")
    digits = "".join(filter(str.isdigit, text))
    number = text[:14].replace(" ", "")[1:]
    assert counts["phone", "text"] == 4
    assert number.startswith("63998")
    assert digits.count(number) == 4
    assert "(0)" in text


@given(
    st.lists(
        st.one_of(
            st.sampled_from(VALUES),
            st.sampled_from(["Jean Dupont", "DUPONT, Jean", "J. Dupont", "tél ", "IBAN ", "né le 3/4/1985",
                             "[EMAIL]", "1 rue de la Paix, 75002 Paris", " NHS ", "00", "(0)", "+49 "]),
            st.text(alphabet="0123456789 .-/+()@:AaéZ\n\u00a0,", max_size=24),
        ),
        max_size=8,
    ),
    st.sampled_from(["mask", "pseudonymize"]),
)  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_twice_is_once(parts, mode):
    once, _ = treat("".join(parts), mode, ["Jean Dupont", "+33 6 12 34 56 78"])
    twice, counts = treat(once, mode, ["Jean Dupont", "+33 6 12 34 56 78"])
    assert twice == once
    assert not counts


@pytest.mark.parametrize("language", ["fr", "de"])
def test_twice_is_once_on_texts_of_people(language):
    texts = Texts(language, seed=3)
    for _ in range(60):
        once, counts = treat(texts.labelled().text)
        assert counts
        assert treat(once) == (once, {})


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from(VALUES),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)),
       st.booleans())  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_json_stays_json_of_the_same_shape(value, ascii_only):
    def shape(one):
        if isinstance(one, dict):
            return [shape(inner) for inner in one.values()]
        return [shape(inner) for inner in one] if isinstance(one, list) else None

    text = json.dumps([value], ensure_ascii=ascii_only)
    treated, counts = treat(text)
    assert shape(json.loads(treated)) == shape([value])
    assert counts or treated == text


def test_escapes_in_json_hide_nothing():
    treated, counts = treat('{"who": "Andr\\u00e9 Lef\\u00e8vre"}', "mask", ["André Lefèvre"])
    assert treated == '{"who": "[NAME]"}'
    assert counts == {("name", "text"): 1}


@pytest.mark.parametrize("language", ["fr", "de"])
def test_known_names_are_found_in_other_cases_and_without_accents(language):
    found = whole = 0
    for name, text, spans in tickets(language, 150):
        treated, _ = treat(text, "mask", [name])
        for start, end in spans:
            whole += 1
            found += text[start:end] not in treated
    assert found / whole >= 0.99


@pytest.mark.parametrize(
    ("name", "text", "masked"),
    [
        ("Jean Dupont", "Dupont, Jean", "[NAME]"),
        ("Jean Dupont", "J. Dupont et DUPONT J.", "[NAME] et [NAME]."),
        ("Hans Müller", "Müllers Auftrag, Mueller", "[NAME]s Auftrag, [NAME]"),
        ("Jürgen Strauß", "JUERGEN STRAUSS", "[NAME]"),
        ("Anne-Sophie Dupré-Martin", "anne sophie, Mme Martin", "[NAME], Mme [NAME]"),
        ("Ludwig van der Berg", "van der Sache", "van der Sache"),
        ("Luc Petit", "un petit colis pour M. Petit", "un petit colis pour M. [NAME]"),
        ("Jean Dupont", "dupontel, Jeanne", "dupontel, Jeanne"),
        ("Jean Dupont", "jean_dupont42", "[NAME]_[NAME]42"),
        ("C-48213", "dossier c-48213.", "dossier [KNOWN]."),
        (33612345678, "au 06 12-34 56 78 x", "au [PHONE] x"),
        (8812345678, "ref 8812-345-678", "ref [KNOWN]"),
        ("12 rue de la Gare, Lyon", "au 12 RUE de la Gare !", "au [KNOWN] !"),
        ("zo@x.eu", "ZO@X.EU", "[EMAIL]"),
    ],
)
def test_known_values_are_found_as_people_write_them(name, text, masked):
    assert treat(text, "mask", [name])[0] == masked


def test_a_name_keeps_its_parts_and_its_case():
    text, _ = treat("Jean Dupont, DUPONT, jean, Dupont Jean", known=["Jean Dupont"])
    first, last = text.split(",")[0].split()
    assert text == f"{first} {last}, {last.upper()}, {first.lower()}, {last} {first}"


def test_values_too_short_to_be_looked_for_are_counted():
    assert treat("42 et 42", "mask", ["42", None, ""]) == ("42 et 42", {("too-short", "known"): 1})


def test_privacy_can_be_sent_to_another_process():
    privacy = pickle.loads(pickle.dumps(Privacy("pseudonymize", KEY)))
    record = records.TextRecord(text=CANARY)
    privacy.apply(record)
    assert record.text == treat(CANARY)[0]


def test_the_key_is_made_once_for_its_owner_only(tmp_path):
    key = provide_key(tmp_path / "data")
    assert provide_key(tmp_path / "data") == key
    assert len(key) == 32
    assert (tmp_path / "data" / "privacy.key").stat().st_mode & 0o777 == 0o600
    assert fingerprint(key) != fingerprint(provide_key(tmp_path / "other"))
    (tmp_path / "data" / "privacy.key").write_bytes(b"short")
    with pytest.raises(UsageError):
        provide_key(tmp_path / "data")


def test_nothing_is_asked_of_the_network(tmp_path):
    code = (
        "import sys\n"
        "def deny(event, _):\n"
        "    if event.startswith('socket.'): raise SystemExit(event)\n"
        "sys.addaudithook(deny)\n"
        "from finetune.corpus.privacy import Privacy, provide_key\n"
        "from finetune.records import TextRecord\n"
        "from pathlib import Path\n"
        f"record = TextRecord(text={' '.join(VALUES)!r} + ' Jean')\n"
        f"assert Privacy('pseudonymize', provide_key(Path({str(tmp_path)!r}))).apply(record, ['Jean Dupont'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
