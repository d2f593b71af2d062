"""Records written in other tools' formats, and read back as they were."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune import records
from finetune.checks import RULES, Checker
from finetune.converters import CONVERTERS, ConvertError, detect
from finetune.converters.outward import OUTWARD, find_outward
from finetune.errors import UsageError
from finetune.records import ChatRecord

CASES = Path(__file__).parent / "outward"
FOLDERS = sorted(path.parent for path in CASES.glob("*/*/record.json"))

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20)
words = texts.filter(str.strip)
names = st.text("abcdefgh_", min_size=1, max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def chats(draw, *, tools=True, weights=(None, 0.0, 1.0), chunks=True):
    """Valid conversations: each call has its result, in the order of the calls."""
    messages, known = [], set()
    text = words | (words.map(lambda t: [{"type": "text", "text": t}]) if chunks else words)
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(words)})
    for turn in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(text)})
        if tools and draw(st.booleans()):
            calls = [
                {
                    "id": f"call{turn:02}{number:03}",
                    "type": "function",
                    "function": {
                        "name": draw(names),
                        "arguments": json.dumps(draw(st.dictionaries(names, values, max_size=2))),
                    },
                }
                for number in range(draw(st.integers(1, 3)))
            ]
            known |= {call["function"]["name"] for call in calls}
            messages.append({"role": "assistant", "tool_calls": calls})
            messages += [
                {"role": "tool", "content": draw(words), "tool_call_id": call["id"]}
                for call in calls
            ]
        answer = {"role": "assistant", "content": draw(text)}
        if (weight := draw(st.sampled_from(weights))) is not None:
            answer["weight"] = weight
        messages.append(answer)
    record = {"messages": messages}
    if known:
        record["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": draw(texts),
                    "parameters": {"type": "object", "properties": {}},
                },
            }
            for name in sorted(known)
        ]
    if not any(m.get("weight", 1) for m in messages if m["role"] == "assistant"):
        messages[-1]["weight"] = 1.0
    return records.from_object("chat", record)


def meaning(record, *, ids=True):
    """Return a record without what is written in two ways that mean the same."""
    plain = msgspec.to_builtins(record)
    seen: dict[str, str] = {}
    for key in ("messages", "prompt", "chosen", "rejected", "completion"):
        for message in plain.get(key, ()):
            match message.get("content"):
                case [{"type": "text", "text": text}]:
                    message["content"] = text
            if message.get("weight") == 1:
                del message["weight"]
            for call in message.get("tool_calls", ()):
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
                if not ids:
                    call["id"] = seen.setdefault(call["id"], str(len(seen)))
            if not ids and "tool_call_id" in message:
                message["tool_call_id"] = seen[message["tool_call_id"]]
    return plain


def again(record, to, name=None, kind="chat"):
    row = json.loads(OUTWARD[to].encode(record))
    (made,) = CONVERTERS[name or to].convert(row, detect([row], format=name or to, kind=kind))
    return made


def test_generated_conversations_are_valid():
    checker = Checker("chat")

    @given(record=chats())
    def check(record):
        assert [f for f in checker.check_record(record, "x", 1) if f.severity == "error"] == []

    check()


@given(record=chats())
def test_openai_gives_the_record_back(record):
    assert meaning(again(record, "openai")) == meaning(record)


@given(record=chats(weights=(None, 0.0, 0.5, 1.0)))
def test_sharegpt_gives_the_record_back_with_new_ids(record):
    assert meaning(again(record, "sharegpt"), ids=False) == meaning(record, ids=False)


@given(record=chats(tools=False, weights=(None,)))
def test_alpaca_gives_the_record_back(record):
    assert meaning(again(record, "alpaca")) == meaning(record)


@given(record=chats(weights=(None, 1.0)))
def test_trl_gives_the_record_back(record):
    assert meaning(again(record, "trl")) == meaning(record)


@given(record=chats(weights=(None,)), data=st.data())
def test_trl_gives_back_where_only_the_last_answers_are_trained(record, data):
    answers = [m for m in record.messages if isinstance(m, records.AssistantMessage)]
    for message in answers[: data.draw(st.integers(0, len(answers) - 1))]:
        message.weight = 0.0
    assert meaning(again(record, "trl")) == meaning(record)


@pytest.mark.parametrize("name", ["trl", "openai"])
@given(record=chats(tools=False, weights=(None,)), better=words, worse=words)
def test_preferences_come_back(name, record, better, worse):
    pair = records.PreferenceRecord(
        prompt=record.messages[:-1],
        chosen=[records.AssistantMessage(content=better)],
        rejected=[records.AssistantMessage(content=worse)],
    )
    back = again(pair, name, "preference" if name == "openai" else "trl", "preference")
    assert meaning(back) == meaning(pair)


@given(record=chats(tools=False, weights=(None,)), label=st.booleans())
def test_ratings_come_back(record, label):
    rated = records.RatingRecord(
        prompt=record.messages[:-1], completion=record.messages[-1:], label=label
    )
    assert meaning(again(rated, "trl", kind="rating")) == meaning(rated)


@pytest.mark.parametrize("name", OUTWARD)
@given(record=chats(weights=(None, 0.0, 0.5, 1.0)))
def test_a_record_is_written_whole_or_refused_by_name(name, record):
    try:
        row = OUTWARD[name].encode(record)
    except ConvertError as error:
        assert error.rule == "not-in-format"
        assert f"`{name}`" in error.fact
        assert error.path
        return
    line = json.dumps(json.loads(row), ensure_ascii=False)
    for message in record.messages:
        content = message.content
        if isinstance(content, str):
            assert json.dumps(content, ensure_ascii=False) in line


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_case(folder):
    def load(name):
        return json.loads((folder / name).read_text(encoding="utf-8"))

    value = load("record.json")
    record = records.from_object(records.kind_of(value), value)
    if (folder / "error.json").exists():
        with pytest.raises(ConvertError) as caught:
            OUTWARD[folder.parent.name].encode(record)
        assert {"path": caught.value.path, "message": caught.value.fact} == load("error.json")
        assert caught.value.rule in RULES
    else:
        assert json.loads(OUTWARD[folder.parent.name].encode(record)) == load("row.json")


@pytest.mark.parametrize("name", OUTWARD.keys() - {"laplateforme"})
def test_format_has_cases_of_both_kinds(name):
    assert list((CASES / name).glob("*/row.json"))
    assert list((CASES / name).glob("*/error.json"))


def test_unknown_format_is_said():
    with pytest.raises(UsageError, match="sharegtp: no format to write") as caught:
        find_outward("sharegtp")
    assert caught.value.hint == "did you mean `sharegpt`?"


def test_converting_twice_changes_nothing():
    record = records.decode("chat", b'{"messages":[{"role":"user","content":"Hi"}]}')
    before = records.encode(record)
    assert isinstance(record, ChatRecord)
    OUTWARD["openai"].encode(record)
    assert records.encode(record) == before
