from __future__ import annotations

import json

import pytest

from finetune.errors import DataError, RunError
from finetune.evaluation.cases import choose_cases, read_cases
from finetune.recipe import load_recipe
from finetune.tokens import load_tokenizer

CHAT = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "eins"},
    {"role": "user", "content": "two"},
    {"role": "assistant", "content": "zwei"},
]
LONG = [{"role": "user", "content": "word " * 300}, {"role": "assistant", "content": "long"}]
GROWN = [*LONG, *CHAT[:2]]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("v3")


@pytest.fixture
def read(tmp_path, tokenizer):
    def read(*chats, too_long="drop"):
        (tmp_path / "recipe.yaml").write_text(
            "model: smollm2-135m\n"
            f"data: {{train: [{{path: x.jsonl}}], too_long: {too_long}}}\n"
            "training: {seq_len: 200}\n"
        )
        lines = [json.dumps({"messages": messages}) for messages in chats]
        (tmp_path / "evaluation.jsonl").write_text("".join(f"{line}\n" for line in lines))
        recipe = load_recipe(tmp_path / "recipe.yaml")
        return read_cases(tmp_path / "evaluation.jsonl", tokenizer, recipe)

    return read


def test_the_last_answer_is_asked_for_with_all_that_stands_before_it(read, tokenizer):
    (case,), _ = read(CHAT)
    assert case.reference.answer.text == "zwei"
    prompt = case.question.encode(tokenizer).ids
    text = tokenizer.decode(prompt)
    assert [text.count(word) for word in ("one", "eins", "two", "zwei")] == [1, 1, 1, 0]
    assert case.samples[0].input_ids[: len(prompt)] == prompt


def test_answers_that_are_not_trained_are_not_asked_for(read):
    (case,), _ = read([*CHAT[:3], {**CHAT[3], "weight": 0}])
    assert case.reference.answer.text == "eins"


def test_records_longer_than_training_allows_are_counted(read):
    cases, too_long = read(CHAT, LONG, CHAT)
    assert [case.number for case in cases] == [1, 3]
    assert too_long == 1


def test_a_shortened_record_is_scored_but_not_asked(read):
    cases, too_long = read(GROWN, CHAT, too_long="truncate-history")
    assert too_long == 0
    assert [bool(case.samples) for case in cases] == [True, True]
    assert [case.number for case in choose_cases(cases, None, seed=0)] == [2]


def test_a_record_that_is_too_long_is_an_error_where_the_recipe_says_so(read):
    with pytest.raises(DataError) as caught:
        read(CHAT, LONG, too_long="error")
    assert caught.value.rule == "too-long"
    assert (caught.value.file, caught.value.line) == ("evaluation.jsonl", 2)
    assert "word" not in str(caught.value)


def test_nothing_left_is_an_error(read):
    with pytest.raises(RunError, match="no record to measure on"):
        read(LONG)


def test_a_limit_draws_by_chance_and_keeps_the_order(read):
    cases, _ = read(*[CHAT] * 40)
    drawn = [case.number for case in choose_cases(cases, 10, seed=1)]
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 10
    assert drawn == [case.number for case in choose_cases(cases, 10, seed=1)]
    assert drawn != [case.number for case in choose_cases(cases, 10, seed=2)]
    assert len(choose_cases(cases, 40, seed=1)) == len(choose_cases(cases, 99, seed=1)) == 40
