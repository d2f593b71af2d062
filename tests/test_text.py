from __future__ import annotations

import doctest
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune import text

HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@given(st.text())
def test_nothing_that_moves_a_cursor_or_reorders_a_line_gets_through(value):
    assert not HARMFUL.search(text.safe(value))


def test_what_is_cut_is_counted():
    assert text.safe("a" * 30, limit=10) == "a" * 10 + "… (+20 characters)"


@pytest.mark.parametrize(
    "secret", ["sk-abcdefghijklmnop", "hf_abcdefghijklmnopqrst", "Bearer abcdefgh12345678"]
)
def test_what_looks_like_a_key_is_redacted(secret):
    assert text.redact(f"before {secret} after") == "before *** after"


def test_a_given_secret_is_redacted_wherever_it_stands():
    assert text.redact("x=topsecret&y=topsecret", ["topsecret"]) == "x=***&y=***"


def test_the_examples_hold():
    assert doctest.testmod(text).failed == 0
