from __future__ import annotations

import random

import pytest

from finetune.evaluation.intervals import bootstrap


def test_value_is_the_weighted_mean():
    assert bootstrap([2.0, 9.0], [1, 3])["value"] == pytest.approx(11 / 4)


def test_interval_of_a_share_agrees_with_the_normal_one():
    score = bootstrap([1.0] * 300 + [0.0] * 100, [1] * 400)
    half = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert score["low"] == pytest.approx(0.75 - half, abs=0.01)
    assert score["high"] == pytest.approx(0.75 + half, abs=0.01)


def test_long_records_widen_the_interval_of_a_loss():
    even = bootstrap([1.0, 2.0] * 50, [1] * 100)
    losses, tokens = [1.0, 2.0] * 49 + [50.0, 100.0], [1] * 98 + [50] * 2
    uneven = bootstrap(losses, tokens)
    assert uneven["value"] == pytest.approx(even["value"])
    assert uneven["high"] - uneven["low"] > 1.5 * (even["high"] - even["low"])


def test_the_same_seed_gives_the_same_interval_and_another_one_its_own():
    draw = random.Random(1)
    totals = [draw.random() for _ in range(80)]
    assert bootstrap(totals, [1] * 80, seed=3) == bootstrap(totals, [1] * 80, seed=3)
    assert bootstrap(totals, [1] * 80, seed=3) != bootstrap(totals, [1] * 80, seed=4)


def test_one_record_has_no_width():
    assert bootstrap([3.0], [2]) == {"value": 1.5, "low": 1.5, "high": 1.5}


def test_covers_the_true_share_about_95_times_in_100():
    draw = random.Random(0)
    covered = 0
    for trial in range(40):
        hits = [float(draw.random() < 0.6) for _ in range(50)]
        score = bootstrap(hits, [1] * 50, seed=trial)
        covered += score["low"] <= 0.6 <= score["high"]
    assert 34 <= covered < 40
