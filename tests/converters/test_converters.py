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


def reading(name: str, row, columns: Path) -> Detection:
    roles = columns.with_name("roles.json")
    if columns.exists():
        kind = CONVERTERS[name].kinds[0]
        return Detection(name, kind, load(columns), roles=load(roles) if roles.exists() else {})
    return detect([row], format=name)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_case(folder):
    row = load(folder / "row.json")
    name = folder.parent.name
    source = reading(name, row, folder / "columns.json")
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
