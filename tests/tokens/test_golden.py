"""Golden samples: `golden/TOKENIZER/CASE.json`, each with its record and what it must become.

A new case is a file with its record alone under `golden/TOKENIZER/`; `python -m
tests.tokens.test_golden` writes the samples into files that have none.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune import records
from finetune.tokens import load_tokenizer

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(GOLDEN.glob("*/*.json"))


def describe(tokenizer, record):
    return [
        {
            "input_ids": sample.input_ids,
            "labels": sample.labels,
            "weights": sample.weights,
            "pieces": tokenizer.pieces(sample.input_ids),
        }
        for sample in tokenizer.encode(record)
    ]


@pytest.mark.parametrize(
    ("tokenizer", "path"),
    [(path.parent.name, path) for path in CASES],
    ids=[f"{path.parent.name}-{path.stem}" for path in CASES],
    indirect=["tokenizer"],
)
def test_samples_are_the_golden_ones(tokenizer, path):
    case = json.loads(path.read_text(encoding="utf-8"))
    record = records.from_object(records.kind_of(case["record"]), case["record"])
    assert describe(tokenizer, record) == case["samples"]


def write_missing(find) -> None:
    for path in CASES:
        case = json.loads(path.read_text(encoding="utf-8"))
        if "samples" not in case:
            record = records.from_object(records.kind_of(case["record"]), case["record"])
            case["samples"] = describe(load_tokenizer(find(path.parent.name)), record)
            path.write_text(json.dumps(case, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    import tempfile

    from tests.tokens.conftest import SHIPPED, WHEEL, build

    with tempfile.TemporaryDirectory() as folder:

        def find(name: str) -> Path:
            if name in SHIPPED:
                return WHEEL / SHIPPED[name]
            build(Path(folder), name)
            return Path(folder) / name / "tekken.json"

        write_missing(find)
