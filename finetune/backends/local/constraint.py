"""Constraints: answers that are JSON, fit a schema, or call a tool, token by token.

llguidance says which tokens may come next; it reads schemas in linear time, and follows no
reference out of them (llguidance 1.9.1).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from finetune.errors import MissingExtra, UsageError
from finetune.tokens import Tokenizer

# A model that is free to may write white space for ever.
_SPACES = {"whitespace_pattern": r"[ \n]{0,12}"}


class Grammar:
    """What the rest of an answer may be.

    Args:
        tokenizer: The model's.
        text: A grammar of llguidance.

    Raises:
        UsageError: The grammar can't be followed; nothing of it is quoted.
    """

    def __init__(self, tokenizer: Tokenizer, text: str) -> None:
        from llguidance import LLMatcher

        self._matcher = LLMatcher(_read_vocabulary(tokenizer), text)
        self._eos = tokenizer.eos_id
        if self._matcher.is_error():
            raise UsageError("this JSON Schema can't be followed")

    def forbid(self, logits: Any) -> None:
        """Set the logits of tokens that can't come next to -inf, in place; shape [vocabulary]."""
        import torch

        if self._matcher.is_stopped():
            end = logits[self._eos].clone()
            logits.fill_(-torch.inf)
            logits[self._eos] = end
            return
        words = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        bits = (words[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
        allowed = bits.flatten()[: len(logits)].bool().to(logits.device)
        logits[: len(allowed)].masked_fill_(~allowed, -torch.inf)
        logits[len(allowed) :] = -torch.inf

    def accept(self, token: int) -> None:
        """Take note of the token that was chosen."""
        self._matcher.consume_token(token)


def follow_schema(tokenizer: Tokenizer, schema: Mapping[str, Any]) -> Grammar:
    """Return the constraint of an answer that fits a JSON Schema.

    Raises:
        UsageError: The schema can't be followed, or the tokenizer has no bytes for its ids.
    """
    matcher = _library().LLMatcher
    try:
        text = matcher.grammar_from_json_schema(json.dumps(schema), overrides=_SPACES)
    except ValueError:
        raise UsageError("this JSON Schema can't be followed") from None
    return Grammar(tokenizer, text)


def force_calls(
    tokenizer: Tokenizer, tools: Sequence[Mapping[str, Any]], *, parallel: bool = True
) -> Grammar:
    """Return the constraint of an answer that calls at least one of these tools.

    Args:
        tokenizer: The model's.
        tools: Functions: name and parameters.
        parallel: There may be several calls.

    Raises:
        UsageError: A schema can't be followed, or the tokenizer has no tool calls.
    """
    matcher = _library().LLMatcher
    controls = tokenizer.call_controls
    if controls is None or controls.calls is None:
        raise UsageError(f"{tokenizer.name}: no control tokens for tool calls")
    rules = {f"args{place}": _inside(tool["parameters"]) for place, tool in enumerate(tools)}
    if controls.bracketed:
        calls = [
            {
                "type": "object",
                "properties": {"name": {"const": tool["name"]}, "arguments": tool["parameters"]},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for tool in tools
        ]
        listed: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"anyOf": calls}}
        listed |= {} if parallel else {"maxItems": 1}
        rules = {"listed": _inside(listed)}
        start = f"<[{controls.calls}]> listed"
    else:
        between = f"<[{controls.call_id}]> ID" if controls.call_id is not None else ""
        heads = [
            f"{json.dumps(tool['name'])} {between} <[{controls.arguments}]> args{place}"
            for place, tool in enumerate(tools)
        ]
        start = f"( <[{controls.calls}]> ( {' | '.join(heads)} ) )" + ("+" if parallel else "")
        if between:
            rules["ID"] = "/[A-Za-z0-9]{9}/"
    lines = [f"start: {start}", *(f"{name}: {rule}" for name, rule in rules.items())]
    return Grammar(tokenizer, matcher.grammar_from_lark("\n".join(lines)))


def _inside(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': _SPACES})}"


def _library() -> Any:
    try:
        import llguidance
    except ImportError:
        raise MissingExtra("server", "llguidance") from None
    return llguidance


class _Vocabulary:
    """A tokenizer as llguidance takes it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        known = tokenizer.vocabulary()
        self.eos_token_id, self.bos_token_id = tokenizer.eos_id, max(tokenizer.bos_id, 0)
        self.special_token_ids = [place for place, token in enumerate(known) if token is None]
        self.tokens = [b"<control>" if token is None else token or b"<nothing>" for token in known]

    def __call__(self, text: bytes | str) -> list[int]:
        plain = text.decode("utf-8", "ignore") if isinstance(text, bytes) else text
        return self._tokenizer.fim_suffix(plain)  # no space is put in front


@functools.lru_cache(maxsize=2)
def _read_vocabulary(tokenizer: Tokenizer) -> Any:
    library = _library()
    if (text := tokenizer.tokenizer_json) is not None:
        return library.LLTokenizer(text, n_vocab=tokenizer.vocab_size, eos_token=tokenizer.eos_id)
    return library.LLTokenizer(
        library.TokenizerWrapper(_Vocabulary(tokenizer)), n_vocab=tokenizer.vocab_size
    )
