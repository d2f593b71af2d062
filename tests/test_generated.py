from __future__ import annotations

import runpy
from pathlib import Path

import pytest

GENERATED = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "generate.py"))[
    "generated"
]()


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_what_is_generated_is_up_to_date(path):
    assert path.read_bytes() == GENERATED[path], "run python scripts/generate.py"
