from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.corpus.prefix import read_prefix

LINES = st.lists(st.integers(0, 10**6).map(lambda n: b'{"text":"%s"}\n' % (b"x" * (n % 50))))
NUMBERED = LINES.map(lambda lines: [b'{"id":%d,' % n + line[1:] for n, line in enumerate(lines)])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("prefix") / "validation.jsonl"


def prefix(path, lines, limit):
    path.write_bytes(b"".join(lines))
    return list(read_prefix(path, limit))


@given(lines=NUMBERED, limit=st.integers(0, 3000))
def test_a_prefix_fits_and_is_in_the_order_of_the_file(path, lines, limit):
    found = prefix(path, lines, limit)
    assert sum(map(len, found)) <= limit
    assert found == [line for line in lines if line in found]
    assert found == lines or sum(map(len, lines)) > limit


@given(lines=NUMBERED, limit=st.integers(0, 3000), less=st.integers(0, 3000))
def test_a_lower_limit_takes_a_part_of_the_same_lines(path, lines, limit, less):
    assert set(prefix(path, lines, max(0, limit - less))) <= set(prefix(path, lines, limit))


@given(lines=NUMBERED, limit=st.integers(0, 3000), chance=st.randoms())
def test_added_lines_only_push_lines_out(path, lines, limit, chance):
    half = lines[: len(lines) // 2]
    before, after = prefix(path, half, limit), prefix(path, lines, limit)
    assert set(after) & set(half) <= set(before)
    chance.shuffle(lines)
    assert set(prefix(path, lines, limit)) == set(after)


def test_a_last_line_without_an_end_counts_as_it_is(path):
    assert prefix(path, [b"{}\n", b"[]"], 5) == [b"{}\n", b"[]"]
    assert prefix(path, [], 5) == []
