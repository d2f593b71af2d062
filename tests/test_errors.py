from __future__ import annotations

import pickle

import pytest

from finetune import errors
from finetune.errors import DataError, FinetuneError, Interrupted, MissingExtra, PlatformError

EXAMPLES = [
    errors.FinetuneError("something", hint="do that"),
    errors.UsageError("x.csv: no such file"),
    errors.RecipeError("r.yaml:3: lr: unknown field"),
    MissingExtra("local", "torch"),
    DataError("two `user` messages in a row", file="a.jsonl", line=3, path="messages[1]", rule="r"),
    errors.RunError("runs/x: wrong state"),
    errors.RunLocked("runs/x: in use"),
    errors.ConfirmationNeeded("12 EUR"),
    errors.BackendError("no"),
    PlatformError("gone", exit_code=8),
    errors.TrainingError("loss is not a number"),
    Interrupted(15, "saved"),
]
EXIT_CODES = {
    "FinetuneError": 1,
    "UsageError": 2,
    "RecipeError": 2,
    "MissingExtra": 2,
    "DataError": 3,
    "RunError": 1,
    "RunLocked": 9,
    "ConfirmationNeeded": 7,
    "BackendError": 1,
    "PlatformError": 8,
    "TrainingError": 6,
    "Interrupted": 143,
}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_renders_has_its_code_and_survives_pickling(error):
    again = pickle.loads(pickle.dumps(error))

    assert str(again) == str(error) == error.message
    assert "\n" not in error.message
    assert (type(again), again.hint, again.exit_code) == (
        type(error),
        error.hint,
        EXIT_CODES[type(error).__name__],
    )


def test_every_class_of_the_tree_has_an_example():
    def below(kind):
        return {kind.__name__}.union(*(below(child) for child in kind.__subclasses__()))

    in_tree = {name for name in below(FinetuneError) if hasattr(errors, name)}

    assert in_tree == set(EXIT_CODES) == {type(error).__name__ for error in EXAMPLES}


def test_a_data_error_says_place_path_fact_and_rule():
    error = DataError("is empty", file="a.jsonl", line=7, path="messages[2].content", rule="empty")

    assert str(error) == "a.jsonl:7: messages[2].content: is empty  [empty]"


def test_a_missing_extra_gives_a_command_that_can_be_pasted():
    assert MissingExtra("local", "torch").hint.endswith(
        '-m pip install "mistral-finetune-kit[local]"'
    )
