"""Why each rule on records is there, with an example of invented data: broken → kept."""

from __future__ import annotations

from typing import NamedTuple

_DOCS = "La Plateforme's documentation of its data, 2026-08"
_CHECKS = "mistral-common 1.13.1, request validators, 2026-11"
_ENCODES = "mistral-common 1.13.1, encoders, 2026-11"
_JSON = "RFC 8259"
_OWN = "this project's choice"


class Note(NamedTuple):
    """Why a rule is there, who says so, and what it asks for."""

    why: str
    source: str
    before: str
    after: str


_USER = '{"role":"user","content":"Hi"}'
_HELLO = '{"role":"assistant","content":"Hello!"}'
_CALL = '{"id":"a1B2c3D4e","function":{"name":"find","arguments":"{}"}}'

NOTES: dict[str, Note] = {
    # the line
    "utf-8": Note("JSON is UTF-8; other bytes stop readers", _JSON, "caf\\xe9", "café"),
    "bom": Note(
        "most readers take it for a character of the first line", _JSON, "\\ufeff{…}", "{…}"
    ),
    "crlf": Note("a reader that splits at LF keeps a CR", _OWN, "{…}\\r\\n", "{…}\\n"),
    "blank-line": Note(
        "a blank line is a record that is not JSON", _DOCS, "{…}\\n\\n{…}", "{…}\\n{…}"
    ),
    "line-too-long": Note(
        "it would be held in memory whole", _OWN, "a line of 20 MB", "20 records"
    ),
    "json": Note("one faulty line makes the upload fail", _DOCS, '{"text": "a",}', '{"text": "a"}'),
    "nan": Note("Python writes them, nobody else reads them", _JSON, '{"x": NaN}', '{"x": null}'),
    "surrogate": Note("it cannot be written as UTF-8", _JSON, '"\\ud83d"', '"\\ud83d\\ude42"'),
    "too-deep": Note("readers stop at different depths, some crash", _OWN, "[[[[…]]]]", "[…]"),
    "number": Note("readers round it, each differently", _JSON, "1e999", '"1e999"'),
    "duplicate-key": Note(
        "readers keep the first or the last", _JSON, '{"text":"a","text":"b"}', '{"text":"b"}'
    ),
    "not-object": Note("a record is an object", _DOCS, '[{"text":"a"}]', '{"text":"a"}'),
    # the shape
    "missing-key": Note("nothing can stand in for it", _DOCS, '{"role":"user"}', _USER),
    "unknown-key": Note(
        "a misspelt key would be lost", _DOCS, '{"role":"user","contnt":"Hi"}', _USER
    ),
    "type": Note("the service refuses other types", _DOCS, '{"text":1}', '{"text":"1"}'),
    "null": Note(
        "the service asks for absent keys",
        _DOCS,
        '{"messages":[…],"tools":null}',
        '{"messages":[…]}',
    ),
    "role": Note("there are four roles", _DOCS, '{"role":"human",…}', '{"role":"user",…}'),
    "value": Note("others mean nothing", _DOCS, '{"type":"tool",…}', '{"type":"function",…}'),
    "weight": Note("it scales a message's loss", _DOCS, '"weight":2', '"weight":1'),
    "schema": Note("the published schema is the contract", _OWN, "{…}", "{…}"),
    # the turns
    "no-messages": Note("nothing to learn from", _CHECKS, '{"messages":[]}', '{"messages":[…]}'),
    "turn-order": Note(
        "the encoder has no form for it", _CHECKS, "user, tool, assistant", "user, assistant"
    ),
    "last-message": Note(
        "what follows the last answer is never trained",
        _CHECKS,
        "user, assistant, user",
        "user, assistant",
    ),
    "no-prompt": Note(
        "it would be learned without its cause", _CHECKS, "assistant", "user, assistant"
    ),
    "no-user": Note(
        "the trainer validates without the system message",
        "mistral-finetune 1943535, 2026-06",
        "system, assistant",
        "system, user, assistant",
    ),
    "same-role": Note(
        "the encoder joins them, other tools do not",
        _ENCODES,
        f"[{_USER},{_USER},…]",
        '[{"role":"user","content":"Hi\\n\\nHi"},…]',
    ),
    "joined-weights": Note(
        "one joined message has one weight", _ENCODES, "weights 0, 1", "weights 1, 1"
    ),
    "joined-calls": Note("the encoder raises", _ENCODES, "answer, call", "answer, user, call"),
    "system-position": Note(
        "the encoder moves it or fails, by version",
        _ENCODES,
        "user, system, assistant",
        "system, user, assistant",
    ),
    "system-count": Note(
        "the service takes one", _DOCS, "system, system, user, assistant", "system, user, assistant"
    ),
    "empty-assistant": Note(
        "it teaches to say nothing", _CHECKS, '{"role":"assistant","content":""}', _HELLO
    ),
    "blank-answer": Note(
        "it teaches to say nothing", _OWN, '{"role":"assistant","content":" \\n"}', _HELLO
    ),
    "empty-message": Note("a question without words", _OWN, '{"role":"user","content":""}', _USER),
    "chunk-type": Note(
        "the encoder has no tokens for it", _ENCODES, "an image in an answer", "text in an answer"
    ),
    "image-url": Note(
        "the encoder reads only these", _ENCODES, '{"uri":"…"}', '{"url":"data:image/png;base64,…"}'
    ),
    "weight-fraction": Note(
        "the service takes 0 and 1",
        "mistral-finetune 1943535, 2026-06",
        '"weight":0.5',
        '"weight":1',
    ),
    "nothing-to-train": Note("such a record has no loss", _OWN, '"weight":0', '"weight":1'),
    # tools
    "no-tools": Note("its encoder leaves them out", _ENCODES, "--for v1", "--for v3"),
    "function-name": Note("the service refuses others", _CHECKS, '"find it"', '"find_it"'),
    "tool-schema": Note(
        "the service refuses others", _CHECKS, '{"type":"dict"}', '{"type":"object"}'
    ),
    "duplicate-tool": Note("one of them is never meant", _OWN, "find, find", "find"),
    "tool-description": Note(
        "the documentation's tools have one",
        _DOCS,
        '{"name":"find",…}',
        '{"name":"find","description":"Find an order.",…}',
    ),
    "undeclared-tool": Note(
        "the model would call what it was not offered", _DOCS, '"tools":[]', '"tools":[{…"find"…}]'
    ),
    "content-and-calls": Note(
        "an answer is text or calls",
        _CHECKS,
        f'"content":"Wait","tool_calls":[{_CALL}]',
        f'"tool_calls":[{_CALL}]',
    ),
    "empty-content": Note(
        "the service asks for absent keys",
        _DOCS,
        f'"content":"","tool_calls":[{_CALL}]',
        f'"tool_calls":[{_CALL}]',
    ),
    "arguments": Note(
        "the model would learn to write broken JSON", _ENCODES, "\"{'n': 1}\"", '"{\\"n\\": 1}"'
    ),
    "arguments-object": Note(
        "the service takes text", _DOCS, '"arguments":{"n":1}', '"arguments":"{\\"n\\": 1}"'
    ),
    "arguments-schema": Note(
        "the model would learn calls that fail", _OWN, '{"n":"one"}', '{"n":1}'
    ),
    "call-id": Note("the encoder refuses others", _CHECKS, '"call_1"', '"a1B2c3D4e"'),
    "call-id-missing": Note("its result could not name it", _CHECKS, "no id", '"id":"a1B2c3D4e"'),
    "last-call-id-missing": Note("the encoder refuses it", _CHECKS, "no id", '"id":"a1B2c3D4e"'),
    "result-id-missing": Note(
        "nobody knows what it answers", _CHECKS, "no id", '"tool_call_id":"a1B2c3D4e"'
    ),
    "call-duplicate": Note("results could not be told apart", _CHECKS, "ids a, a", "ids a, b"),
    "call-count": Note("the encoder refuses it", _CHECKS, "call, user", "call, tool, assistant"),
    "call-match": Note("the encoder refuses it", _CHECKS, "call a, result b", "call a, result a"),
    "call-first": Note(
        "its results could not be encoded",
        _ENCODES,
        "call, tool, assistant",
        "user, call, tool, assistant",
    ),
    "parallel-results": Note("the encoder refuses it", _ENCODES, "call, tool, tool", "call, tool"),
    # the texts
    "template-text": Note(
        "the encoder adds its own, so that the model would learn to write them",
        _ENCODES,
        "<s>[INST] Hi [/INST]",
        "Hi",
    ),
    "call-in-text": Note(
        "it is trained as prose, and never parsed",
        _ENCODES,
        '"content":"<functioncall> {…}"',
        f'"tool_calls":[{_CALL}]',
    ),
    "placeholder": Note("the model would write it too", _OWN, "Dear {{name}}", "Dear Ms Muster"),
    "mojibake": Note("the model would write it too", _OWN, "cafÃ©", "café"),
    "mixed-scripts": Note(
        "fine for translations, else two records were mixed",
        _OWN,
        "Where is it? → Он в пути.",
        "Where is it? → On its way.",
    ),
    "refusal": Note(
        "data made by another model, and it teaches to refuse",
        _OWN,
        "As an AI language model, I …",
        "an answer",
    ),
    "cut-answer": Note(
        "the model would learn to stop early", _OWN, "```python\\nx = 1", "```python\\nx = 1\\n```"
    ),
    # the other kinds
    "empty-text": Note("nothing to learn from", _DOCS, '{"text":""}', '{"text":"A document"}'),
    "text-or-messages": Note(
        "one of them would be lost", _DOCS, '{"text":"a","messages":[…],…}', '{"text":"a",…}'
    ),
    "no-labels": Note("nothing to learn", _DOCS, '"labels":{}', '"labels":{"topic":"delivery"}'),
    "empty-label": Note("it cannot be a class", _DOCS, '{"topic":""}', '{"topic":"none"}'),
    "no-label-value": Note(
        "it is unclear what it means", _DOCS, '{"topic":[]}', '{"topic":["none"]}'
    ),
    "prompt-end": Note("there is nothing to answer", _CHECKS, "user, assistant", "user"),
    "answer-role": Note("only answers are compared", _CHECKS, "user, assistant", "assistant"),
    "same-answers": Note("there is nothing to prefer", _OWN, "Yes / Yes", "Yes / No"),
    # the whole
    "label-kind": Note(
        "a target has one loss", _DOCS, '"spam", then ["spam"]', '["spam"], then ["spam"]'
    ),
    "one-class": Note("there is nothing to tell apart", _DOCS, "spam only", "spam and ham"),
    "one-rating": Note("there is nothing to prefer", _OWN, "true only", "true and false"),
    "mixed-inputs": Note(
        "the documentation shows one a file", _DOCS, "text, messages", "text, text"
    ),
    "rare-class": Note("too few to learn or to measure", _OWN, "2 records", "join it with another"),
    "near-labels": Note(
        "they are one class to people", _OWN, "Billing, billing", "billing, billing"
    ),
    "joined-labels": Note(
        "each of them is learned as a class of its own; `columns: {labels: topic split by ;}`"
        " parts them",
        _OWN,
        "billing, billing;refund",
        '["billing"], ["billing", "refund"]',
    ),
    "unused-tool": Note(
        "it costs tokens in each record", _OWN, "find, buy declared", "find declared"
    ),
    "unequal-lengths": Note(
        "often rows that were pasted together",
        _OWN,
        "answers of 60 and 90,000",
        "answers of 60 to 900",
    ),
    "training-size": Note("larger uploads are refused (413)", _DOCS, "700 MB", "two of 350 MB"),
    "validation-size": Note(
        "it may be refused; how strictly is not documented", _DOCS, "7 MB", "1 MB"
    ),
    "overlap": Note("the measure would flatter", _OWN, "in both files", "in one"),
    "unseen-label": Note("it cannot be learned", _OWN, "refund in one file", "refund in both"),
}
