"""Rules on the other kinds of records, and on labels over a whole file."""

from __future__ import annotations

from finetune.checks.rules.rule import TARGETS, Rule

OTHERS = (
    Rule("empty-text", "a document has text", kinds=("text", "classifier")),
    Rule("text-or-messages", "a record has either `text` or `messages`", kinds=("classifier",)),
    Rule("no-labels", "a record has at least one label", kinds=("classifier",)),
    Rule("empty-label", "a label has a name and a value", kinds=("classifier",)),
    Rule(
        "no-label-value",
        "a list of labels is not empty",
        errors=(),
        warnings=TARGETS,
        kinds=("classifier",),
    ),
    Rule("prompt-end", "a prompt ends with a user or tool message", kinds=("preference", "rating")),
    Rule("answer-role", "an answer begins with the assistant", kinds=("preference", "rating")),
    Rule("same-answers", "the better and the worse answer differ", kinds=("preference",)),
    Rule("label-kind", "a target has one value in all records, or lists", kinds=("classifier",)),
    Rule(
        "one-class",
        "a target has at least two classes",
        errors=(),
        warnings=TARGETS,
        kinds=("classifier",),
    ),
    Rule(
        "mixed-inputs",
        "a file has `text` or `messages`",
        errors=(),
        warnings=TARGETS,
        kinds=("classifier",),
    ),
)
