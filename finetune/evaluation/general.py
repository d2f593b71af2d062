"""General knowledge: questions of no dataset, whose loss tells what a model has forgotten.

`general.jsonl` beside this file holds short facts of common knowledge in five languages, written
for this package. A tuned model whose loss on them rises above its base's has paid for what it
learned; one whose loss stays has not.
"""

from __future__ import annotations

from pathlib import Path

from finetune.records import ChatRecord, TextRecord, decode, text_of
from finetune.tokens import Sample, Tokenizer

FILE = Path(__file__).parent / "general.jsonl"


def read_general(tokenizer: Tokenizer, kind: str) -> list[Sample]:
    """Return the questions with their answers as samples, one each.

    Args:
        tokenizer: The model's own.
        kind: What the method trains: `text` takes question and answer as one document.
    """
    samples: list[Sample] = []
    for line in FILE.read_bytes().splitlines():
        record = decode("chat", line)
        assert isinstance(record, ChatRecord)  # noqa: S101 (the kind that was asked for)
        if kind == "text":
            words = " ".join(text_of(message.content) for message in record.messages)
            samples += tokenizer.encode(TextRecord(text=words))
        else:
            samples += tokenizer.encode(record)
    return samples
