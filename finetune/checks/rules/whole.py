"""Rules on a file as a whole, and on a training file beside its validation file."""

from __future__ import annotations

from finetune.checks.rules.rule import TALKS, TARGETS, TRAINED, Rule

WHOLE = (
    Rule("label-kind", "a target has one value in all records, or lists", kinds=("classifier",)),
    Rule(
        "one-class",
        "a target has at least two classes",
        errors=(),
        warnings=TARGETS,
        kinds=("classifier",),
    ),
    Rule(
        "one-rating",
        "a file has answers that are good and some that are not",
        errors=(),
        warnings=TARGETS,
        kinds=("rating",),
    ),
    Rule(
        "mixed-inputs",
        "a file has `text` or `messages`",
        errors=(),
        warnings=TARGETS,
        kinds=("classifier",),
    ),
    Rule(
        "rare-class",
        "a class has at least 5 records",
        errors=(),
        warnings=TARGETS,
        kinds=("classifier",),
    ),
    Rule(
        "near-labels",
        "the names of two classes differ by more than case, spaces and punctuation",
        errors=(),
        warnings=TARGETS,
        kinds=("classifier",),
    ),
    Rule(
        "joined-labels",
        "no class is several others in one text",
        errors=(),
        warnings=TARGETS,
        kinds=("classifier",),
    ),
    Rule(
        "unused-tool",
        "a declared tool is called somewhere in the file",
        errors=(),
        warnings=TARGETS,
        kinds=TALKS,
    ),
    Rule(
        "unequal-lengths",
        "no answer has over 100 times the median of their lengths",
        errors=(),
        warnings=TARGETS,
        kinds=TRAINED,
    ),
    Rule("training-size", "a training file has at most 512 MB", errors=("platform",)),
    Rule(
        "validation-size",
        "validation files have at most 1 MB, and 5 % of the training data",
        errors=(),
        warnings=("platform",),
    ),
    Rule(
        "overlap",
        "no validation record stands in the training data too",
        errors=(),
        warnings=TARGETS,
    ),
    Rule(
        "unseen-label",
        "the classes of the validation data are among those of the training data",
        errors=(),
        warnings=TARGETS,
        kinds=("classifier",),
    ),
)
