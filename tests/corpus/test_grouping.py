"""Message tables: rows put together by conversation, whatever their number and order."""

from __future__ import annotations

import functools
import itertools
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.checks.report import Fault
from finetune.converters import Detection
from finetune.converters.turns import Place, group
from finetune.corpus.containers import Row
from finetune.corpus.grouping import group_rows

ROOT = Path(__file__).parents[2]
COLUMNS = {"conversation": "ticket", "role": "role", "content": "text", "order": "at"}
place = functools.partial(group, source=Detection("turns", "chat", COLUMNS))


def row(line, ticket, at, **more):
    return Row(line, {"ticket": ticket, "role": "user", "text": f"t{line}", "at": at, **more})


def lines(groups):
    return [[int(member["text"][1:]) for member in one.value] for one in groups if not one.fault]


def test_rows_become_conversations_in_order(tmp_path):
    rows = [row(1, "b", 2), row(2, "a", 10), row(3, "b", 1), row(4, "a", 9, extra="kept")]
    groups = list(group_rows(rows, place, tmp_path))
    assert lines(groups) == [[4, 2], [3, 1]]
    assert [(one.line, one.rows) for one in groups] == [(4, 2), (3, 2)]
    assert groups[0].value[0]["extra"] == "kept"


@pytest.mark.parametrize(
    "orders",
    [
        [9, "10", 10.5, "11", 12345678901234567890],
        ["-2", "-1.5", 0, "+3"],
        ["2025-12-31", "2026-01-01T00:30:00+02:00", "2025-12-31T23:00:00Z", "2026-01-01 00:00"],
        ["msg-001", "msg-002", "msg-010"],
        [1, "2026-01-01", "later"],
    ],
    ids=["numbers", "signs", "times", "texts", "of each"],
)
def test_orders_compare_as_what_they_are(orders):
    rows = [row(line, "a", at) for line, at in enumerate(orders, 1)]
    random.Random(0).shuffle(rows)
    assert lines(group_rows(rows, place)) == [list(range(1, len(orders) + 1))]


def test_equal_orders_stay_as_in_the_file():
    rows = [row(line, "a", 5) for line in range(1, 30)]
    assert lines(group_rows(rows, place, memory=500)) == [list(range(1, 30))]


def test_bad_rows_come_one_by_one_and_the_others_stay():
    rows = [
        row(1, "a", 1),
        row(2, "", 2),
        Row(3, None, Fault("json", "", "not JSON")),
        row(4, "a", "1.2.2026"),
        row(5, "a", 0),
    ]
    groups = list(group_rows(rows, place))
    assert [(one.line, one.fault.rule) for one in groups if one.fault] == [
        (2, "no-conversation"),
        (3, "json"),
        (4, "order-date"),
    ]
    assert lines(groups) == [[5, 1]]


def test_a_conversation_beyond_the_bound_is_lost_row_by_row():
    text = "x" * 2**20
    rows = [Row(n, {"ticket": "a", "role": "user", "text": text, "at": n}) for n in range(1, 21)]
    groups = list(group_rows([*rows, row(21, "b", 1)], place))
    assert [one.fault.rule for one in groups[:20]] == ["conversation-too-long"] * 20
    assert [one.line for one in groups] == list(range(1, 22))
    assert lines(groups) == [[21]]


places = st.tuples(
    st.sampled_from("abc"), st.integers(-3, 3) | st.sampled_from(["x", "2026-01-02"])
)


@given(st.lists(places, max_size=200), st.integers(1, 5000))
def test_sorted_runs_give_what_sorting_in_memory_gives(found, memory):
    rows = [row(line, ticket, at) for line, (ticket, at) in enumerate(found, 1)]
    keys = [(*place(one.value), one.line) for one in rows]
    expected = [
        [line for _, _, line in members]
        for _, members in itertools.groupby(sorted(keys), key=lambda key: key[0])
    ]
    groups = list(group_rows(rows, place, memory=memory))
    assert lines(groups) == expected
    assert sum(one.rows for one in groups) == len(rows)


def test_many_runs_are_merged_in_levels(tmp_path):
    rows = [row(line, f"{line % 7}", -line) for line in range(1, 5001)]
    groups = list(group_rows(rows, place, tmp_path, memory=1))
    assert lines(groups) == [
        sorted((n for n in range(1, 5001) if n % 7 == ticket), reverse=True) for ticket in range(7)
    ]
    assert list(tmp_path.iterdir()) == []


def test_memory_is_flat_in_the_number_of_rows():
    code = """
import functools, resource, sys
from finetune.corpus.containers import Row
from finetune.corpus.grouping import group_rows
from tests.corpus.test_grouping import place, row
count = int(sys.argv[1])
rows = (row(n, f"{n * 7919 % (count // 5)}", n) for n in range(count))
assert sum(one.rows for one in group_rows(rows, place, memory=2**20)) == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = [
        int(subprocess.check_output([sys.executable, "-c", code, str(count)], cwd=ROOT))
        for count in (4_000, 40_000)
    ]
    assert peaks[1] - peaks[0] < 12_000  # kB


def test_place_is_what_the_docstring_says():
    assert place({"ticket": 7, "role": "user", "text": "t", "at": "1970-01-01T00:00:01Z"}) == Place(
        "7", (1, 10**6)
    )
