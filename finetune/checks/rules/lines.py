"""Rules on the line and the shape of its record (data_schemas/*.schema.json)."""

from __future__ import annotations

from finetune.checks.rules.rule import TALKS, TARGETS, Rule

LINES = (
    Rule("utf-8", "a line is UTF-8 text: without other encodings, NUL bytes or lone surrogates"),
    Rule("bom", "no byte order mark: readers take it for a character", fixes=("strip-bom",)),
    Rule("crlf", "lines end in LF alone", errors=(), warnings=TARGETS, fixes=("unix-lines",)),
    Rule("blank-line", "no blank lines: each line is one record", fixes=("drop-blank-lines",)),
    Rule("line-too-long", "a line has at most 16 MiB, far beyond any model's context"),
    Rule("json", "a line is one JSON value, without comments or trailing commas"),
    Rule("nan", "NaN and Infinity are not JSON"),
    Rule("surrogate", "no half of a surrogate pair: such text cannot be written as UTF-8"),
    Rule("too-deep", "at most 64 objects and lists inside one another"),
    Rule("number", "numbers fit in 64 bits and are finite: readers disagree on the rest"),
    Rule("duplicate-key", "a key stands once in an object: readers keep one and lose the other"),
    Rule("not-object", "a line is a JSON object"),
    Rule("missing-key", "every required key is there"),
    Rule("unknown-key", "no key that the format does not have: it would be ignored in silence"),
    Rule("type", "every value has the type that the format gives it"),
    Rule("null", "a key without a value is left out, not null", fixes=("drop-null",)),
    Rule("role", "a role is system, user, assistant or tool", kinds=TALKS),
    Rule("value", "a value is one of those that the format lists", kinds=TALKS),
    Rule("weight", "a message's weight is from 0 to 1", kinds=TALKS),
    Rule("schema", "a record fits its published schema"),
)
