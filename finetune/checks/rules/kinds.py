"""Rules on the other kinds of records."""

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
)
