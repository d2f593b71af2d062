"""What the labels that a classifier gives are worth. No models, no I/O.

| measure    | what it says                                                              |
|------------|---------------------------------------------------------------------------|
| `loss`     | cross-entropy in nats, as in training                                     |
| `f1_macro` | mean of the labels' F1; of labels that some record has or was given       |
| `f1_micro` | F1 of all labels together                                                 |
| `accuracy` | records whose labels are all right                                        |
| `ece`      | expected calibration error: how far confidence is from being right (mean) |

A `single_class` target is given its likeliest label, a `multi_class` one all labels of 0.5 and
more. Confidence is that of the given label, or each label's own, in ten bins of equal width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finetune.evaluation.intervals import Score, enclose, resample
from finetune.recipe.tree import ClassifierTarget

Floats = Any  # numpy's array: numpy is loaded with the first measure
THRESHOLD = 0.5  # from which a `multi_class` label is given
BINS = 10
MOST_CONFUSED = 200  # labels up to which the whole confusion matrix is kept
_LEAST = 1e-12  # a probability that is smaller counts as this: its logarithm is finite
MEASURES = ("loss", "f1_macro", "f1_micro", "accuracy", "ece")


class TargetFigures:
    """The figures of one target on held-out records.

    Args:
        target: The target, filled in.
        probabilities: Those of each record's labels, in the target's order.
        truth: Indices of each record's labels; None where it has not the target.
    """

    def __init__(
        self,
        target: ClassifierTarget,
        probabilities: Sequence[Sequence[float]],
        truth: Sequence[tuple[int, ...] | None],
    ) -> None:
        import numpy as np

        self.target = target
        self._single = target.loss_function == "single_class"
        self._there = np.array([labels is not None for labels in truth])
        scores = np.asarray(probabilities, dtype=np.float64).reshape(len(truth), -1)
        self._true = np.zeros(scores.shape, dtype=bool)
        for row, labels in enumerate(truth):
            self._true[row, list(labels or ())] = True
        if self._single:
            self._given = np.zeros_like(self._true)
            self._given[np.arange(len(truth)), scores.argmax(axis=1)] = True
        else:
            self._given = scores >= THRESHOLD
        self._loss = self._losses(scores)
        self._right = (self._true == self._given).all(axis=1)
        # One confidence a record, or one a label of it: [records, 1 or labels].
        self._sure = scores.max(axis=1, keepdims=True) if self._single else scores
        self._held = self._right[:, None] if self._single else self._true
        self._bin = np.minimum((self._sure * BINS).astype(int), BINS - 1)

    def measure(self, weights: Floats) -> dict[str, float]:
        """Return each measure, with so many of each record."""
        import numpy as np

        weights = weights * self._there
        total = max(float(weights.sum()), 1.0)
        right, true, given = self._counts(weights)
        occurring = (true + given) > 0
        f1 = _ratio(2 * right, true + given)
        count, sure, held = self._bins(weights)
        return {
            "loss": float(weights @ self._loss) / total,
            "f1_macro": float(f1[occurring].mean()) if occurring.any() else 0.0,
            "f1_micro": float(_ratio(2 * right.sum(), true.sum() + given.sum())),
            "accuracy": float(weights @ self._right) / total,
            "ece": float(np.abs(sure - held).sum() / max(float(count.sum()), 1.0)),
        }

    def describe(self) -> dict[str, Any]:
        """Return precision, recall and F1 of each label, the confusion matrix and the bins."""
        import numpy as np

        weights = self._there.astype(np.float64)
        right, true, given = self._counts(weights)
        columns = zip(
            self.target.labels,
            _ratio(right, given).tolist(),
            _ratio(right, true).tolist(),
            _ratio(2 * right, true + given).tolist(),
            true.astype(int).tolist(),
            given.astype(int).tolist(),
            strict=True,
        )
        names = ("label", "precision", "recall", "f1", "records", "given")
        described: dict[str, Any] = {
            "labels": [dict(zip(names, column, strict=True)) for column in columns],
            "calibration": self._describe_bins(weights),
        }
        if self._single and len(self.target.labels) <= MOST_CONFUSED:
            kept = self._there
            matrix = self._true[kept].T.astype(int) @ self._given[kept].astype(int)
            described["confusion"] = matrix.tolist()
        return described

    @property
    def records(self) -> int:
        """Records that have the target."""
        return int(self._there.sum())

    def _losses(self, scores: Floats) -> Floats:
        import numpy as np

        logs = np.log(np.maximum(scores, _LEAST))
        if self._single:
            return -(logs * self._true).sum(axis=1)
        others = np.log(np.maximum(1 - scores, _LEAST))
        return -np.where(self._true, logs, others).mean(axis=1)

    def _counts(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Return how often each label was right, true, and given."""
        return (
            weights @ (self._true & self._given),
            weights @ self._true,
            weights @ self._given,
        )

    def _bins(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Return of each bin how many, the sum of their confidences, and how many held."""
        import numpy as np

        spread = np.broadcast_to(weights[:, None], self._bin.shape).ravel()
        place = self._bin.ravel()
        return (
            np.bincount(place, spread, BINS),
            np.bincount(place, spread * self._sure.ravel(), BINS),
            np.bincount(place, spread * self._held.ravel(), BINS),
        )

    def _describe_bins(self, weights: Floats) -> list[dict[str, float]]:
        count, sure, held = self._bins(weights)
        return [
            {
                "low": place / BINS,
                "high": (place + 1) / BINS,
                "count": int(count[place]),
                "confidence": float(sure[place] / count[place]),
                "accuracy": float(held[place] / count[place]),
            }
            for place in range(BINS)
            if count[place]
        ]


def grade(
    targets: Sequence[TargetFigures], *, seed: int = 0
) -> tuple[dict[str, Score], list[dict[str, Score]]]:
    """Return every measure with its 95 % bootstrap interval: of all targets, and of each.

    The loss of all is the sum by weight, as in training; the other measures are means.

    Args:
        targets: Figures of the same records.
        seed: Of the draws.
    """
    import numpy as np

    records = len(targets[0]._there)  # noqa: SLF001 (of this module)
    draws = [np.bincount(drawn, minlength=records) for drawn in resample(records, seed=seed)]
    rows = [
        [target.measure(weights.astype(np.float64)) for target in targets]
        for weights in [np.ones(records), *draws]
    ]

    def score(pick: Any) -> dict[str, Score]:
        found = [pick(row) for row in rows]
        return {
            name: enclose(found[0][name], [one[name] for one in found[1:]]) for name in MEASURES
        }

    each = [score(lambda row, place=place: row[place]) for place in range(len(targets))]
    factors = [target.target.weight for target in targets]
    return score(lambda row: _join(row, factors)), each


def _join(row: Sequence[dict[str, float]], factors: Sequence[float]) -> dict[str, float]:
    means = {name: sum(one[name] for one in row) / len(row) for name in MEASURES}
    loss = sum(factor * one["loss"] for factor, one in zip(factors, row, strict=True))
    return means | {"loss": loss}


def _ratio(part: Any, whole: Any) -> Any:
    import numpy as np

    return np.divide(part, whole, out=np.zeros_like(np.asarray(part)), where=np.asarray(whole) > 0)
