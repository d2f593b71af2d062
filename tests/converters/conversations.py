"""Generated conversations, and how each format writes them."""

from __future__ import annotations

import json
from typing import NamedTuple

from hypothesis import strategies as st

from finetune.records import AssistantMessage, ChatRecord, ToolMessage, text_of


class Call(NamedTuple):
    name: str
    arguments: dict
    result: str


class Exchange(NamedTuple):
    question: str
    calls: list[Call]
    answer: str


class Conversation(NamedTuple):
    system: str | None
    exchanges: list[Exchange]

    @property
    def names(self) -> list[str]:
        return sorted({call.name for exchange in self.exchanges for call in exchange.calls})


# What the formats in one text could not tell from their own marks.
_MARKS = (
    "USER:",
    "ASSISTANT:",
    "SYSTEM:",
    "RESPONSE:",
    "<|endoftext|>",
    "<functioncall>",
    "[",
    "{",
)
texts = (
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
    .map(str.strip)
    .filter(lambda text: text and not any(mark in text for mark in _MARKS))
)
_words = st.text("abcxyz", min_size=1, max_size=4).filter(lambda word: word.isidentifier())
_scalars = st.booleans() | st.integers(-(10**9), 10**9) | texts
_arguments = st.dictionaries(
    _words.map("a_{}".format), _scalars | st.lists(_scalars, min_size=1, max_size=3), max_size=3
)
_calls = st.builds(Call, st.sampled_from(["find", "get_weather", "send-mail"]), _arguments, texts)


def conversations(*, system: bool = True, most: int = 3, calls: int = 3):
    exchange = st.builds(Exchange, texts, st.lists(_calls, max_size=calls), texts)
    systems = st.none() | texts if system else st.none()
    return st.builds(Conversation, systems, st.lists(exchange, min_size=1, max_size=most))


def flatten(conversation: Conversation) -> list:
    """Return what a conversation says, step by step."""
    steps = [("system", conversation.system)] if conversation.system else []
    for question, calls, answer in conversation.exchanges:
        steps.append(("user", question))
        if calls:
            steps.append(("calls", [(call.name, call.arguments) for call in calls]))
            steps += [("result", number, call.result) for number, call in enumerate(calls)]
        steps.append(("assistant", answer))
    return steps


def flatten_record(record: ChatRecord) -> list:
    """Return the same of a record."""
    steps, ids = [], []
    for message in record.messages:
        if isinstance(message, AssistantMessage) and message.tool_calls:
            ids = [call.id for call in message.tool_calls]
            assert not message.content
            made = [(c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls]
            steps.append(("calls", made))
        elif isinstance(message, ToolMessage):
            steps.append(("result", ids.index(message.tool_call_id), text_of(message.content)))
        else:
            role = type(message).__name__.removesuffix("Message").lower()
            steps.append((role, text_of(message.content)))
    return steps


def function(name: str, kind: str = "object", properties=None) -> dict:
    parameters = {"type": kind, "properties": properties or {}}
    return {"name": name, "description": f"Does {name}", "parameters": parameters}


def as_sharegpt(talk: Conversation) -> dict:
    turns = []
    for question, calls, answer in talk.exchanges:
        turns.append({"from": "human", "value": question})
        if calls:
            value = [{"name": call.name, "arguments": call.arguments} for call in calls]
            turns.append({"from": "function_call", "value": json.dumps(value)})
        turns += [{"from": "observation", "value": call.result} for call in calls]
        turns.append({"from": "gpt", "value": answer})
    tools = json.dumps([function(name) for name in talk.names])
    return {"conversations": turns, "system": talk.system or "", "tools": tools}


def openai_messages(talk: Conversation) -> list[dict]:
    messages = [{"role": "developer", "content": talk.system}] if talk.system else []
    for at, (question, calls, answer) in enumerate(talk.exchanges):
        messages.append({"role": "user", "content": [{"type": "text", "text": question}]})
        ids = [f"call_{at}_{number}" for number in range(len(calls))]
        made = [
            {
                "id": name,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for name, call in zip(ids, calls, strict=True)
        ]
        if made:
            messages.append({"role": "assistant", "content": None, "tool_calls": made})
        messages += [
            {"role": "tool", "tool_call_id": name, "content": call.result}
            for name, call in zip(ids, calls, strict=True)
        ]
        messages.append({"role": "assistant", "content": answer, "refusal": None})
    return messages


def as_openai(talk: Conversation) -> dict:
    tools = [{"type": "function", "function": function(name)} for name in talk.names]
    return {"messages": openai_messages(talk), "tools": tools, "parallel_tool_calls": True}


def as_old_openai(talk: Conversation) -> dict:
    """One call at a time, without ids."""
    messages = [{"role": "system", "content": talk.system}] if talk.system else []
    for question, calls, answer in talk.exchanges:
        messages.append({"role": "user", "content": question})
        for call in calls:
            made = {"name": call.name, "arguments": json.dumps(json.dumps(call.arguments))}
            messages.append({"role": "assistant", "content": None, "function_call": made})
            messages.append({"role": "function", "name": call.name, "content": call.result})
        messages.append({"role": "assistant", "content": answer})
    return {"messages": messages, "functions": [function(name) for name in talk.names]}


def as_anthropic(talk: Conversation) -> dict:
    messages = []
    for at, (question, calls, answer) in enumerate(talk.exchanges):
        messages.append({"role": "user", "content": question})
        ids = [f"toolu_{at}_{number}" for number in range(len(calls))]
        pairs = list(zip(ids, calls, strict=True))
        if calls:
            uses = [
                {"type": "tool_use", "id": name, "name": call.name, "input": call.arguments}
                for name, call in pairs
            ]
            results = [
                {"type": "tool_result", "tool_use_id": name, "content": call.result}
                for name, call in pairs
            ]
            messages += [
                {"role": "assistant", "content": uses},
                {"role": "user", "content": results},
            ]
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    tools = [
        {"name": name, "description": "D", "input_schema": {"type": "object", "properties": {}}}
        for name in talk.names
    ]
    return {"system": talk.system or "", "messages": messages, "tools": tools}


def as_openai_log(talk: Conversation) -> dict:
    request = as_openai(talk)
    answer = request["messages"].pop()
    choice = {"index": 0, "message": answer, "finish_reason": "stop"}
    return {"request": request, "response": {"object": "chat.completion", "choices": [choice]}}


def as_responses_log(talk: Conversation) -> dict:
    items, output = [], []
    for at, (question, calls, answer) in enumerate(talk.exchanges):
        items += output
        items.append({"role": "user", "content": [{"type": "input_text", "text": question}]})
        ids = [f"call_{at}_{number}" for number in range(len(calls))]
        items.append({"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"})
        items += [
            {
                "type": "function_call",
                "call_id": name,
                "name": call.name,
                "arguments": json.dumps(call.arguments),
            }
            for name, call in zip(ids, calls, strict=True)
        ]
        items += [
            {"type": "function_call_output", "call_id": name, "output": call.result}
            for name, call in zip(ids, calls, strict=True)
        ]
        text = {"type": "output_text", "text": answer, "annotations": []}
        output = [{"type": "message", "role": "assistant", "content": [text]}]
    tools = [{"type": "function", **function(name)} for name in talk.names]
    request = {"instructions": talk.system, "input": items, "tools": tools}
    return {"request": request, "response": {"object": "response", "output": output}}


def as_anthropic_log(talk: Conversation) -> dict:
    request = as_anthropic(talk)
    answer = {"type": "message", "stop_reason": "end_turn", **request["messages"].pop()}
    return {"request": request, "response": answer}


def as_litellm_log(talk: Conversation) -> dict:
    log = as_openai_log(talk)
    return {
        "call_type": "acompletion",
        "status": "success",
        "messages": json.dumps(log["request"].pop("messages")),
        "response": json.dumps(log["response"]),
        "proxy_server_request": json.dumps(log["request"]),
    }


def as_openrouter_log(talk: Conversation) -> dict:
    messages = openai_messages(talk)
    output = {"completion": messages.pop()["content"], "reasoning": None}
    return {"data": {"input": {"messages": messages}, "output": output}}


def as_glaive(talk: Conversation) -> dict:
    turns = []
    for question, calls, answer in talk.exchanges:
        turns.append(f"USER: {question}")
        made = [
            f'<functioncall> {{"name": "{call.name}", "arguments": \'{json.dumps(call.arguments)}\'}}'
            for call in calls
        ]
        turns += [f"ASSISTANT: {' '.join(made)} <|endoftext|>"] if made else []
        turns += [f"FUNCTION RESPONSE: {call.result}" for call in calls]
        turns.append(f"ASSISTANT: {answer} <|endoftext|>")
    tools = "\n".join(json.dumps(function(name), indent=1) for name in talk.names)
    return {"system": f"SYSTEM: {talk.system or ''}\n{tools}", "chat": "\n\n\n".join(turns)}


def as_toolace(talk: Conversation) -> dict:
    turns = []
    for question, calls, answer in talk.exchanges:
        turns.append({"from": "user", "value": question})
        if calls:
            made = [
                f"{call.name}({', '.join(f'{k}={v!r}' for k, v in call.arguments.items())})"
                for call in calls
            ]
            results = [{"name": call.name, "results": call.result} for call in calls]
            value = calls[0].result if len(calls) == 1 else json.dumps(results)
            turns.append({"from": "assistant", "value": f"[{', '.join(made)}]"})
            turns.append({"from": "tool", "value": value})
        turns.append({"from": "assistant", "value": answer})
    tools = json.dumps([function(name, "dict") for name in talk.names])
    listed = f"\n{tools}" if talk.names else ""
    return {"system": f"{talk.system or ''}{listed}", "conversations": turns}


def as_hermes(talk: Conversation) -> dict:
    listed = json.dumps([{"type": "function", "function": function(n)} for n in talk.names])
    template = (
        "You are a function calling AI model. Signatures are within <tools> </tools> tags.\n"
        f"<tools>\n{listed}\n</tools>\nFor each call return <tool_call>\n{{}}\n</tool_call>\n"
    )
    system = f"{talk.system or ''}\n\n{template}" if talk.names else talk.system
    turns = [{"from": "system", "value": system}] if system else []
    for question, calls, answer in talk.exchanges:
        turns.append({"from": "human", "value": question})
        if calls:
            made = [{"name": call.name, "arguments": call.arguments} for call in calls]
            texts_ = [f"<tool_call>\n{json.dumps(one)}\n</tool_call>" for one in made[:1]]
            texts_ += [f"<tool_call>{one!r}</tool_call>" for one in made[1:]]
            results = [f"<tool_response>\n{call.result}\n</tool_response>" for call in calls]
            turns.append({"from": "gpt", "value": "\n".join(texts_)})
            turns.append({"from": "tool", "value": "\n".join(results)})
        turns.append({"from": "gpt", "value": answer})
    return {"conversations": turns}


def as_alpaca(talk: Conversation) -> dict:
    *history, last = talk.exchanges
    return {
        "system": talk.system,
        "history": [[exchange.question, exchange.answer] for exchange in history],
        "instruction": last.question,
        "input": "<noinput>",
        "output": last.answer,
    }


def as_xlam(talk: Conversation) -> dict:
    (exchange,) = talk.exchanges
    answers = [{"name": call.name, "arguments": call.arguments} for call in exchange.calls]
    tools = [
        {"name": name, "description": "D", "parameters": {"a": {"type": "List[int], optional"}}}
        for name in talk.names
    ]
    return {"query": exchange.question, "tools": json.dumps(tools), "answers": json.dumps(answers)}


def as_bfcl(talk: Conversation) -> dict:
    (exchange,) = talk.exchanges
    return {
        "question": [[{"role": "user", "content": exchange.question}]],
        "function": [function(name, "dict", {"a": {"type": "float"}}) for name in talk.names],
        "ground_truth": [
            {call.name: {key: [value, "other"] for key, value in call.arguments.items()}}
            for call in exchange.calls
        ],
    }


ONLY_CALLS = {"xlam": as_xlam, "bfcl": as_bfcl}
WRITERS = {
    "sharegpt": (as_sharegpt,),
    "openai": (as_openai, as_old_openai),
    "anthropic": (as_anthropic,),
    "logs": (
        *(as_openai_log, as_responses_log),
        *(as_anthropic_log, as_litellm_log, as_openrouter_log),
    ),
    "hermes": (as_hermes,),
    "glaive": (as_glaive,),
    "toolace": (as_toolace,),
    "alpaca": (as_alpaca,),
    **{name: (writer,) for name, writer in ONLY_CALLS.items()},
}
CASES = [(name, writer) for name, writers in WRITERS.items() for writer in writers]
