"""Rows without an end: named, skipped, and never held in memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import io, itertools, json, resource, sys
from finetune.corpus.containers import open_container

class Generated(io.RawIOBase):
    def __init__(self, parts):
        self.parts, self.left = parts, b""
    def readable(self):
        return True
    def readinto(self, buffer):
        self.left = self.left or next(self.parts, b"")
        size = min(len(buffer), len(self.left))
        buffer[:size], self.left = self.left[:size], self.left[size:]
        return size

name, head, piece, count, tail = json.loads(sys.argv[1])
parts = itertools.chain(
    [head.encode()], itertools.repeat(piece.encode() * (2**20 // len(piece)), count), [tail.encode()]
)
list(open_container(io.BytesIO(b"a,b\\n1,2\\n"), "a.csv").rows)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = open_container(io.BufferedReader(Generated(parts)), name).rows
print(json.dumps([[row.line, row.fault and row.fault.rule] for row in rows]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize(
    ("stream", "rows"),
    [
        (["a.jsonl", '{"a":1}\n{"a":"', "x", 1000, '"}'], [[1, None], [2, "line-too-long"]]),
        (
            ["a.json", '[{"a":1},{"a":"', "x", 300, '"},{"a":2}]'],
            [[1, None], [2, "line-too-long"], [3, None]],
        ),
        (
            ["a.csv", 'a,b\n1,2\n"', "x", 100, '",3\n4,5\n'],
            [[2, None], [3, "line-too-long"], [4, None]],
        ),
        (
            ["a.csv", 'a,b\n1,2\n"', "x" * 63 + "\n", 100, '",3\n4,5\n'],
            [[2, None], [3, "line-too-long"], [1638404, None]],
        ),
    ],
    ids=["a line of 1 GB", "a text of 300 MB in a list", "a cell of 100 MB", "a cell of lines"],
)
def test_row_without_an_end_costs_only_itself_and_little_memory(stream, rows):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(stream)],
        capture_output=True,
        text=True,
        check=True,
    )
    found, grown = map(json.loads, done.stdout.splitlines())
    assert found == rows
    assert grown < 80, "MiB"
