"""Egress: what may leave is what the recipe says, of what the manifest says."""

from __future__ import annotations

import pytest

from finetune.corpus.privacy.egress import judge_egress

FOUND = {"email": {"text": 2}}


@pytest.mark.parametrize(
    ("mode", "counts", "allowed"),
    [
        (None, {}, ["any"]),
        ("report", FOUND, ["any"]),
        ("report", {}, ["none", "masked", "any"]),
        ("mask", FOUND, ["masked", "any"]),
        ("pseudonymize", FOUND, ["masked", "any"]),
    ],
)
def test_what_may_leave(mode, counts, allowed):
    section = {"mode": mode, "counts": counts} if mode else None
    assert [
        said for said in ("none", "masked", "any") if judge_egress(said, section).allowed
    ] == allowed
