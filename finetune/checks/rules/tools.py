"""Rules on tools: declarations, calls and results."""

from __future__ import annotations

from finetune.checks.rules.rule import BY_ID, TALKS, TARGETS, VERSIONS, WITH_IDS, Rule

TOOLS = (
    Rule(
        "no-tools",
        "tokenizer v1 has no tools: they would be left out",
        errors=("v1",),
        kinds=TALKS,
    ),
    Rule("function-name", "a function's name is 1 to 64 of A-Z a-z 0-9 _ -", kinds=TALKS),
    Rule("tool-schema", "a tool's parameters are a JSON Schema (draft 7)", kinds=TALKS),
    Rule("duplicate-tool", "each tool is declared once", errors=(), warnings=TARGETS, kinds=TALKS),
    Rule(
        "tool-description",
        "a tool has a description",
        errors=(),
        warnings=("platform",),
        kinds=TALKS,
    ),
    Rule(
        "undeclared-tool",
        "every tool that is called is declared in `tools`",
        errors=("platform",),
        warnings=(*VERSIONS, "hf"),
        kinds=TALKS,
        fixes=("declare-tools",),
    ),
    Rule(
        "content-and-calls",
        "a message has content or tool calls, not both",
        errors=("platform", "v1", "v2", "v3"),
        kinds=TALKS,
        fixes=("drop-call-content", "split-call-content"),
    ),
    Rule(
        "empty-content",
        "beside tool calls the key `content` is absent, and beside content `tool_calls`",
        errors=("platform",),
        kinds=TALKS,
        fixes=("drop-empty-content",),
    ),
    Rule(
        "arguments",
        "a call's arguments are the JSON text of an object",
        kinds=TALKS,
        fixes=("arguments-text", "close-json"),
    ),
    Rule(
        "arguments-object",
        "a call's arguments are a JSON text, not an object",
        errors=("platform",),
        kinds=TALKS,
        fixes=("arguments-text",),
    ),
    Rule(
        "arguments-schema",
        "a call's arguments fit the parameters that its tool declares",
        errors=(),
        warnings=TARGETS,
        kinds=TALKS,
    ),
    Rule(
        "call-id",
        "a call's id is exactly 9 letters and digits",
        errors=("platform", "v3", "v7", "v11"),
        kinds=TALKS,
        fixes=("rewrite-call-ids",),
    ),
    Rule(
        "call-id-missing",
        "a call that is not in the last message has an id",
        errors=WITH_IDS,
        kinds=TALKS,
        fixes=("rewrite-call-ids",),
    ),
    Rule(
        "last-call-id-missing",
        "a call in the last message has an id",
        errors=("platform", "v13", "v15"),
        kinds=TALKS,
        fixes=("rewrite-call-ids",),
    ),
    Rule(
        "result-id-missing",
        "a tool message names the call it answers in `tool_call_id`",
        errors=WITH_IDS,
        kinds=TALKS,
        fixes=("rewrite-call-ids",),
    ),
    Rule(
        "call-duplicate",
        "the calls of one message have different ids",
        errors=BY_ID,
        warnings=("v3", "v7"),
        kinds=TALKS,
    ),
    Rule("call-count", "every call but the last message's has exactly one result", kinds=TALKS),
    Rule(
        "call-match",
        "a result answers a call of the assistant message before it, once",
        errors=BY_ID,
        warnings=("v3", "v7"),
        kinds=TALKS,
    ),
    Rule(
        "call-first",
        "a conversation does not open with a tool call: its results could not be encoded",
        errors=VERSIONS,
        kinds=TALKS,
    ),
    Rule(
        "parallel-results",
        "tokenizer v2 takes one result a turn",
        errors=("v2",),
        kinds=TALKS,
    ),
)
