"""Rules on the turns of a conversation."""

from __future__ import annotations

from finetune.checks.rules.rule import TALKS, TARGETS, TRAINED, VERSIONS, Rule

TURNS = (
    Rule("no-messages", "a conversation has messages", kinds=TALKS),
    Rule("turn-order", "roles follow each other as a conversation does", kinds=TALKS),
    Rule(
        "last-message",
        "the last message is the assistant's: it is what is trained",
        kinds=TRAINED,
        fixes=("trim-tail",),
    ),
    Rule("no-prompt", "an answer has something before it that it answers", kinds=TRAINED),
    Rule(
        "no-user",
        "a conversation has a user message; La Plateforme's trainer takes the system message out",
        errors=("platform",),
        warnings=(*VERSIONS, "hf"),
        kinds=TRAINED,
    ),
    Rule(
        "same-role",
        "turns alternate: the encoder joins neighbours of one role by a blank line",
        errors=(),
        warnings=TARGETS,
        kinds=TALKS,
        fixes=("merge-turns",),
    ),
    Rule(
        "joined-weights",
        "assistant messages that the encoder joins have one weight",
        errors=VERSIONS,
        kinds=TRAINED,
    ),
    Rule(
        "joined-calls",
        "up to v3 an answer and a tool call in a row are joined, and cannot be encoded",
        errors=("v1", "v2", "v3"),
        kinds=TALKS,
    ),
    Rule(
        "system-position",
        "the system message comes first",
        errors=(),
        warnings=TARGETS,
        kinds=TALKS,
        fixes=("move-system",),
    ),
    Rule(
        "system-count",
        "at most one system message",
        errors=("platform",),
        kinds=TALKS,
        fixes=("move-system",),
    ),
    Rule("empty-assistant", "an answer has content or tool calls", kinds=TALKS),
    Rule(
        "blank-answer",
        "an answer is more than white space",
        errors=(),
        warnings=TARGETS,
        kinds=TRAINED,
    ),
    Rule(
        "empty-message",
        "a user or system message has text",
        errors=(),
        warnings=TARGETS,
        kinds=TALKS,
    ),
    Rule("chunk-type", "a message holds only the kinds of content its role can have", kinds=TALKS),
    Rule("image-url", "an image is an address or an object with `url`", kinds=TALKS),
    Rule(
        "weight-fraction",
        "a weight is 0 or 1: fractions are honoured only in local training",
        errors=("platform",),
        kinds=TRAINED,
    ),
    Rule("nothing-to-train", "at least one answer has a weight above 0", kinds=TRAINED),
)
