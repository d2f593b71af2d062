"""Repairs of texts. They change what is trained, so they are made only where they are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from finetune.checks.fixes.walk import Value, messages_of
from finetune.checks.texts import TEMPLATE_END, TEMPLATE_START
from finetune.errors import MissingExtra

_LONGEST = 20  # characters of a closing mark, at most


def _change_texts(value: Value, change: Callable[[str], str]) -> None:
    """Change every text that a model reads or writes: contents, chunks, documents."""
    if isinstance(value.get("text"), str):
        value["text"] = change(value["text"])
    for message in messages_of(value):
        content = message.get("content")
        if isinstance(content, str):
            message["content"] = change(content)
        elif isinstance(content, list):
            for chunk in content:
                _change_chunk(chunk, change)


def _change_chunk(chunk: Any, change: Callable[[str], str]) -> None:
    if isinstance(chunk, dict) and isinstance(chunk.get("text"), str):
        chunk["text"] = change(chunk["text"])


def strip_template(value: Value) -> None:
    """Take the markers of chat templates off both ends of the messages.

    A marker in the middle may part two turns: that is nobody's to guess.
    """
    if "labels" in value or "messages" in value or "prompt" in value:
        _change_texts(value, _strip)


def _strip(text: str) -> str:
    found = TEMPLATE_START.match(text)
    start = found.end() if found else 0
    end = _find_end(text, start)
    if end == len(text):
        return text[start:] or text
    return text[start:end].rstrip() or text


def _find_end(text: str, start: int) -> int:
    """Return where the marks at the end of a text begin, in time linear in their number."""
    end = len(text)
    while True:
        last = end
        while last > start and text[last - 1].isspace():
            last -= 1
        found = TEMPLATE_END.search(text, max(start, last - _LONGEST), end)
        if not found:
            return end
        end = found.start()


def load_encoding_repair() -> Callable[[str], str]:
    """Return ftfy's repair of texts that were decoded with the wrong encoding, and nothing else.

    Raises:
        MissingExtra: ftfy is not installed.
    """
    try:
        from ftfy import fix_encoding
    except ImportError:
        raise MissingExtra("clean", "ftfy") from None
    return fix_encoding  # type: ignore[no-any-return]


def repair_encoding(value: Value) -> None:
    """Decode texts again that were decoded with the wrong encoding."""
    _change_texts(value, load_encoding_repair())
