"""Every converter, through the whole of `convert_files`: nothing is lost, invented or faulty."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.checks import RULES, Checker
from finetune.checks.targets import find_target
from finetune.converters import CONVERTERS
from finetune.corpus import Reading, convert_files
from finetune.errors import UsageError

CASES = Path(__file__).parents[1] / "converters" / "cases"


def rows_of(name):
    """Return the rows of a format's golden cases."""
    rows = [json.loads(path.read_bytes()) for path in sorted(CASES.glob(f"{name}/*/row.json"))]
    return [one for row in rows for one in (row if isinstance(row, list) else [row])]


def break_somewhere(value, choose):
    """Replace or drop one thing of a row, at a depth that `choose` decides."""
    if isinstance(value, dict) and value and choose(3):
        key = list(value)[choose(len(value))]
        value[key] = break_somewhere(value[key], choose)
        if not choose(8):
            del value[key]
        return value
    if isinstance(value, list) and value and choose(3):
        number = choose(len(value))
        value[number] = break_somewhere(value[number], choose)
        return value
    return [None, 3, "", [], {}, True, "x", ["x"]][choose(8)]


@pytest.mark.parametrize("name", sorted(CONVERTERS.keys() - {"code"}))  # its rows are whole files
def test_rows_and_records_are_accounted_for_and_pass_every_rule(name):
    known = rows_of(name)
    kinds = CONVERTERS[name].kinds

    @given(st.data())
    def check(data):
        def choose(count):
            return data.draw(st.integers(0, count - 1))

        rows = []
        for _ in range(choose(6) + 1):
            row = copy.deepcopy(known[choose(len(known))])
            rows.append(break_somewhere(row, choose) if choose(2) else row)
        kind = data.draw(st.sampled_from((None, *kinds)))
        file = io.BytesIO(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        written, rejected = [], []
        try:
            done = convert_files(
                [("rows.jsonl", file)],
                written.append,
                Reading(name, kind),
                target=find_target("platform"),
                reject=rejected.append,
            )
        except UsageError:  # nothing in it is of this format
            assert not written
            return
        account = done.account  # its equations are checked when it is closed
        assert account.rows["read"] == len(rows)
        assert account.records["removed"] == 0
        lost = account.rows["rejected"] + account.records["rejected"]
        # Rows that belong together are rejected by one finding.
        assert len(rejected) <= lost if CONVERTERS[name].group else len(rejected) == lost
        assert {finding.rule for finding in rejected} <= RULES.keys()
        lines = b"".join(written).splitlines()
        assert len(lines) == account.records["written"]
        checker = Checker(done.files["rows.jsonl"]["kind"])
        for number, line in enumerate(lines, 1):
            _, findings = checker.check_line(line, "out", number)
            assert [finding for finding in findings if finding.severity == "error"] == []

    check()
