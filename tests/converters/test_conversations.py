"""No converter loses or invents a row, a turn, a call or a result."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from finetune.checks import RULES, Checker
from finetune.checks.targets import find_target
from finetune.converters import CONVERTERS, Detection, detect
from finetune.corpus import Reading, convert_files
from tests.converters.conversations import (
    CASES,
    ONLY_CALLS,
    as_old_openai,
    conversations,
    flatten,
    flatten_record,
)


def talks(name, writer):
    """Return the conversations that a format can hold."""
    if name in ONLY_CALLS:
        one = conversations(system=False, most=1)
        return one.filter(lambda talk: talk.exchanges[0].calls)
    if name == "alpaca":
        return conversations(calls=0)
    return conversations(calls=1 if writer is as_old_openai else 3)


def read(name, row):
    made = CONVERTERS[name].convert(row, Detection(name))
    assert len(made) == 1
    return made[0]


@pytest.mark.parametrize(
    ("name", "writer"), CASES, ids=lambda part: getattr(part, "__name__", part)
)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_conversation_is_read_as_it_was_written(name, writer, data):
    talk = data.draw(talks(name, writer))
    record = read(name, writer(talk))
    wanted = flatten(talk)
    if name in ONLY_CALLS:
        wanted = wanted[:2]
    assert flatten_record(record) == wanted
    tools = [tool.function.name for tool in record.tools or ()]
    assert tools == talk.names or writer.__name__ == "as_openrouter_log"
    for target in ("v13", "platform"):
        if not tools and target == "platform":
            continue  # OpenRouter does not log what was declared
        findings = Checker("chat", target).check_record(record, "", 1)
        assert not [finding.rule for finding in findings if finding.severity == "error"]


@pytest.mark.parametrize(
    ("name", "writer"), CASES, ids=lambda part: getattr(part, "__name__", part)
)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_format_is_told_from_its_conversations(name, writer, data):
    talk = data.draw(talks(name, writer))
    row = writer(talk)
    needs_calls = {"as_anthropic", "as_toolace", "as_old_openai", "as_hermes"}
    assume(talk.names or writer.__name__ not in needs_calls)
    assert detect([row]).format == name


# Rows as they come: whole, or with a part taken out or put in another's place.
junk = st.none() | st.integers() | st.text(max_size=5) | st.just({}) | st.just([])


def spoil(value, draw):
    """Return a JSON value with one of its parts replaced or left out."""
    if isinstance(value, dict) and value:
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.booleans()):
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: spoil(value[key], draw)}
    if isinstance(value, list) and value:
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], spoil(value[at], draw), *value[at + 1 :]]
    if isinstance(value, str) and len(value) > 1 and draw(st.booleans()):
        return value[: draw(st.integers(0, len(value) - 1))]
    return draw(junk)


@pytest.mark.parametrize(
    ("name", "writer"), CASES, ids=lambda part: getattr(part, "__name__", part)
)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_row_is_a_record_or_rejected_with_a_rule(name, writer, data):
    whole = data.draw(st.lists(talks(name, writer).map(writer), min_size=1, max_size=3))
    spoilt = [spoil(row, data.draw) for row in whole]
    rows = [row for row in whole + spoilt if isinstance(row, dict)]
    stream = io.BytesIO("\n".join(json.dumps(row) for row in rows).encode())
    written, rejected = [], []
    done = convert_files(
        [("rows.jsonl", stream)],
        written.append,
        Reading(format=name),
        target=find_target("v13"),
        reject=rejected.append,
    ).account
    assert done.rows["read"] == len(rows) == done.rows["converted"] + done.rows["rejected"]
    assert done.records["made"] == done.records["written"] + done.records["rejected"]
    assert len(rejected) == done.rows["rejected"] + done.records["rejected"]
    assert done.rows["converted"] >= len(whole)
    checker = Checker("chat", "v13")
    assert {finding.rule for finding in rejected} <= RULES.keys()
    for line in b"".join(written).splitlines():
        record, findings = checker.check_line(line, "", 1)
        assert record is not None, findings
