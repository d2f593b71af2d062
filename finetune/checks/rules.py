"""The rules: one table of what can be wrong, for whom, and what repairs it.

The table is the only place that says which target a rule holds for: the code that looks for
faults asks the table, it never compares versions.

Sources: La Plateforme's documentation of its fine-tuning data (2026-08); the request validators
and encoders of mistral-common 1.13.1; the data checks of mistral-finetune at `1943535`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from finetune.errors import UsageError
from finetune.text import did_you_mean

Severity = Literal["error", "warning"]

VERSIONS = ("v1", "v2", "v3", "v7", "v11", "v13", "v15")
TARGETS = ("platform", *VERSIONS, "hf")
KINDS = ("chat", "text", "classifier", "preference", "rating")
_TALKS = ("chat", "classifier", "preference", "rating")
_TRAINED = ("chat", "preference", "rating")
_WITH_IDS = ("platform", "v3", "v7", "v11", "v13", "v15")
_BY_ID = ("platform", "v11", "v13", "v15")


class Rule(NamedTuple):
    """One thing that can be wrong.

    `errors` and `warnings` name the targets for which it is one; `fix` is a name of FIXES.
    """

    name: str
    summary: str
    errors: tuple[str, ...] = TARGETS
    warnings: tuple[str, ...] = ()
    kinds: tuple[str, ...] = KINDS
    fix: str | None = None

    def severity(self, target: str) -> Severity | None:
        """Return how bad it is for a target, or None where the rule does not hold."""
        if target in self.errors:
            return "error"
        return "warning" if target in self.warnings else None


def _row(name: str, summary: str) -> Rule:
    return Rule(name, summary, kinds=())


_TABLE = (
    # raw rows, before they are records
    _row("empty-file", "a file holds at least one row"),
    _row("truncated", "a file ends where its last row ends, and compressed data are whole"),
    _row("table", "quotes and line ends of a table follow RFC 4180"),
    _row("ragged-row", "a row of a table has as many cells as the header"),
    _row("duplicate-column", "each column of a table has its own name"),
    _row("second-list", "a JSON document holds one list of rows"),
    _row("tools-text", "declared tools that are a text are JSON"),
    _row("call-text", "a tool call that is a text is JSON"),
    _row("result-without-call", "a tool result follows the call that it answers"),
    _row("duplicate", "a record stands once: an equal one came before it"),
    _row("held-out", "no training record equals a validation or evaluation record"),
    # the line
    Rule("utf-8", "a line is UTF-8 text: without other encodings, NUL bytes or lone surrogates"),
    Rule("bom", "no byte order mark: readers take it for a character", fix="strip-bom"),
    Rule("crlf", "lines end in LF alone", errors=(), warnings=TARGETS, fix="unix-lines"),
    Rule("blank-line", "no blank lines: each line is one record", fix="drop-blank-lines"),
    Rule("line-too-long", "a line has at most 16 MiB, far beyond any model's context"),
    Rule("json", "a line is one JSON value, without comments or trailing commas"),
    Rule("nan", "NaN and Infinity are not JSON"),
    Rule("surrogate", "no half of a surrogate pair: such text cannot be written as UTF-8"),
    Rule("too-deep", "at most 64 objects and lists inside one another"),
    Rule("number", "numbers fit in 64 bits and are finite: readers disagree on the rest"),
    Rule("duplicate-key", "a key stands once in an object: readers keep one and lose the other"),
    Rule("not-object", "a line is a JSON object"),
    # the shape: data_schemas/*.schema.json
    Rule("missing-key", "every required key is there"),
    Rule("unknown-key", "no key that the format does not have: it would be ignored in silence"),
    Rule("type", "every value has the type that the format gives it"),
    Rule("null", "a key without a value is left out, not null", fix="drop-null"),
    Rule("role", "a role is system, user, assistant or tool", kinds=_TALKS),
    Rule("value", "a value is one of those that the format lists", kinds=_TALKS),
    Rule("weight", "a message's weight is from 0 to 1", kinds=_TALKS),
    Rule("schema", "a record fits its published schema"),
    # the turns
    Rule("no-messages", "a conversation has messages", kinds=_TALKS),
    Rule("turn-order", "roles follow each other as a conversation does", kinds=_TALKS),
    Rule(
        "last-message",
        "the last message is the assistant's: it is what is trained",
        kinds=_TRAINED,
        fix="trim-tail",
    ),
    Rule("no-prompt", "an answer has something before it that it answers", kinds=_TRAINED),
    Rule(
        "no-user",
        "a conversation has a user message; La Plateforme's trainer takes the system message out",
        errors=("platform",),
        warnings=(*VERSIONS, "hf"),
        kinds=_TRAINED,
    ),
    Rule(
        "same-role",
        "turns alternate: the encoder joins neighbours of one role by a blank line",
        errors=(),
        warnings=TARGETS,
        kinds=_TALKS,
        fix="merge-turns",
    ),
    Rule(
        "joined-weights",
        "assistant messages that the encoder joins have one weight",
        errors=VERSIONS,
        kinds=_TRAINED,
    ),
    Rule(
        "joined-calls",
        "up to v3 an answer and a tool call in a row are joined, and cannot be encoded",
        errors=("v1", "v2", "v3"),
        kinds=_TALKS,
    ),
    Rule(
        "system-position",
        "the system message comes first",
        errors=(),
        warnings=TARGETS,
        kinds=_TALKS,
        fix="move-system",
    ),
    Rule(
        "system-count",
        "at most one system message",
        errors=("platform",),
        kinds=_TALKS,
        fix="move-system",
    ),
    Rule("empty-assistant", "an answer has content or tool calls", kinds=_TALKS),
    Rule(
        "blank-answer",
        "an answer is more than white space",
        errors=(),
        warnings=TARGETS,
        kinds=_TRAINED,
    ),
    Rule(
        "empty-message",
        "a user or system message has text",
        errors=(),
        warnings=TARGETS,
        kinds=_TALKS,
    ),
    Rule("chunk-type", "a message holds only the kinds of content its role can have", kinds=_TALKS),
    Rule("image-url", "an image is an address or an object with `url`", kinds=_TALKS),
    Rule(
        "weight-fraction",
        "a weight is 0 or 1: fractions are honoured only in local training",
        errors=("platform",),
        kinds=_TRAINED,
    ),
    Rule("nothing-to-train", "at least one answer has a weight above 0", kinds=_TRAINED),
    # tools
    Rule(
        "no-tools",
        "tokenizer v1 has no tools: they would be left out",
        errors=("v1",),
        kinds=_TALKS,
    ),
    Rule("function-name", "a function's name is 1 to 64 of A-Z a-z 0-9 _ -", kinds=_TALKS),
    Rule("tool-schema", "a tool's parameters are a JSON Schema (draft 7)", kinds=_TALKS),
    Rule("duplicate-tool", "each tool is declared once", errors=(), warnings=TARGETS, kinds=_TALKS),
    Rule(
        "tool-description",
        "a tool has a description",
        errors=(),
        warnings=("platform",),
        kinds=_TALKS,
    ),
    Rule(
        "undeclared-tool",
        "every tool that is called is declared in `tools`",
        errors=("platform",),
        warnings=(*VERSIONS, "hf"),
        kinds=_TALKS,
    ),
    Rule(
        "content-and-calls",
        "a message has content or tool calls, not both",
        errors=("platform", "v1", "v2", "v3"),
        kinds=_TALKS,
    ),
    Rule(
        "empty-content",
        "beside tool calls the key `content` is absent, and beside content `tool_calls`",
        errors=("platform",),
        kinds=_TALKS,
        fix="drop-empty-content",
    ),
    Rule(
        "arguments",
        "a call's arguments are the JSON text of an object",
        kinds=_TALKS,
        fix="arguments-text",
    ),
    Rule(
        "arguments-object",
        "a call's arguments are a JSON text, not an object",
        errors=("platform",),
        kinds=_TALKS,
        fix="arguments-text",
    ),
    Rule(
        "call-id",
        "a call's id is exactly 9 letters and digits",
        errors=("platform", "v3", "v7", "v11"),
        kinds=_TALKS,
        fix="rewrite-call-ids",
    ),
    Rule(
        "call-id-missing",
        "a call that is not in the last message has an id",
        errors=_WITH_IDS,
        kinds=_TALKS,
        fix="rewrite-call-ids",
    ),
    Rule(
        "last-call-id-missing",
        "a call in the last message has an id",
        errors=("platform", "v13", "v15"),
        kinds=_TALKS,
        fix="rewrite-call-ids",
    ),
    Rule(
        "result-id-missing",
        "a tool message names the call it answers in `tool_call_id`",
        errors=_WITH_IDS,
        kinds=_TALKS,
        fix="rewrite-call-ids",
    ),
    Rule(
        "call-duplicate",
        "the calls of one message have different ids",
        errors=_BY_ID,
        warnings=("v3", "v7"),
        kinds=_TALKS,
    ),
    Rule("call-count", "every call but the last message's has exactly one result", kinds=_TALKS),
    Rule(
        "call-match",
        "a result answers a call of the assistant message before it, once",
        errors=_BY_ID,
        warnings=("v3", "v7"),
        kinds=_TALKS,
    ),
    Rule(
        "call-first",
        "a conversation does not open with a tool call: its results could not be encoded",
        errors=VERSIONS,
        kinds=_TALKS,
    ),
    Rule(
        "parallel-results",
        "tokenizer v2 takes one result a turn",
        errors=("v2",),
        kinds=_TALKS,
    ),
    # the other kinds
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
    # the file as a whole
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

RULES: dict[str, Rule] = {rule.name: rule for rule in _TABLE}


def find_rule(name: str) -> Rule:
    """Return a rule by its name.

    Raises:
        UsageError: There is no such rule.
    """
    if name not in RULES:
        raise UsageError(f"{name}: no such rule", hint=did_you_mean(name, RULES))
    return RULES[name]


def rules_table() -> str:
    """Return the rules as a Markdown table, for the documentation."""
    rows = ["| Rule | Says | Error for | Warning for | Fix |", "|---|---|---|---|---|"]
    for rule in _TABLE:
        places = [_places(rule.errors), _places(rule.warnings)]
        fix = f"`{rule.fix}`" if rule.fix else ""
        rows.append(f"| `{rule.name}` | {rule.summary} | {places[0]} | {places[1]} | {fix} |")
    return "\n".join(rows) + "\n"


def _places(targets: tuple[str, ...]) -> str:
    if set(targets) == set(TARGETS):
        return "all"
    return ", ".join(targets)
