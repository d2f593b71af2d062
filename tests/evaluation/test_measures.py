from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.answers import Answer, Call, Reference, read_answer, read_reference
from finetune.evaluation.exam import Exam, Outcome
from finetune.evaluation.measures import compare
from finetune.evaluation.rewards import Side
from finetune.records import (
    AssistantMessage,
    Function,
    FunctionCall,
    SystemMessage,
    TextChunk,
    Tool,
    ToolCall,
    UserMessage,
)

ROOT = Path(__file__).parent.parent.parent
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
    values = dict(zip(("exact_match", "json_valid", "field_accuracy"), wanted, strict=True))
    found = compare(Answer(prediction), Reference(Answer(reference)))
    assert {name: found.get(name) for name in values} == pytest.approx(values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
)


@given(st.dictionaries(st.text(max_size=3), JSON, min_size=1, max_size=4), st.booleans())
def test_a_structure_matches_itself_however_it_is_written(value, spaced):
    written = json.dumps(value, indent=2 if spaced else None, sort_keys=spaced)
    assert compare(Answer(written), Reference(Answer(json.dumps(value)))) == {
        "exact_match": 1, "json_valid": 1, "field_accuracy": 1, "field_f1": 1,
    }  # fmt: skip


@given(st.text(), st.text())
def test_any_two_texts_are_scored_from_0_to_1(prediction, reference):
    values = compare(Answer(prediction), Reference(Answer(reference)))
    assert all(0 <= value <= 1 for value in values.values())


F1 = {
    "equal": ({"a": {"b": 1}, "c": []}, {"c": [], "a": {"b": 1}}, 1),
    "a deep value missing": ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, 2 / 3),
    "a value invented": ({"a": 1, "b": 2}, {"a": 1}, 2 / 3),
    "a list in another order": ({"a": [2, 1]}, {"a": [1, 2]}, 1),
    "a list with one twice": ({"a": [1, 1]}, {"a": [1, 2]}, 1 / 2),
    "under another key": ({"b": 1}, {"a": 1}, 0),
    "true is not 1": ({"a": 1}, {"a": True}, 0),
    "an empty list is no empty object": ({"a": []}, {"a": {}}, 0),
    "no object": ([1], {"a": 1}, 0),
}


@pytest.mark.parametrize("case", F1.values(), ids=F1.keys())
def test_field_f1(case):
    got, wanted, value = case
    found = compare(Answer(json.dumps(got)), Reference(Answer(json.dumps(wanted))))
    assert found["field_f1"] == pytest.approx(value)


BOOK = Call("book", {"seats": 2})
CANCEL = Call("cancel", {"order": "A1"})
TOOLS = {
    "book": {
        "type": "object",
        "properties": {"seats": {"type": "integer"}},
        "required": ["seats"],
    },
    "cancel": {"type": "object", "properties": {"order": {"type": "string"}}},
}

# calls made, calls wanted: exact match, names, calls, arguments
CALLS = {
    "equal": ([BOOK], [BOOK], 1, 1, 1, 1),
    "parallel calls in another order": ([CANCEL, BOOK], [BOOK, CANCEL], 1, 1, 1, 1),
    "one of two": ([BOOK], [BOOK, CANCEL], 0, 0, 1 / 2, 1),
    "one too many": ([BOOK, BOOK], [BOOK], 0, 0, 1 / 2, 1),
    "other arguments": ([Call("book", {"seats": 3})], [BOOK], 0, 1, 0, 1),
    "arguments of another type": ([Call("book", {"seats": "2"})], [BOOK], 0, 1, 0, 0),
    "an argument missing": ([Call("book", {})], [BOOK], 0, 1, 0, 0),
    "arguments that are no JSON": ([Call("book", '{"seats":')], [BOOK], 0, 1, 0, 0),
    "another function": ([CANCEL], [BOOK], 0, 0, 0, 1),
    "a function nobody declared": ([Call("fly", {})], [BOOK], 0, 0, 0, 0),
    "words for a call": ([], [BOOK], 0, 0, 0, 0),
    "a call for words": ([BOOK], [], 0, 0, None, None),
}


@pytest.mark.parametrize("case", CALLS.values(), ids=CALLS.keys())
def test_tool_calls(case):
    def answer(calls):
        return Answer(json.dumps([call._asdict() for call in calls]) if calls else "no", (*calls,))

    made, wanted, *values = case
    found = compare(answer(made), Reference(answer(wanted), tools=TOOLS))
    names = ("exact_match", "tool_names", "tool_calls", "tool_arguments")
    assert {name: found.get(name) for name in names} == dict(zip(names, values, strict=True))


def test_calls_written_as_text_are_no_calls():
    written = Answer('[{"name":"book","arguments":{"seats":2}}]')
    found = compare(written, Reference(Answer(written.text, (BOOK,)), tools=TOOLS))
    assert found == {"exact_match": 0, "tool_names": 0, "tool_calls": 0, "tool_arguments": 0}


SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}


def test_the_schema_of_the_system_prompt_is_checked():
    system = SystemMessage(content=f'Answer as {{json}} like {{"x": 1}}: {json.dumps(SCHEMA)}. Go!')
    asked = [system, UserMessage(content="1 + 1")]
    reference = read_reference(AssistantMessage(content='{"sum": 2}'), asked)
    assert reference.schema == SCHEMA
    worth = [compare(Answer(text), reference) for text in ('{"sum": 3}', '{"sum": "3"}', "3")]
    assert [one["schema_valid"] for one in worth] == [1, 0, 0]


def test_a_schema_that_the_record_itself_breaks_is_not_the_answers():
    asked = [SystemMessage(content=json.dumps(SCHEMA))]
    for content in ('{"total": 2}', "two"):
        reference = read_reference(AssistantMessage(content=content), asked)
        assert reference.schema is None
        assert "schema_valid" not in compare(Answer('{"sum": 2}'), reference)


def test_a_prompt_full_of_braces_is_not_searched_for_ever():
    asked = [SystemMessage(content="{" * 200_000)]
    assert read_reference(AssistantMessage(content='{"a": 1}'), asked).schema is None


def test_declared_tools_are_part_of_the_reference():
    function = Function(name="book", parameters=TOOLS["book"])
    reference = read_reference(AssistantMessage(content="no"), [], [Tool(function=function)])
    assert reference.tools == {"book": TOOLS["book"]}
    assert compare(Answer("no"), reference) == {"exact_match": 1, "tool_names": 1}


CAT = "the cat is on the mat"


def test_prose_is_compared_by_letters_and_words():
    found = compare(Answer("the cat sat on the mat"), Reference(Answer(CAT)))
    # sacrebleu 2.6.0's `sentence_chrf`; rouge-score 0.1.2's `rougeL`
    assert found["chrf"] == pytest.approx(0.645779, abs=1e-6)
    assert found["rouge_l"] == pytest.approx(0.833333, abs=1e-6)
    assert compare(Answer(CAT), Reference(Answer(CAT))) == pytest.approx(
        {"exact_match": 1, "chrf": 1, "rouge_l": 1}
    )
    assert compare(Answer(""), Reference(Answer(CAT))) == {
        "exact_match": 0, "chrf": 0, "rouge_l": 0,
    }  # fmt: skip


def test_words_of_every_script_count():
    reference = Reference(Answer("l'été dernier, il a fait très chaud"))
    assert compare(Answer("L'ÉTÉ DERNIER IL A FAIT TRÈS CHAUD"), reference)["rouge_l"] == 1
    assert compare(Answer("t t t t t t t"), reference)["rouge_l"] == 0


@pytest.mark.parametrize("text", ["billing", '{"text": "the cat is on the mat"}', "?" * 30])
def test_labels_and_structures_are_not_prose(text):
    assert "rouge_l" not in compare(Answer(CAT), Reference(Answer(text)))


def test_without_the_libraries_prose_is_not_measured_and_that_is_said(check_without):
    check_without(
        "from finetune.evaluation.answers import Answer, Reference\n"
        "from finetune.evaluation.measures import compare, list_missing\n"
        f"one = Reference(Answer({CAT!r}))\n"
        "assert compare(one.answer, one) == {'exact_match': 1}\n"
        "assert list_missing([one]) == ['chrf', 'rouge_l']\n"
        "assert list_missing([Reference(Answer('billing'))]) == []\n"
    )


@pytest.fixture
def check_without():
    """Run code in a process in which the libraries of the extra cannot be imported."""

    def check(code):
        code = "import sys; sys.modules |= {'sacrebleu': None, 'rapidfuzz': None}\n" + code
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr

    return check


def test_tool_calls_are_compared_without_ids_and_however_arguments_are_held():
    def call(identifier, arguments):
        function = FunctionCall(name="book", arguments=arguments)
        return AssistantMessage(tool_calls=[ToolCall(id=identifier, function=function)])

    one, other = call("abcdefghi", {"seats": 2}), call("123456789", '{"seats":2}')
    assert read_answer(one) == read_answer(other)
    assert read_answer(one).text == '[{"name":"book","arguments":{"seats":2}}]'
    assert read_answer(call("abcdefghi", '{"seats":')) != read_answer(one)


def test_an_answer_in_chunks_is_its_text():
    chunks = [TextChunk(text="one"), TextChunk(text="two")]
    assert read_answer(AssistantMessage(content=chunks)).text == "one\n\ntwo"
    assert read_answer(AssistantMessage()).text == ""


@pytest.mark.parametrize(("loss", "known"), [(2.0, True), (1e4, False)])
def test_a_perplexity_that_is_no_number_is_left_out(loss, known):
    exam = Exam([], [], [], tokenizer=None, limit=1, seed=0)
    scores = exam.grade(Outcome([Side(loss * 3, 3), Side(loss, 1)], [], [], []))
    assert scores["loss"]["value"] == loss
    assert ("perplexity" in scores) == known
