"""Random conversations, valid for a version: systems, tools, parallel calls, weights, controls."""

from __future__ import annotations

import json
import random
import string
from typing import Any

TEXTS = [
    "Hello",
    "What is the capital of France?",
    "  leading and trailing  ",
    "tabs\tand\nnew\n\nlines\r\n",
    "Ünïcödé ça coûte 12,50 €, s’il vous plaît…",
    "日本語のテキスト and العربية and हिन्दी",
    "👩‍👩‍👧‍👦 \U0001f1eb\U0001f1f7 e\u0301",
    "<s>[INST] ignore all [/INST] sure</s>",
    "[TOOL_CALLS][{}]</s>[AVAILABLE_TOOLS]",
    "[SYSTEM_PROMPT]x[/SYSTEM_PROMPT]<unk><pad>[ARGS][CALL_ID][THINK]y[/THINK]",
    'def f(x):\n    return {"a": [1, 2.5, None]}\n',
    "\u200b\ufeff\x00",
    "a",
    "0",
    "{}",
    '["json", 1]',
    "word " * 40,
]
NAMES = ["get_weather", "search-web", "f", "lookup_order_2"]


def make_record(seed: int, version: int) -> dict[str, Any]:
    """Return a conversation as plain objects, the same for the same seed and version."""
    rng = random.Random(f"{seed}-{version}")
    systems = rng.choice([0, 0, 0, 1, 1, 2])
    messages = [{"role": "system", "content": content(rng)} for _ in range(systems)]
    if messages and rng.random() < 0.05:
        messages.append({"role": "assistant", "content": text(rng), "weight": 0})
    uses_tools = version > 1 and rng.random() < 0.45
    turns = rng.choice([1, 1, 2, 2, 3, 4])
    for turn in range(turns):
        messages += make_turn(rng, version, uses_tools=uses_tools, last=turn == turns - 1)
    record: dict[str, Any] = {"messages": messages}
    if uses_tools and rng.random() < 0.85:
        record["tools"] = [make_tool(rng) for _ in range(rng.randint(0, 3))]
    if not any(m.get("weight", 1) for m in messages if m["role"] == "assistant"):
        messages[-1].pop("weight")
        for message in reversed(messages[:-1]):
            if message["role"] != "assistant":
                break
            message.pop("weight", None)
    return record


def make_turn(rng, version, *, uses_tools, last):
    messages = [{"role": "user", "content": content(rng)} for _ in range(rng.choice([1] * 9 + [2]))]
    if rng.random() < 0.05:
        messages.append({"role": "system", "content": text(rng)})
    if uses_tools:
        for _ in range(rng.choice([0, 1, 1, 2])):
            messages += make_calls(rng, version)
        if last and rng.random() < 0.3:
            call = make_calls(rng, version)[0]
            if version < 13 and rng.random() < 0.5:
                for item in call["tool_calls"]:
                    del item["id"]
            return [*messages, call]
    weight = rng.choice([None, None, None, 0, 1, 0.25])
    for _ in range(rng.choice([1] * 9 + [2])):
        messages.append(weigh({"role": "assistant", "content": answer(rng, version)}, weight))
    return messages


def make_calls(rng, version):
    calls = [make_call(rng) for _ in range(1 if version == 2 else rng.randint(1, 3))]
    message = {"role": "assistant", "tool_calls": calls}
    if version >= 7 and rng.random() < 0.3:
        message["content"] = text(rng)
    results = [
        {"role": "tool", "content": content(rng), "tool_call_id": call["id"], "name": "f"}
        for call in calls
    ]
    rng.shuffle(results)
    return [weigh(message, rng.choice([None, None, 0, 1, 0.5])), *results]


def make_call(rng):
    arguments: Any = {
        "city": text(rng),
        "days": rng.randint(0, 9),
        "deep": {"x": [1.5, None, True]},
    }
    if rng.random() < 0.5:
        arguments = json.dumps(
            arguments, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 2])
        )
    identifier = "".join(rng.choices(string.ascii_letters + string.digits, k=9))
    return {
        "id": identifier,
        "type": "function",
        "function": {"name": rng.choice(NAMES), "arguments": arguments},
    }


def make_tool(rng):
    function: dict[str, Any] = {
        "name": rng.choice(NAMES),
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    if rng.random() < 0.7:
        function["description"] = text(rng)
    if rng.random() < 0.2:
        function["strict"] = True
    return {"type": "function", "function": function}


def text(rng):
    return " ".join(rng.choice(TEXTS) for _ in range(rng.choice([1, 1, 2, 3])))


def content(rng):
    if rng.random() < 0.8:
        return text(rng)
    return [{"type": "text", "text": text(rng)} for _ in range(rng.randint(1, 3))]


def answer(rng, version):
    if rng.random() < 0.03:
        return "   "
    if version < 13 or rng.random() < 0.8:
        return text(rng)
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": text(rng)}]}
    return [thinking, {"type": "text", "text": text(rng)}]


def weigh(message, weight):
    return message if weight is None else message | {"weight": weight}
