"""Hugging Face tokenizers: `tokenizer.json`, and the chat template for the layout.

An answer's span is what the rendering grows by, from the prompt before it to the conversation
with it. An answer is trained only where the rendering of its prompt is the beginning of the whole,
and where the pieces, encoded one by one, give the ids of the whole: so the model sees in training
what it sees at inference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from finetune.errors import DataError, MissingExtra, UsageError
from finetune.files import read_json
from finetune.records import AssistantMessage, ChatRecord, Message, ToolMessage, Tools, text_of
from finetune.tokens.answers import Answer, find_trained
from finetune.tokens.chat_template import ChatTemplate, describe
from finetune.tokens.tokenizer import IGNORED, Sample, Tokenizer


class HuggingFaceTokenizer(Tokenizer):
    """A `tokenizer.json` with the chat template beside it.

    Args:
        folder: The model folder.
        name: What people call it.

    Raises:
        UsageError: No chat template, or one whose answers do not end with a control token.
        MissingExtra: The library `tokenizers` is not installed.
    """

    def __init__(self, folder: Path, *, name: str) -> None:
        try:
            import tokenizers
        except ImportError:
            raise MissingExtra("local", "tokenizers") from None
        path = folder / "tokenizer.json"
        try:
            self._model = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise UsageError(f"{path}: not a tokenizer file of Hugging Face's") from error
        self._model.no_truncation()
        self._model.no_padding()
        added = self._model.get_added_tokens_decoder().items()
        self._special = {token: text.content for token, text in added if text.special}
        config = _read_config(folder)
        tokens = _special_tokens(config)
        sources = _read_templates(folder, config, name)
        self._template = ChatTemplate(sources, tokens, name=name)
        self.name = name
        self.version = "hf"
        content = path.read_bytes() + msgspec.json.encode([sources, tokens], order="sorted")
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.vocab_size = self._model.get_vocab_size()
        first = self._model.encode("").ids[:1]
        self.bos_id = first[0] if first else -1
        self.eos_id = self._find_end()
        pad = self._model.token_to_id(tokens.get("pad_token", ""))
        self.pad_id = self.eos_id if pad is None else pad

    def encode_chat(self, record: ChatRecord) -> list[Sample]:
        """Return the samples of a conversation: one, or one for each trained answer."""
        self._refuse_controls(record)
        messages = describe(record.messages)
        answers = _find_answers(record.messages)
        trained = [answers[index] for index in find_trained(answers)]
        prompts = [
            self._template.render(messages[: answer.start], record.tools, prompt=True)
            for answer in trained
        ]
        ends = [self._template.render(messages[: a.stop], record.tools) for a in trained]
        self._refuse_loss(record, ends[-1], trained[-1].stop)
        whole = ends[-1]
        if all(map(whole.startswith, prompts)) and all(map(whole.startswith, ends)):
            groups = [(whole, list(zip(trained, prompts, ends, strict=True)))]
        else:
            each = zip(trained, prompts, ends, strict=True)
            groups = [(end, [(answer, prompt, end)]) for answer, prompt, end in each]
        return [self._sample(text, spans) for text, spans in groups]

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a text on its own, without BOS and EOS.

        Raises:
            DataError: It holds a control token, which would be read as one (`control-token`).
        """
        self._refuse_control(text, None)
        return self._encode(text)

    def encode_prompt(self, messages: Sequence[Message], tools: Tools = UNSET) -> list[int]:
        """Return the ids up to where the next assistant message starts."""
        for index, message in enumerate(messages):
            self._refuse_control(msgspec.json.encode(message).decode(), f"messages[{index}]")
        return self._encode(self._template.render(describe(messages), tools, prompt=True))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, control tokens left out."""
        text: str = self._model.decode(list(ids), skip_special_tokens=True)
        return text

    def parse(self, ids: Sequence[int]) -> AssistantMessage:
        """Return generated ids as a message; each template has its own calls, so they stay text."""
        ids = list(ids)
        if self.eos_id in ids:
            ids = ids[: ids.index(self.eos_id)]
        return AssistantMessage(content=self.decode(ids))

    @property
    def tokenizer_json(self) -> str:
        """Itself as the library `tokenizers` writes it."""
        text: str = self._model.to_str()
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return one visible string for each id; incomplete bytes as the file has them."""
        pieces = []
        for token in ids:
            piece = self._special.get(token) or self._model.decode([token])
            pieces.append(self._model.id_to_token(token) or piece if "\ufffd" in piece else piece)
        return pieces

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._model.encode(text, add_special_tokens=False).ids
        return ids

    def _sample(self, whole: str, spans: Sequence[tuple[Answer, str, str]]) -> Sample:
        """Encode a rendering piece by piece; `spans` are answers with the text before and up to."""
        ids: list[int] = []
        labels: list[int] = []
        weights: list[float] = []
        done = 0
        for answer, prompt, end in spans:
            if not end.startswith(prompt):
                raise _unfaithful(answer, "a prompt is not the beginning of the conversation")
            before = self._encode(whole[done : len(prompt)])
            inside = self._encode(whole[len(prompt) : len(end)])
            trained = self._length_to_end(inside)
            ids += before + inside
            labels += [IGNORED] * len(before) + inside[:trained]
            labels += [IGNORED] * (len(inside) - trained)
            weights += [0.0] * len(before) + [answer.weight] * trained
            weights += [0.0] * (len(inside) - trained)
            done = len(end)
        if ids != self._encode(whole):
            raise _unfaithful(spans[-1][0], "tokens reach over an answer's edge")
        plain = all(answer.weight == 1 for answer, _, _ in spans)
        starts = tuple(answer.start for answer, _, _ in spans)
        return Sample(ids, labels, None if plain else weights, spans[-1][0].stop, starts)

    def _length_to_end(self, ids: Sequence[int]) -> int:
        """Return how many ids an answer has up to its end token (white space may follow)."""
        for index in range(len(ids) - 1, -1, -1):
            if ids[index] == self.eos_id:
                return index + 1
        raise DataError("the chat template gives an answer no end token", rule="encoding")

    def _find_end(self) -> int:
        probe: list[Message] = [AssistantMessage(content="Hi")]
        user = {"role": "user", "content": "Hello"}
        prompt = self._template.render([user], prompt=True)
        whole = self._template.render([user, *describe(probe)])
        special = [token for token in self._encode(whole[len(prompt) :]) if token in self._special]
        if not whole.startswith(prompt) or not special:
            raise UsageError(
                f"{self.name}: its chat template does not end an answer with a control token",
                hint="a model trained on it would never stop: take the instruct model's template",
            )
        return special[-1]

    def _refuse_controls(self, record: ChatRecord) -> None:
        line = msgspec.json.encode(record).decode()
        if any(control in line for control in self._special.values()):
            for index, message in enumerate(record.messages):
                self._refuse_control(msgspec.json.encode(message).decode(), f"messages[{index}]")
            self._refuse_control(line, "tools")

    def _refuse_control(self, text: str, path: str | None) -> None:
        for control in self._special.values():
            if control in text:
                raise DataError(
                    f"holds the text of a control token, which would become one: `{control}`",
                    path=path,
                    rule="control-token",
                    hint="take it out of the text, or use a model with a Mistral tokenizer file",
                )

    def _refuse_loss(self, record: ChatRecord, rendered: str, stop: int) -> None:
        """Refuse templates that leave messages or tools out: some do without a word."""
        for index, message in enumerate(record.messages[:stop]):
            lost = False
            if isinstance(message, AssistantMessage):
                calls = message.tool_calls or []
                lost = index == stop - 1 and text_of(message.content).strip() not in rendered
                lost |= any(call.function.name not in rendered for call in calls)
            elif not isinstance(message, ToolMessage):
                lost = text_of(message.content).strip() not in rendered
            if lost:
                raise DataError(
                    "the chat template leaves this message out, or a part of it",
                    path=f"messages[{index}]",
                    rule="encoding",
                )
        for index, tool in enumerate(record.tools or []):
            if tool.function.name not in rendered:
                raise DataError(
                    "the chat template leaves tools out", path=f"tools[{index}]", rule="encoding"
                )


def _find_answers(messages: Sequence[Message]) -> list[Answer]:
    """Return each assistant message: templates do not join them."""
    return [
        Answer(i, i + 1, 1.0 if m.weight is UNSET else m.weight, bool(m.tool_calls))
        for i, m in enumerate(messages)
        if isinstance(m, AssistantMessage)
    ]


def _unfaithful(answer: Answer, fact: str) -> DataError:
    return DataError(
        f"the chat template cannot be trained on: {fact}",
        path=f"messages[{answer.start}]",
        rule="encoding",
        hint="give the answer weight 0, or use a model with a Mistral tokenizer file",
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.exists() else {}
    if not isinstance(config, dict):
        raise UsageError(f"{path}: not a JSON object")
    return config


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    tokens = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        value = config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            tokens[name] = text
    return tokens


def _read_templates(folder: Path, config: dict[str, Any], name: str) -> dict[str, str]:
    path = folder / "chat_template.jinja"
    found = path.read_text(encoding="utf-8") if path.exists() else config.get("chat_template")
    if isinstance(found, str):
        return {"default": found}
    if isinstance(found, list):
        return {item["name"]: item["template"] for item in found}
    raise UsageError(
        f"{name}: no chat template beside its tokenizer.json",
        hint="an instruct model has one; a base model has none",
    )
