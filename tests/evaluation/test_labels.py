"""What labels are worth, by figures worked out by hand."""

import numpy as np
import pytest

from finetune.evaluation.labels import TargetFigures, grade
from finetune.recipe.tree import ClassifierTarget

SINGLE = ClassifierTarget(name="s", labels=["a", "b", "c"], loss_function="single_class")
MULTI = ClassifierTarget(name="m", labels=["x", "y"], weight=0.5, loss_function="multi_class")
# Given: a a b b c c; true: a b b b a –
SCORES = [
    [0.8, 0.1, 0.1],
    [0.6, 0.3, 0.1],
    [0.2, 0.7, 0.1],
    [0.05, 0.95, 0.0],
    [0.1, 0.1, 0.8],
    [0.1, 0.1, 0.8],
]
TRUE = [(0,), (1,), (1,), (1,), (0,), None]


@pytest.fixture
def single():
    return TargetFigures(SINGLE, SCORES, TRUE)


def test_one_label_a_record(single):
    found = single.measure(np.ones(6))
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["f1_micro"] == pytest.approx(3 / 5)
    # a: 1 of 2 given, 1 of 2 true; b: 2 of 2 given, 2 of 3 true; c: given once, never true
    assert found["f1_macro"] == pytest.approx((0.5 + 0.8 + 0) / 3)
    logs = [np.log(p) for p in (0.8, 0.3, 0.7, 0.95, 0.1)]
    assert found["loss"] == pytest.approx(-np.mean(logs))
    # bins: 0.6 wrong; 0.7 right; 0.8 right and 0.8 wrong; 0.95 right
    assert found["ece"] == pytest.approx((0.6 + 0.3 + abs(1.6 - 1) + 0.05) / 5)


def test_each_label_the_confusion_and_the_bins(single):
    found = single.describe()
    assert found["labels"][1] == {
        "label": "b",
        "precision": 1.0,
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(0.8),
        "records": 3,
        "given": 2,
    }
    assert found["confusion"] == [[1, 0, 1], [1, 2, 0], [0, 0, 0]]
    assert [(one["low"], one["count"], one["accuracy"]) for one in found["calibration"]] == [
        (0.6, 1, 0.0),
        (0.7, 1, 1.0),
        (0.8, 2, 0.5),
        (0.9, 1, 1.0),
    ]
    assert single.records == 5


def test_any_number_of_labels():
    scores = [[0.9, 0.2], [0.5, 0.6], [0.4, 0.4]]
    figures = TargetFigures(MULTI, scores, [(0,), (0,), (1,)])
    found = figures.measure(np.ones(3))
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["f1_micro"] == pytest.approx(2 * 2 / (3 + 3))
    assert found["f1_macro"] == pytest.approx((1.0 + 0.0) / 2)
    each = [-np.log(0.9) - np.log(0.8), -np.log(0.5) - np.log(0.4), -np.log(0.6) - np.log(0.4)]
    assert found["loss"] == pytest.approx(np.sum(each) / 2 / 3)
    assert "confusion" not in figures.describe()


def test_a_record_that_is_drawn_twice_counts_twice(single):
    doubled = TargetFigures(SINGLE, [*SCORES, SCORES[1]], [*TRUE, TRUE[1]])
    assert single.measure(np.array([1.0, 2, 1, 1, 1, 1])) == pytest.approx(
        doubled.measure(np.ones(7))
    )


def test_certain_and_wrong_is_bad_but_finite():
    figures = TargetFigures(SINGLE, [[1.0, 0.0, 0.0]], [(2,)])
    assert figures.measure(np.ones(1))["loss"] == pytest.approx(-np.log(1e-12))


def test_all_targets_together_and_each_with_intervals(single):
    multi = TargetFigures(MULTI, [[0.9, 0.2]] * 6, [(0,)] * 5 + [None])
    total, each = grade([single, multi], seed=3)
    for name, score in total.items():
        assert score["low"] <= score["value"] <= score["high"]
        values = [one[name]["value"] for one in each]
        if name == "loss":
            assert score["value"] == pytest.approx(values[0] + 0.5 * values[1])
        else:
            assert score["value"] == pytest.approx(np.mean(values))
    again, _ = grade([single, multi], seed=3)
    assert again == total


def test_nothing_given_and_nothing_true_counts_nowhere():
    figures = TargetFigures(MULTI, [[0.1, 0.1]], [()])
    assert figures.measure(np.ones(1))["f1_macro"] == 0.0
    assert figures.measure(np.ones(1))["accuracy"] == 1.0
