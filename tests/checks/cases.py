"""One line that keeps each rule and one that breaks it: rule → (target, kind, kept, broken)."""

from __future__ import annotations

import json


def chat(*messages, **more):
    return {"messages": list(messages), **more}


def system(content="Be kind."):
    return {"role": "system", "content": content}


def user(content="Hello"):
    return {"role": "user", "content": content}


def assistant(content="Hi", **more):
    return {"role": "assistant", "content": content, **more}


def call(name="abcdefgh1", function="find", arguments="{}"):
    called = {"type": "function", "function": {"name": function, "arguments": arguments}}
    return called if name is None else {"id": name, **called}


def calls(*made, **more):
    return {"role": "assistant", "tool_calls": list(made), **more}


def result(name="abcdefgh1", content="found", **more):
    return {"role": "tool", "content": content, "tool_call_id": name, **more}


def tool(name="find", parameters=None, description="Find it."):
    function = {"name": name, "description": description, "parameters": parameters or {}}
    return {"type": "function", "function": function}


def tools(*messages, declared=None):
    return chat(*messages, tools=declared or [tool()])


def label(value="spam", **more):
    return {"text": "Buy", "labels": {"topic": value}, **more}


def pair(**more):
    return {"prompt": [user()], "chosen": [assistant()], "rejected": [assistant("No")], **more}


PLAIN = chat(user(), assistant())
TALK = tools(user(), calls(call()), result(), assistant())
TWO = (call("abcdefgh1"), call("abcdefgh2"))
DEEP = json.loads("[" * 65 + "]" * 65)
THOUGHT = [{"type": "thinking", "thinking": [{"type": "text", "text": "so"}]}]
IMAGE = {"type": "image_url", "image_url": "https://example.org/a.png"}
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
LINE = json.dumps(PLAIN).encode()

CASES = {
    "utf-8": ("platform", "chat", PLAIN, LINE.replace(b"Hello", b"H\xe9llo")),
    "bom": ("platform", "chat", PLAIN, b"\xef\xbb\xbf" + LINE),
    "blank-line": ("platform", "chat", PLAIN, b"  "),
    "line-too-long": ("platform", "chat", PLAIN, None),
    "json": ("platform", "chat", PLAIN, LINE[:-1]),
    "nan": ("platform", "chat", PLAIN, LINE[:-1] + b', "x": NaN}'),
    "surrogate": ("platform", "chat", PLAIN, LINE.replace(b"Hello", b"\\ud83d")),
    "too-deep": (
        "v3",
        "chat",
        TALK,
        tools(*TALK["messages"], declared=[tool("find", {"enum": DEEP})]),
    ),
    "number": (
        "v3",
        "chat",
        TALK,
        tools(*TALK["messages"], declared=[tool("find", {"maximum": 10**30})]),
    ),
    "duplicate-key": (
        "platform",
        "chat",
        PLAIN,
        LINE.replace(b'"role": "user"', b'"role": "user", "role": "user"'),
    ),
    "not-object": ("platform", "chat", PLAIN, b"[" + LINE + b"]"),
    "missing-key": ("platform", "chat", PLAIN, chat({"role": "user"}, assistant())),
    "unknown-key": ("platform", "chat", PLAIN, chat(user(), assistant(), temperature=1)),
    "type": ("platform", "chat", PLAIN, chat(user(1), assistant())),
    "null": ("platform", "chat", PLAIN, chat(user(), assistant(), tools=None)),
    "role": ("platform", "chat", PLAIN, chat({"role": "human", "content": "Hello"}, assistant())),
    "value": ("platform", "chat", TALK, tools(user(), calls({**call(), "type": "tool"}))),
    "weight": (
        "platform",
        "chat",
        chat(user(), assistant(weight=1)),
        chat(user(), assistant(weight=2)),
    ),
    "no-messages": ("platform", "chat", PLAIN, chat()),
    "turn-order": ("platform", "chat", PLAIN, chat(user(), result(), assistant())),
    "last-message": ("platform", "chat", PLAIN, chat(user(), assistant(), user())),
    "no-prompt": ("platform", "chat", PLAIN, chat(assistant())),
    "no-user": ("platform", "chat", PLAIN, chat(system(), assistant())),
    "same-role": ("platform", "chat", PLAIN, chat(user(), user(), assistant())),
    "joined-weights": (
        "v7",
        "chat",
        chat(user(), assistant(weight=1), assistant()),
        chat(user(), assistant(weight=0), assistant()),
    ),
    "joined-calls": (
        "v3",
        "chat",
        tools(user(), assistant(), user(), calls(call())),
        tools(user(), assistant(), calls(call())),
    ),
    "system-position": (
        "v7",
        "chat",
        chat(system(), user(), assistant()),
        chat(user(), system(), assistant()),
    ),
    "system-count": (
        "platform",
        "chat",
        chat(system(), user(), assistant()),
        chat(system(), system(), user(), assistant()),
    ),
    "empty-assistant": ("platform", "chat", PLAIN, chat(user(), assistant(""))),
    "blank-answer": ("platform", "chat", PLAIN, chat(user(), assistant(" \n"))),
    "empty-message": ("platform", "chat", PLAIN, chat(user(""), assistant())),
    "chunk-type": (
        "v11",
        "chat",
        chat(user([IMAGE]), assistant()),
        chat(user(), assistant(THOUGHT)),
    ),
    "image-url": (
        "platform",
        "chat",
        chat(
            user([{"type": "image_url", "image_url": {"url": "x", "detail": "low"}}]), assistant()
        ),
        chat(user([{"type": "image_url", "image_url": {"uri": "x"}}]), assistant()),
    ),
    "weight-fraction": (
        "platform",
        "chat",
        chat(user(), assistant(weight=1.0)),
        chat(user(), assistant(weight=0.5)),
    ),
    "nothing-to-train": (
        "v3",
        "chat",
        chat(user(), assistant(weight=0), user(), assistant()),
        chat(user(), assistant(weight=0)),
    ),
    "no-tools": ("v1", "chat", PLAIN, TALK),
    "function-name": ("v3", "chat", TALK, tools(user(), calls(call(function="find it\n")))),
    "tool-schema": (
        "v3",
        "chat",
        tools(user(), assistant(), declared=[tool("find", {"type": ["object", "null"]})]),
        tools(user(), assistant(), declared=[tool("find", {"type": "dict"})]),
    ),
    "duplicate-tool": ("v3", "chat", TALK, tools(user(), assistant(), declared=[tool(), tool()])),
    "tool-description": (
        "platform",
        "chat",
        TALK,
        tools(user(), assistant(), declared=[tool(description="")]),
    ),
    "undeclared-tool": ("platform", "chat", TALK, tools(user(), calls(call(function="other")))),
    "content-and-calls": ("v3", "chat", TALK, tools(user(), calls(call(), content="Let me look"))),
    "empty-content": ("platform", "chat", TALK, tools(user(), calls(call(), content=""))),
    "arguments": (
        "v13",
        "chat",
        tools(user(), calls(call(arguments={"a": 1}))),
        tools(user(), calls(call(arguments="{'a': True}"))),
    ),
    "arguments-object": (
        "platform",
        "chat",
        tools(user(), calls(call(arguments='{"a": 1}'))),
        tools(user(), calls(call(arguments={"a": 1}))),
    ),
    "arguments-schema": (
        "v13",
        "chat",
        tools(user(), calls(call(arguments='{"n": 1}')), declared=[tool("find", NUMBER)]),
        tools(user(), calls(call(arguments='{"n": "1"}')), declared=[tool("find", NUMBER)]),
    ),
    "template-text": (
        "v7",
        "chat",
        chat(user("What is an [INSTRUMENT]?"), assistant("<b>One</b> of many")),
        chat(user("<s>[INST] Hello [/INST]"), assistant()),
    ),
    "call-in-text": (
        "v7",
        "chat",
        TALK,
        chat(user(), assistant('<functioncall> {"name": "find", "arguments": "{}"}')),
    ),
    "placeholder": (
        "platform",
        "chat",
        chat(user("Explain `{{ name }}`"), assistant("```jinja\n{{ name }}\n```")),
        chat(user(), assistant("Dear {{name}}, hello")),
    ),
    "mojibake": (
        "platform",
        "chat",
        chat(user("SÃO PAULO déjà"), assistant("IRMû")),
        chat(user("Où est-ce ?"), assistant("DÃ©jÃ\xa0 livrÃ©, câ€™est fait")),
    ),
    "mixed-scripts": (
        "platform",
        "chat",
        chat(user("Где находится мой новый заказ?"), assistant("Он будет доставлен завтра утром.")),
        chat(user("Where is the order that I placed?"), assistant("Он будет доставлен завтра.")),
    ),
    "refusal": (
        "platform",
        "chat",
        chat(user(), assistant("As an AI company, we build models.")),
        chat(user(), assistant("As an AI language model, I cannot do that.")),
    ),
    "cut-answer": (
        "platform",
        "chat",
        chat(user(), assistant("```python\nx = 1\n```\nDone")),
        chat(user(), assistant("```python\nx = 1\n")),
    ),
    "call-id": ("v7", "chat", TALK, tools(user(), calls(call("call_1")))),
    "call-id-missing": (
        "v3",
        "chat",
        tools(user(), calls(call(None))),
        tools(user(), calls(call(None)), {"role": "tool", "content": "x"}, assistant()),
    ),
    "last-call-id-missing": (
        "v13",
        "chat",
        tools(user(), calls(call("any id"))),
        tools(user(), calls(call(None))),
    ),
    "result-id-missing": (
        "v3",
        "chat",
        TALK,
        tools(user(), calls(call()), {"role": "tool", "content": "found"}, assistant()),
    ),
    "call-duplicate": (
        "v11",
        "chat",
        tools(user(), calls(*TWO)),
        tools(user(), calls(call(), call())),
    ),
    "call-count": ("v3", "chat", TALK, tools(user(), calls(call()), user(), assistant())),
    "call-match": (
        "v11",
        "chat",
        TALK,
        tools(user(), calls(call()), result("abcdefgh2"), assistant()),
    ),
    "call-first": ("v11", "chat", TALK, tools(calls(call()), result(), assistant())),
    "parallel-results": (
        "v2",
        "chat",
        TALK,
        tools(user(), calls(*TWO), result("abcdefgh1"), result("abcdefgh2"), assistant()),
    ),
    "empty-text": ("platform", "text", {"text": "a"}, {"text": " "}),
    "text-or-messages": ("platform", "classifier", label(), label(messages=[user()])),
    "no-labels": ("platform", "classifier", label(), {"text": "a", "labels": {}}),
    "empty-label": ("platform", "classifier", label(), label("")),
    "no-label-value": ("platform", "classifier", label(["a"]), label([])),
    "prompt-end": ("v7", "preference", pair(), pair(prompt=[user(), assistant()])),
    "answer-role": ("v7", "preference", pair(), pair(chosen=[user(), assistant()])),
    "same-answers": ("v7", "preference", pair(), pair(chosen=[assistant("No")])),
}
# Rules that one line alone cannot break: their tests stand in test_validation.py.
ELSEWHERE = {"crlf", "schema", "label-kind", "one-class", "one-rating", "mixed-inputs"} | {
    "rare-class",
    "near-labels",
    "joined-labels",
    "unused-tool",
    "unequal-lengths",
    "training-size",
    "validation-size",
    "overlap",
    "unseen-label",
}


def line(value):
    """Return a case as the line that would stand in a file."""
    return json.dumps(value).encode() if isinstance(value, dict) else value
