"""The structs and the published schemas accept and refuse the same values."""

from __future__ import annotations

import copy
import json
import os

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from finetune import records
from finetune.checks import Checker
from finetune.checks.structure import explain_structure
from finetune.shipped import shipped_folder

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "300"))
ROOMY = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
free = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-2, 2) | text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(text, free, max_size=2)


def shape(required, optional=None):
    return st.fixed_dictionaries(required, optional=optional or {})


text_chunk = shape({"type": st.just("text"), "text": text})
image = shape(
    {"type": st.just("image_url"), "image_url": text | st.dictionaries(text, text, max_size=2)}
)
thinking = shape(
    {
        "type": st.just("thinking"),
        "thinking": st.lists(shape({"text": text}, {"type": st.just("text")}), max_size=2),
    },
    {"closed": st.booleans()},
)


def content(*chunks):
    return text | st.lists(st.one_of(*chunks), max_size=2)


call = shape(
    {"function": shape({"name": text, "arguments": text | objects})},
    {"id": text, "type": st.just("function")},
)
message = st.one_of(
    shape({"role": st.just("system"), "content": content(text_chunk, thinking)}),
    shape({"role": st.just("user"), "content": content(text_chunk, image)}),
    shape(
        {"role": st.just("assistant")},
        {
            "content": content(text_chunk, thinking),
            "tool_calls": st.lists(call, max_size=2),
            "weight": st.sampled_from([0, 1, 0.5]),
        },
    ),
    shape(
        {"role": st.just("tool"), "content": content(text_chunk, image)},
        {"tool_call_id": text, "name": text},
    ),
)
messages = st.lists(message, max_size=3)
tools = st.lists(
    shape(
        {
            "function": shape(
                {"name": text, "parameters": objects},
                {"description": text, "strict": st.booleans()},
            )
        },
        {"type": st.just("function")},
    ),
    max_size=2,
)
VALID = {
    "chat": shape({"messages": messages}, {"tools": tools}),
    "text": shape({"text": text}),
    "classifier": shape(
        {"labels": st.dictionaries(text, text | st.lists(text, max_size=2), max_size=2)},
        {"text": text, "messages": messages},
    ),
    "preference": shape(
        {"prompt": messages, "chosen": messages, "rejected": messages}, {"tools": tools}
    ),
    "rating": shape(
        {"prompt": messages, "completion": messages, "label": st.booleans()}, {"tools": tools}
    ),
}
KEYS = ["role", "content", "type", "text", "id", "name", "weight", "tools", "labels", "x"]


def places(value, path=()):
    """Yield the path of every value inside."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


@st.composite
def mutated(draw, kind):
    value = copy.deepcopy(draw(VALID[kind]))
    for _ in range(draw(st.integers(0, 2))):
        found = list(places(value))
        if not found:
            break
        *path, last = draw(st.sampled_from(found))
        parent = value
        for key in path:
            parent = parent[key]
        match draw(st.sampled_from(["drop", "replace", "add", "role"])):
            case "drop":
                del parent[last]
            case "replace":
                parent[last] = draw(free | st.just({}) | st.just([]))
            case "add" if isinstance(parent, dict):
                parent[draw(st.sampled_from(KEYS))] = draw(free)
            case "role":
                parent[last] = draw(st.sampled_from(["user", "tool", "human", "function", "text"]))
    return value


@pytest.mark.parametrize("kind", VALID)
def test_valid_records_decode_and_come_back_the_same(kind):
    @ROOMY
    @given(VALID[kind])
    def check(value):
        line = json.dumps(value).encode()
        record = records.decode(kind, line)
        assert records.decode(kind, records.encode(record)) == record
        assert explain_structure(kind, value) == []

    check()


@pytest.mark.parametrize("kind", VALID)
def test_struct_and_schema_agree(kind):
    @ROOMY
    @given(mutated(kind))
    def check(value):
        try:
            records.decode(kind, json.dumps(value).encode())
            accepted = True
        except (msgspec.ValidationError, msgspec.DecodeError):
            accepted = False
        faults = explain_structure(kind, value)
        assert accepted == (not faults)
        assert "schema" not in [fault.rule for fault in faults]

    check()


def drop_key(line, draw):
    """Write one object of the line with one of its keys twice."""
    spots = [index for index, byte in enumerate(line) if byte == ord("{")]
    start = draw(st.sampled_from(spots))
    head = msgspec.json.decode(line[start : _end(line, start)])
    if not head:
        return None
    key = draw(st.sampled_from(sorted(head)))
    pad = draw(st.sampled_from([b"", b" ", b"  ", b"\t"]))
    twice = json.dumps(key).encode() + pad + b":" + json.dumps(head[key]).encode() + b","
    return line[: start + 1] + twice + line[start + 1 :]


def _end(line, start):
    _, end = json.JSONDecoder().raw_decode(line[start:].decode("latin-1"))
    return start + end


@ROOMY
@given(VALID["chat"], st.data())
def test_a_doubled_key_is_always_found(value, data):
    # Texts without braces, so that every brace opens an object.
    line = json.dumps(value).replace("\\u007b", "")
    if "{" in "".join(part for part in texts(value)):
        return
    doubled = drop_key(line.encode(), data.draw)
    if doubled is None:
        return
    checker = Checker("chat", "v7")
    rules = [finding.rule for finding in checker.check_line(line.encode(), "f", 1)[1]]
    assert "duplicate-key" not in rules
    rules = [finding.rule for finding in checker.check_line(doubled, "f", 1)[1]]
    assert "duplicate-key" in rules


def test_a_doubled_key_is_found_where_another_object_leaves_it_out():
    line = (
        b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"tools":['
        b'{"function":{"name":"f","description":"f","parameters":{}}},'
        b'{"type":"function","type":"function","function":{"name":"g","description":"g","parameters":{}}}]}'
    )

    findings = Checker("chat", "v7").check_line(line, "f", 1)[1]

    assert [finding.rule for finding in findings] == ["duplicate-key"]


def texts(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


@pytest.mark.parametrize(
    "path", sorted(shipped_folder("data_schemas").rglob("*.schema.json")), ids=lambda p: p.name
)
def test_schemas_are_schemas(path):
    Draft202012Validator.check_schema(json.loads(path.read_bytes()))
