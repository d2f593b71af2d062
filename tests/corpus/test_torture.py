"""Every file of the torture table: each fault with place and rule, no traceback, no content."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from finetune.checks import RULES
from finetune.cli import finetune as command_line
from finetune.errors import FinetuneError
from tests.corpus.torture import CANARY, CASES, Case

_FINDING = re.compile(r"(?::(\d+))?: [^\n]*\[([a-z0-9-]+)\]")


def run(*arguments):
    """Return exit code, the places of what was found, and all that was said."""
    done = CliRunner().invoke(command_line, [*map(str, arguments)], standalone_mode=False)
    error = done.exception
    said = done.output
    if error is None:
        return done.return_value or done.exit_code, said
    if isinstance(error, SystemExit):
        return error.code, said
    assert isinstance(error, FinetuneError), f"unexpected {error!r}"
    return error.exit_code, f"{said}\n{error}\n{error.hint}"


def places(said):
    found = [f"{line}:{rule}" if line else rule for line, rule in _FINDING.findall(said)]
    return list(dict.fromkeys(found))


def agree(found, expected):
    """Tell whether places are those expected; `*` stands for any line."""
    lines = [
        re.sub(r"^\d+:", "*:", one) if want.startswith("*") else one
        for one, want in zip(found, expected, strict=False)
    ]
    return len(found) == len(expected) and lines == list(expected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_fault_is_named_with_its_place(tmp_path, case: Case):
    path, out = tmp_path / case.file, tmp_path / "out.jsonl"
    path.write_bytes(case.data)

    code, said = run("convert", path, "-o", out)
    print(said)
    assert code == case.code
    assert CANARY not in said
    assert "Traceback" not in said
    if case.code == 3:
        assert agree(places(said), case.places), said
        assert {place.split(":")[-1] for place in places(said)} <= RULES.keys()
    if case.rows:
        assert len(out.read_bytes().splitlines()) == case.rows


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_validate_finds_the_same(tmp_path, case: Case):
    path = tmp_path / case.file
    path.write_bytes(case.data)

    code, said = run("validate", path)
    print(said)
    assert code == case.code
    assert CANARY not in said
    assert "Traceback" not in said
    if case.code == 3:
        found, expected = places(said), case.checked or case.places
        if path.suffix == ".jsonl":  # of records, a line may have several faults
            lines = {place.split(":")[0] for place in expected}
            found = [
                place for place in found if place in expected or place.split(":")[0] not in lines
            ]
        assert agree(found, expected), said


REAL = (
    "last line cut",
    "quote never closed",
    "gz cut in its middle",
    "zip that leaves its folder",
    "Parquet with a broken row group",
    "Word document",
    "nothing",
    "a line of 17 MiB",
)


@pytest.mark.parametrize("name", REAL)
def test_commands_as_they_are_typed_say_the_same(finetune, tmp_path, name):
    [case] = [case for case in CASES if case.name == name]
    (tmp_path / case.file).write_bytes(case.data)
    for command in (["convert", case.file, "-o", "out.jsonl"], ["validate", case.file]):
        done = finetune(*command, cwd=tmp_path)
        assert done.returncode == case.code
        assert "Traceback" not in done.stderr
        assert CANARY not in done.stdout + done.stderr
        # a rule in brackets
        assert "[" in done.stdout + done.stderr or case.code == 2


def test_there_are_enough_of_them():
    assert len({case.name for case in CASES}) == len(CASES) >= 200
