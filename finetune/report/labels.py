"""What a report says of a classifier: its labels, what it confuses, how sure it may be."""

from __future__ import annotations

from typing import Any, NamedTuple

from finetune.report.charts import Chart, Series, draw_lines

Rows = list[list[Any]]

MOST_SHOWN = 40  # labels up to which the confusion matrix is drawn; else the largest of it
_MOST_CONFUSED = 20


class TargetPage(NamedTuple):
    """One target of a classifier.

    Attributes:
        name: The target.
        labels: `label, precision, recall, F1, records, given` of each label.
        head: Heads of the confusion matrix.
        confusion: Its rows; empty cells are 0.
        confused: `label, given, records` of what was confused most.
        reliability: Confidence beside what was right.
        bins: `confidence, right, how many` of each bin.
    """

    name: str
    labels: Rows
    head: list[str]
    confusion: Rows
    confused: Rows
    reliability: Chart | None
    bins: Rows


def list_targets(evaluation: dict[str, Any] | None) -> list[TargetPage]:
    """Return the targets of an evaluation; none where it is no classifier's."""
    return [
        _describe(name, target["tuned"])
        for name, target in (evaluation or {}).get("targets", {}).items()
    ]


def _describe(name: str, figures: dict[str, Any]) -> TargetPage:
    labels = [row["label"] for row in figures["labels"]]
    matrix = figures.get("confusion", [])
    shown = matrix if len(labels) <= MOST_SHOWN else []
    bins = figures["calibration"]
    points = [(one["confidence"], one["accuracy"]) for one in bins]
    return TargetPage(
        name=name,
        labels=[
            [
                row["label"],
                *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1")),
                *(f"{row[key]:,}" for key in ("records", "given")),
            ]
            for row in figures["labels"]
        ],
        head=["label", *(str(number) for number in range(1, len(labels) + 1))],
        confusion=[
            [f"{number} {label}", *(count or "" for count in row)]
            for number, (label, row) in enumerate(zip(labels, shown, strict=False), 1)
        ],
        confused=_list_confused(labels, matrix),
        reliability=draw_lines(
            f"{name}: how often it is right, by confidence",
            [Series("right", "train0", points), Series("ideal", "validation0", [(0, 0), (1, 1)])],
            x_label="confidence",
        ),
        bins=[
            [f"{one['confidence']:.3f}", f"{one['accuracy']:.3f}", f"{one['count']:,}"]
            for one in bins
        ],
    )


def _list_confused(labels: list[str], matrix: list[list[int]]) -> Rows:
    pairs = [
        (count, labels[row], labels[column])
        for row, counts in enumerate(matrix)
        for column, count in enumerate(counts)
        if count and row != column
    ]
    largest = sorted(pairs, key=lambda pair: -pair[0])[:_MOST_CONFUSED]
    return [[label, given, f"{count:,}"] for count, label, given in largest]
