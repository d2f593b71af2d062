"""The readers given anything: what fuzzing began with and found, and what chance gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

CASES = sorted((Path(__file__).parent / "cases").glob("*/*"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_broke_a_reader_once_does_not_any_more(path):
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@settings(deadline=None)
@given(data=st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(name, data):
    TARGETS[name](data)


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
@settings(deadline=None)
@given(data=st.data())
def test_damaged_files_are_read_or_refused(path, data):
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 40)))
    middle = data.draw(st.binary(max_size=20))
    TARGETS[path.parent.name](whole[:start] + middle + whole[end:])
