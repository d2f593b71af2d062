"""How fast `validate` is, beside mistral-common's own validating and encoding of the same file.

`python benchmarks/validate.py` makes the file (the same bytes every time), measures CPU time and
peak memory in processes of their own, prints a table, and exits 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MB = 1_000_000
SHIPPED = Path(find_spec("mistral_common").origin).parent / "data" / "tekken_240718.json"
WORDS = (
    "the of to and a in is for on that with as it are be this by from order parcel refund invoice "
    "customer ticket delivery address account password please thanks morning afternoon la le les "
    "de des et un une que pour dans commande colis remboursement facture adresse compte bonjour "
    "merci demain function return value import class error null true 0 1 42 3.14"
).split()
UNICODE = (
    "été déjà reçu où être naïve façade café größe straße über żółć señor niño 東京 日本語 Москва "
    "данные 🙂 🚚 € – “yes”"
).split()
# One word in three is beyond ASCII, and one text in ten holds colons and quotes.
WEIGHTS = [2 / 3 / len(WORDS)] * len(WORDS) + [1 / 3 / len(UNICODE)] * len(UNICODE)
QUOTE = 'Note: see https://example.org/a?b=1 and "the terms".\n\n'
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Look up the {name} of an order.",
            "parameters": {
                "type": "object",
                "properties": {
                    "order": {"type": "integer", "description": "The order's number."},
                    "detail": {"type": "string", "enum": ["short", "long"]},
                },
                "required": ["order"],
            },
        },
    }
    for name in ("status", "invoice", "address")
]


def text(rng: random.Random, mean: int) -> str:
    words = rng.choices(WORDS + UNICODE, WEIGHTS, k=max(3, int(rng.expovariate(1 / mean))))
    lines = [" ".join(words[start : start + 14]) for start in range(0, len(words), 14)]
    quote = QUOTE if rng.random() < 0.1 else ""
    return quote + ". ".join(lines[:8]) + "\n".join(lines[8:])


def record(rng: random.Random) -> dict[str, object]:
    messages: list[dict[str, object]] = []
    if rng.random() < 0.4:
        messages.append({"role": "system", "content": text(rng, 25)})
    tools = rng.random() < 0.12
    for _ in range(rng.randint(1, 4)):
        messages.append({"role": "user", "content": text(rng, 35)})
        if tools:
            name = "".join(rng.choices("abcdefghijkmnpqrstuvwxyzABCDEFGH23456789", k=9))
            arguments = json.dumps({"order": rng.randrange(10**6), "detail": "short"})
            function = {"name": rng.choice(("status", "invoice")), "arguments": arguments}
            call = {"id": name, "type": "function", "function": function}
            messages.append({"role": "assistant", "tool_calls": [call]})
            result = json.dumps({"state": text(rng, 5)}, ensure_ascii=False)
            messages.append({"role": "tool", "content": result, "tool_call_id": name})
        messages.append({"role": "assistant", "content": text(rng, 60)})
        if rng.random() < 0.02:
            messages[-1]["weight"] = 1
    return {"messages": messages, "tools": TOOLS} if tools else {"messages": messages}


def make_file(path: Path, size: int, seed: int = 0) -> None:
    rng = random.Random(seed)
    written = 0
    with open(path, "wb") as file:
        while written < size:
            line = json.dumps(record(rng), ensure_ascii=rng.random() < 0.5).encode() + b"\n"
            written += file.write(line)


def make_short_lines(path: Path, count: int) -> None:
    line = b'{"messages":[{"role":"user","content":"%d"},{"role":"assistant","content":"yes"}]}\n'
    with open(path, "wb") as file:
        # One line in ten has a fault, so that findings are counted too.
        faulty = b'{"messages":[]}\n'
        file.writelines(line % number if number % 10 else faulty for number in range(count))


def rules_alone(path: Path) -> dict[str, object]:
    from finetune.checks import validate

    start = time.process_time()
    report = validate([path], kind="chat", target="v13")
    return {"seconds": time.process_time() - start, "records": report.records}


def build_tekken(path: Path) -> None:
    """Write a v13 tokenizer file: the vocabulary that mistral-common ships, v13's control tokens.

    No package holds one. On v13 a conversation is one sample, so that both sides count the same.
    """
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    data = json.loads(SHIPPED.read_bytes())
    data["config"]["version"] = "v13"
    special = [dict(token) for token in Tekkenizer.DEPRECATED_SPECIAL_TOKENS]
    for text in ("[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"):
        special.append({"rank": len(special), "token_str": text, "is_control": True})
    path.write_text(json.dumps(data | {"special_tokens": special}), encoding="utf-8")


def rules_and_counts(path: Path, file: Path) -> dict[str, object]:
    from finetune.checks import validate
    from finetune.tokens import load_tokenizer

    tokenizer = load_tokenizer(file)
    start = time.process_time()
    report = validate([path], kind="chat", target=tokenizer.version, tokenizer=tokenizer)
    seconds = time.process_time() - start
    return {"seconds": seconds, "records": report.valid, "tokens": report.tokens}


def mistral_common(path: Path, file: Path) -> dict[str, object]:
    from mistral_common.protocol.instruct.messages import FinetuningMessage
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from mistral_common.protocol.instruct.validator import ValidationMode
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    tokenizer = MistralTokenizer.from_file(str(file), mode=ValidationMode.finetuning)
    request = ChatCompletionRequest[FinetuningMessage]
    start = time.process_time()
    records = tokens = 0
    with open(path, "rb") as lines:
        for line in lines:
            encoded = tokenizer.encode_chat_completion(request(**json.loads(line)))
            records += 1
            tokens += len(encoded.tokens)
    return {"seconds": time.process_time() - start, "records": records, "tokens": tokens}


STEPS = {step.__name__: step for step in (rules_alone, rules_and_counts, mistral_common)}


def peak_memory() -> float:
    """Return this process's peak in MB; getrusage would count what its parent had before it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / MB


def measure(step: str, *paths: Path) -> dict[str, float]:
    """Run one step in a process of its own; return what it says and its peak memory in MB."""
    command = [sys.executable, __file__, "--step", step, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=50, help="MB of chat records")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, *paths = options.step
        facts = STEPS[step](*map(Path, paths))
        facts["memory"] = peak_memory()
        print(json.dumps(facts))
        return 0
    with tempfile.TemporaryDirectory() as name:
        return show(Path(name), options.size)


def show(folder: Path, size: int) -> int:
    chats, built = folder / "chats.jsonl", folder / "tekken.json"
    make_file(chats, size * MB)
    build_tekken(built)
    size_mb = chats.stat().st_size / MB
    short = {count: folder / f"{count}.jsonl" for count in (10_000, 1_000_000)}
    for count, path in short.items():
        make_short_lines(path, count)
    rules = sorted((measure("rules_alone", chats) for _ in range(3)), key=itemgetter("seconds"))[1]
    print(f"| {size} MB, {rules['records']:,} records, CPU time of 1 process | MB/s | peak MB |")
    print("|---|---|---|")
    print(f"| structure and rules | {size_mb / rules['seconds']:.0f} | {rules['memory']:.0f} |")
    bars = {"structure and rules at 100 MB/s or more": size_mb / rules["seconds"] >= 100}
    for name, file in {"v3, as shipped": SHIPPED, "v13": built}.items():
        ours = measure("rules_and_counts", chats, file)
        theirs = measure("mistral_common", chats, file)
        for label, run in (("rules and exact counts", ours), ("mistral-common", theirs)):
            speed = size_mb / run["seconds"]
            print(f"| {label}: tekken {name} | {speed:.1f} | {run['memory']:.0f} |")
        times = theirs["seconds"] / ours["seconds"]
        bars[f"{name}: exact counts at 3 times mistral-common ({times:.1f}) or more"] = times >= 3
        bars[f"{name}: the same records"] = ours["records"] == theirs["records"]
    # On v3 a record may be several samples, so only here do both sides count the same.
    bars["v13: the same number of tokens"] = ours["tokens"] == theirs["tokens"]
    memory = {count: measure("rules_alone", path)["memory"] for count, path in short.items()}
    for count, peak in memory.items():
        print(f"| {count:,} short lines | | {peak:.0f} |")
    bars["peak under 150 MB"] = max(rules["memory"], *memory.values()) < 150
    bars["a million lines at most 20 MB above ten thousand"] = (
        memory[1_000_000] <= memory[10_000] + 20
    )
    print(f"load average {os.getloadavg()[0]:.1f}")
    for bar, kept in bars.items():
        print(f"{'kept  ' if kept else 'MISSED'} {bar}")
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
