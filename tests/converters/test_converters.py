"""Golden cases: a folder a case with `row.json`, and `records.json` or `error.json`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune import records
from finetune.checks import RULES
from finetune.converters import CONVERTERS, ConvertError, Detection, detect
from finetune.errors import UsageError

CASES = Path(__file__).parent / "cases"
FOLDERS = sorted(path.parent for path in CASES.glob("*/*/row.json"))


def load(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def reading(name: str, row, folder: Path) -> Detection:
    """Return what the case says (`columns`, `roles`, `kind`), else what the row shows."""
    columns, roles, kind = (
        load(path) if (path := folder / f"{part}.json").exists() else default
        for part, default in (("columns", None), ("roles", {}), ("kind", None))
    )
    if columns is not None:
        return Detection(name, kind or CONVERTERS[name].kinds[0], columns, roles=roles)
    return detect([row], format=name, kind=kind)._replace(roles=roles)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_case(folder):
    row = load(folder / "row.json")
    name = folder.parent.name
    source = reading(name, row, folder)
    if (folder / "error.json").exists():
        with pytest.raises(ConvertError) as caught:
            CONVERTERS[name].convert(row, source)
        error = caught.value
        found = {"rule": error.rule, "path": error.path, "message": error.fact}
        assert found == load(folder / "error.json")
    else:
        made = CONVERTERS[name].convert(row, source)
        assert [json.loads(records.encode(record)) for record in made] == load(
            folder / "records.json"
        )
        for record in made:  # what is written can be read again
            assert records.decode(source.kind, records.encode(record)) == record


def test_every_rule_of_an_error_can_be_explained():
    rules = {load(path)["rule"] for path in CASES.glob("*/*/error.json")}
    assert rules <= RULES.keys()


@pytest.mark.parametrize("name", CONVERTERS)
def test_converter_has_cases_of_both_kinds_and_a_table(name):
    assert list((CASES / name).glob("*/records.json"))
    assert list((CASES / name).glob("*/error.json"))
    module = CONVERTERS[name].convert.__module__
    assert "| row " in (__import__(module, fromlist=["x"]).__doc__ or "")


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("logs/responses-with-calls", ["input[].reasoning", "tools[].web_search"]),
        ("logs/openai-with-tools", []),
        ("anthropic/tools-of-the-server", ["tools[].web_search_20250305"]),
    ],
)
def test_what_is_not_used_inside_a_row_is_named(case, names):
    row = load(CASES / case / "row.json")
    source = detect([row])
    assert list(CONVERTERS[source.format].unused(row, source)) == names


def test_cases_belong_to_converters():
    assert {path.name for path in CASES.iterdir()} == set(CONVERTERS)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "from",
                    "value",
                    "messages",
                    "conversations",
                    "tools",
                    "tool_calls",
                    "function_call",
                    "name",
                    "arguments",
                    "function",
                    "id",
                    "prompt",
                    "completion",
                    "instruction",
                    "output",
                    "text",
                    "labels",
                    "weight",
                    "label",
                    "chosen",
                    "rejected",
                    "answers",
                    "scores",
                    "rank",
                    "replies",
                    "context",
                    "message_id",
                    "message_tree_id",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@pytest.mark.parametrize("name", CONVERTERS)
@given(row=values, seen=values)
def test_any_row_gives_valid_records_or_an_error_without_its_content(name, row, seen):
    try:
        source = detect([seen, row], format=name)
    except UsageError:
        source = Detection(name, "chat", {"user": "prompt", "assistant": "completion"})
    try:
        made = CONVERTERS[name].convert(row, source)
    except ConvertError as error:
        assert error.rule
    else:
        assert made
        for record in made:
            assert records.decode(source.kind, records.encode(record)) == record


SECRET = "Zs8xQ-secret"


@pytest.mark.parametrize("name", CONVERTERS)
@given(row=values)
def test_errors_do_not_quote_the_row(name, row):
    def hide(value):
        if isinstance(value, str):
            return SECRET
        if isinstance(value, list):
            return [hide(item) for item in value]
        return {k: hide(v) for k, v in value.items()} if isinstance(value, dict) else value

    try:
        CONVERTERS[name].convert(hide(row), Detection(name))
    except ConvertError as error:
        assert SECRET not in str(error)


texts = st.text(st.characters(codec="utf-8"), max_size=8)
turns = st.lists(st.tuples(texts, texts), max_size=3).map(
    lambda pairs: [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
)


def answer(text):
    return [{"role": "assistant", "content": text}]


@given(before=turns, question=texts, better=texts, worse=texts)
def test_every_form_of_a_pair_is_the_same_pair(before, question, better, worse):
    prompt = [*before, {"role": "user", "content": question}]
    chosen, rejected = answer(better), answer(worse)
    wanted = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    forms = [
        wanted,
        {"prompt": prompt, "chosen": prompt + chosen, "rejected": prompt + rejected},
        {"chosen": prompt + chosen, "rejected": prompt + rejected},
        {"prompt": prompt, "chosen": better, "rejected": worse},
    ]
    for row in forms:
        (record,) = CONVERTERS["preference"].convert(row, Detection("preference", "preference"))
        assert json.loads(records.encode(record)) == wanted
    (record,) = CONVERTERS["rating"].convert(
        {"messages": prompt + chosen, "label": True},
        Detection("rating", "rating", {"completion": "messages"}),
    )
    assert json.loads(records.encode(record)) == {
        "prompt": prompt,
        "completion": chosen,
        "label": True,
    }


@given(before=turns, question=texts, better=texts, worse=texts)
def test_a_transcript_loses_nothing(before, question, better, worse):
    def write(messages):
        speakers = {"user": "Human", "assistant": "Assistant"}
        return "".join(f"\n\n{speakers[m['role']]}: {m['content']}" for m in messages)

    prompt = [*before, {"role": "user", "content": question}]
    row = {
        "chosen": write(prompt + answer(better)),
        "rejected": write(prompt + answer(worse)),
    }
    (record,) = CONVERTERS["preference"].convert(row, Detection("preference", "preference"))
    made = json.loads(records.encode(record))
    assert write(made["prompt"] + made["chosen"]) == row["chosen"]
    assert write(made["prompt"] + made["rejected"]) == row["rejected"]


@given(scores=st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_the_best_answers_are_before_each_worse_one(scores):
    row = {"prompt": "P", "answers": [str(n) for n in range(len(scores))], "scores": scores}
    source = Detection("ranked", "preference")
    worse = sum(score < max(scores) for score in scores)
    if not worse:
        with pytest.raises(ConvertError) as caught:
            CONVERTERS["ranked"].convert(row, source)
        assert caught.value.rule == "tied-answers"
        return
    made = CONVERTERS["ranked"].convert(row, source)
    assert len(made) == worse * (len(scores) - worse)
    used = set()
    for record in made:
        better, other = int(record.chosen[0].content), int(record.rejected[0].content)
        assert scores[better] == max(scores) > scores[other]
        used |= {better, other}
    assert used == set(range(len(scores)))


nodes = st.recursive(
    st.builds(lambda text: {"text": text, "replies": []}, texts),
    lambda inner: st.builds(
        lambda text, rank, replies: {"text": text, "rank": rank, "replies": replies},
        texts,
        st.none() | st.integers(0, 3),
        st.lists(inner, max_size=3),
    ),
    max_leaves=8,
)


@given(tree=nodes)
def test_every_answer_of_a_tree_is_trained_once(tree):
    answers = []

    def name(node, depth, place):
        node["role"] = ("prompter", "assistant")[depth % 2]
        node["text"] = place
        if depth % 2:
            answers.append(place)
        for number, reply in enumerate(node["replies"]):
            name(reply, depth + 1, f"{place}.{number}")

    name(tree, 0, "0")
    source = Detection("oasst-paths")
    if not answers:
        with pytest.raises(ConvertError) as caught:
            CONVERTERS["oasst-paths"].convert({"prompt": tree}, source)
        assert caught.value.rule == "no-answer"
        return
    trained = [
        message.content
        for record in CONVERTERS["oasst-paths"].convert({"prompt": tree}, source)
        for message in record.messages
        if isinstance(message, records.AssistantMessage) and message.weight != 0
    ]
    assert sorted(trained) == sorted(answers)
