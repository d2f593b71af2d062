"""Answers: chat, a middle to fill in, labels."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from finetune.server.contract.base import Body, Reply, StrictRequest

Text = str | list[dict[str, Any]]
Count = Annotated[int, Field(ge=0)]


class CalledFunction(StrictRequest):
    """What is called, and with what."""

    name: str
    """The function."""
    arguments: dict[str, Any] | str
    """Its arguments: an object, or the same as a JSON text."""


class Call(StrictRequest):
    """One call of a tool."""

    id: str = "null"
    """Ties it to its result."""
    type: Literal["function"] = "function"
    """Always `function`."""
    function: CalledFunction
    """What is called."""
    index: int = 0
    """Its place among the calls of a message."""


class SystemTurn(StrictRequest):
    """Instructions."""

    role: Literal["system"] = "system"
    """Who speaks."""
    content: Text
    """What is said."""


class UserTurn(StrictRequest):
    """What the person says."""

    role: Literal["user"] = "user"
    """Who speaks."""
    content: Text | None = None
    """What is said."""


class AssistantTurn(StrictRequest):
    """What the model said."""

    role: Literal["assistant"] = "assistant"
    """Who speaks."""
    content: Text | None = None
    """What was said."""
    tool_calls: list[Call] | None = None
    """What was called."""
    prefix: bool = False
    """The last message only: the answer begins with it."""


class ToolTurn(StrictRequest):
    """The result of a call."""

    role: Literal["tool"] = "tool"
    """Who speaks."""
    content: Text | None
    """The result."""
    tool_call_id: str | None = None
    """Which call it answers."""
    name: str | None = None
    """Which function was called."""


Turn = Annotated[SystemTurn | UserTurn | AssistantTurn | ToolTurn, Field(discriminator="role")]


class DeclaredFunction(StrictRequest):
    """A function that the model may call."""

    name: str
    """Its name."""
    description: str = ""
    """What it does."""
    strict: bool = False
    """Arguments fit the schema exactly."""
    parameters: dict[str, Any]
    """A JSON Schema of its arguments."""


class DeclaredTool(StrictRequest):
    """A tool that the model may use."""

    type: Literal["function"] = "function"
    """Always `function`."""
    function: DeclaredFunction
    """What it is."""


class FunctionName(StrictRequest):
    """The function that is to be called."""

    name: str
    """Its name."""


class NamedTool(StrictRequest):
    """The tool that is to be used."""

    type: Literal["function"] = "function"
    """Always `function`."""
    function: FunctionName
    """Which one."""


class WantedSchema(StrictRequest):
    """What the answer has to fit."""

    name: str
    """A name for it."""
    description: str | None = None
    """What it is."""
    schema_definition: Annotated[dict[str, Any], Field(alias="schema")]
    """The JSON Schema."""
    strict: bool = False
    """Kept in any case: the answer always fits."""


class WantedFormat(StrictRequest):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    """Free text, any JSON object, or JSON that fits a schema."""
    json_schema: WantedSchema | None = None
    """The schema, for `json_schema`."""


class Prediction(StrictRequest):
    """What the answer will probably be: passed over here."""

    type: Literal["content"] = "content"
    """Always `content`."""
    content: str = ""
    """The text."""


class _Sampling(Body, StrictRequest):
    """How tokens are chosen."""

    model: str
    """A base or a tuned model (`GET /v1/models`)."""
    temperature: Annotated[float, Field(ge=0, le=1.5)] | None = None
    """0 (where null too): always the likeliest token."""
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Only the likeliest tokens with this probability together."""
    max_tokens: Count | None = None
    """Most tokens of the answer."""
    stream: bool = False
    """Send the answer in parts, as server-sent events."""
    stop: str | list[str] | None = None
    """The answer ends before any of these texts."""
    random_seed: Count | None = None
    """The same seed gives the same answer."""
    metadata: dict[str, Any] | None = None
    """Passed over here."""
    prompt_cache_key: str | None = None
    """Passed over here."""


class ChatRequest(_Sampling):
    """A conversation to go on with."""

    messages: Annotated[list[Turn], Field(min_length=1)]
    """What was said so far."""
    response_format: WantedFormat = WantedFormat()
    """The form of the answer."""
    tools: list[DeclaredTool] | None = None
    """What the model may call."""
    tool_choice: Literal["auto", "none", "any", "required"] | NamedTool = "auto"
    """Whether it has to."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """Taken from the chance of a token that was written already."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """Taken from the chance of a token, for each time that it was written."""
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    """How many answers; at most 8 here."""
    prediction: Prediction = Prediction()
    """What the answer will probably be."""
    parallel_tool_calls: bool = True
    """Whether there may be several calls in one answer."""
    prompt_mode: Literal["reasoning"] | None = None
    """None is served here."""
    reasoning_effort: Literal["high", "none"] | None = None
    """None is served here."""
    guardrails: list[dict[str, Any]] | None = None
    """None is served here."""
    safe_prompt: bool = False
    """None is served here."""


class FimRequest(_Sampling):
    """A text with a middle to fill in."""

    prompt: str
    """What stands before the middle."""
    suffix: str | None = ""
    """What stands behind it; without it the text is gone on with."""
    min_tokens: Count | None = None
    """Fewest tokens of the answer."""


class Usage(Reply):
    """Tokens of a request."""

    prompt_tokens: int
    """Tokens that were read."""
    completion_tokens: int
    """Tokens that were written."""
    total_tokens: int
    """Both."""


class AnswerMessage(Reply):
    """An answer."""

    role: Literal["assistant"] = "assistant"
    """Who speaks."""
    content: Text | None = None
    """What is said."""
    tool_calls: list[Call] | None = None
    """What is called."""
    prefix: bool = False
    """Always false."""


FinishReason = Literal["stop", "length", "model_length", "error", "tool_calls"]


class Choice(Reply):
    """One answer of several."""

    index: int
    """Its place."""
    message: AnswerMessage
    """The answer."""
    finish_reason: FinishReason
    """Why it ended."""


class ChatAnswer(Reply):
    """The answer to a conversation, or a middle."""

    id: str
    """Its number."""
    object: Literal["chat.completion"] = "chat.completion"
    """Always `chat.completion`."""
    created: int
    """When, in seconds since 1970."""
    model: str
    """Who answered."""
    choices: list[Choice]
    """The answers."""
    usage: Usage
    """Tokens."""


class Delta(Reply):
    """What is new in an answer."""

    role: Literal["assistant"] | None = None
    """Who speaks, in the first part."""
    content: str | None = None
    """The next piece of text."""
    tool_calls: list[Call] | None = None
    """Whole calls."""


class PartChoice(Reply):
    """The next part of one answer."""

    index: int
    """Which answer."""
    delta: Delta
    """What is new."""
    finish_reason: FinishReason | None = None
    """Why it ended, in the last part."""


class Part(Reply):
    """One event of a streamed answer."""

    id: str
    """The answer's number."""
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    """Always `chat.completion.chunk`."""
    created: int
    """When, in seconds since 1970."""
    model: str
    """Who answers."""
    choices: list[PartChoice]
    """What is new."""
    usage: Usage | None = None
    """Tokens, in the last part."""


class ClassificationRequest(Body, StrictRequest):
    """Texts to classify."""

    model: str
    """A tuned classifier."""
    input: str | list[str]
    """One text, or several."""
    metadata: dict[str, Any] | None = None
    """Passed over here."""


class Conversation(StrictRequest):
    """A conversation to classify."""

    messages: list[Turn]
    """What was said."""


class ChatClassificationRequest(Body, StrictRequest):
    """Conversations to classify."""

    model: str
    """A tuned classifier."""
    input: Conversation | list[Conversation]
    """One conversation, or several."""


class ClassificationResult(Reply):
    """The scores of one question."""

    scores: dict[str, float]
    """How probable each label is."""


class ClassificationAnswer(Reply):
    """One result an input: for each question the scores of its labels."""

    id: str
    """Its number."""
    model: str
    """Who answered."""
    results: list[dict[str, ClassificationResult]]
    """In the order of the inputs."""
