from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.measures import MEASURES, answer_text, compare
from finetune.records import AssistantMessage, FunctionCall, TextChunk, ToolCall

TRIAGE = '{"product": "lamp", "order": null, "urgent": true}'

# prediction, reference, exact match, JSON valid, field accuracy
CASES = {
    "equal text": ("yes", "yes", 1, None, None),
    "space around": (" yes\n", "yes", 1, None, None),
    "another text": ("no", "yes", 0, None, None),
    "case counts": ("Yes", "yes", 0, None, None),
    "empty answer": ("", "yes", 0, None, None),
    "equal JSON": (TRIAGE, TRIAGE, 1, 1, 1),
    "other order and spaces": (
        '{"urgent":true,"order":null,"product":"lamp"}', TRIAGE, 1, 1, 1,
    ),
    "one field wrong": ('{"product": "fan", "order": null, "urgent": true}', TRIAGE, 0, 1, 2 / 3),
    "one field missing": ('{"product": "lamp", "urgent": true}', TRIAGE, 0, 1, 2 / 3),
    "one field invented": (
        '{"product": "lamp", "order": null, "urgent": true, "mood": 1}', TRIAGE, 0, 1, 3 / 4,
    ),
    "words around the JSON": (f"Here it is: {TRIAGE}", TRIAGE, 0, 0, 0),
    "cut off": (TRIAGE[:-1], TRIAGE, 0, 0, 0),
    "a second object after it": (f"{TRIAGE} {TRIAGE}", TRIAGE, 0, 0, 0),
    "a bare number": ("1", '{"a": 1}', 0, 0, 0),
    "true is not 1": ('{"a": 1}', '{"a": true}', 0, 1, 0),
    "1 is 1.0": ('{"a": 1.0}', '{"a": 1}', 1, 1, 1),
    "a text is not a number": ('{"a": "1"}', '{"a": 1}', 0, 1, 0),
    "true is not 1 inside": ('{"a": [{"b": 1}]}', '{"a": [{"b": true}]}', 0, 1, 0),
    "a list": ("[1, 2]", "[1,2]", 1, 1, None),
    "a list in another order": ("[2, 1]", "[1, 2]", 0, 1, None),
    "a longer list": ("[1, 2, 3]", "[1, 2]", 0, 1, None),
    "a list for an object": ("[1]", '{"a": 1}', 0, 1, 0),
    "an empty object": ("{}", "{ }", 1, 1, None),
    "the reference is a number": ("7.0", "7", 0, None, None),
    "the reference is a word": ("null", "null", 1, None, None),
    "bottomless brackets": ("[" * 100_000, '{"a": 1}', 0, 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_measures(case):
    prediction, reference, *wanted = case
    values = dict(zip(MEASURES, wanted, strict=True))
    assert compare(prediction, reference) == pytest.approx(
        {name: value for name, value in values.items() if value is not None}
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
)


@given(st.dictionaries(st.text(max_size=3), JSON, min_size=1, max_size=4), st.booleans())
def test_a_structure_matches_itself_however_it_is_written(value, spaced):
    written = json.dumps(value, indent=2 if spaced else None, sort_keys=spaced)
    assert compare(written, json.dumps(value)) == {
        "exact_match": 1, "json_valid": 1, "field_accuracy": 1,
    }  # fmt: skip


@given(st.text(), st.text())
def test_any_two_texts_are_scored_from_0_to_1(prediction, reference):
    assert all(0 <= value <= 1 for value in compare(prediction, reference).values())


def test_tool_calls_are_compared_without_ids_and_however_arguments_are_held():
    def call(identifier, arguments):
        function = FunctionCall(name="book", arguments=arguments)
        return AssistantMessage(tool_calls=[ToolCall(id=identifier, function=function)])

    one, other = call("abcdefghi", {"seats": 2}), call("123456789", '{"seats":2}')
    assert answer_text(one) == answer_text(other) == '[{"name":"book","arguments":{"seats":2}}]'
    assert answer_text(call("abcdefghi", '{"seats":')) != answer_text(one)


def test_an_answer_in_chunks_is_its_text():
    chunks = [TextChunk(text="one"), TextChunk(text="two")]
    assert answer_text(AssistantMessage(content=chunks)) == "one\n\ntwo"
    assert answer_text(AssistantMessage()) == ""
