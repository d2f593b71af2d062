"""Fill in the middle: where a document is cut, and how its parts are laid out.

Mistral's layout is `<s>[SUFFIX]suffix[PREFIX]prefix`, and the model goes on with the middle and
`</s>` (mistral-common 1.13.1, `encode_fim`).
"""

from __future__ import annotations

import hashlib
import random
import re
from typing import NamedTuple

from finetune.tokens.tokenizer import IGNORED, Sample, Tokenizer

_MOST_LINES = 8  # whole lines that are left out at once
_WORD = re.compile(r"(?<!\w)\w|(?<=\w)\W")  # where a word begins or has just ended


class Cut(NamedTuple):
    """A document in three parts; one after the other they are its text."""

    prefix: str
    middle: str
    suffix: str


def cut_text(text: str, seed: str) -> Cut | None:
    """Return a document cut where somebody may be typing, None where it has too little text.

    With equal chance the middle is some whole lines, the rest of a line from a word on, or the
    block that is indented under a line. It always holds more than white space.

    Args:
        text: The document.
        seed: Decides the cut, together with the text.
    """
    lines = text.splitlines(keepends=True)
    full = [number for number, line in enumerate(lines) if line.strip()]
    if not full:
        return None
    chance = make_chance(text, seed)
    start = chance.choice(full)
    kind = chance.choice((_whole_lines, _rest_of_line, _block))
    begin, end = kind(lines, start, chance)
    before = sum(map(len, lines[:start]))
    return Cut(text[: before + begin], text[before + begin : before + end], text[before + end :])


def make_chance(text: str, seed: str) -> random.Random:
    """Return chance that follows from a text and a seed alone."""
    data = f"{seed}\0".encode() + text.encode("utf-8", "surrogatepass")
    return random.Random(hashlib.blake2b(data, digest_size=16).digest())  # noqa: S311 (no secret)


def _whole_lines(lines: list[str], start: int, chance: random.Random) -> tuple[int, int]:
    count = chance.randint(1, _MOST_LINES)
    size = sum(map(len, lines[start : start + count]))
    last = lines[min(start + count, len(lines)) - 1]
    return 0, size - (len(last) - len(last.rstrip("\r\n")))  # the suffix begins with the line end


def _rest_of_line(lines: list[str], start: int, chance: random.Random) -> tuple[int, int]:
    line = lines[start].rstrip("\r\n")
    solid = len(line.rstrip())
    places = [found.start() for found in _WORD.finditer(line) if found.start() < solid]
    return chance.choice(places or [0]), len(line)


def _block(lines: list[str], start: int, chance: random.Random) -> tuple[int, int]:
    depth = _indent(lines[start])
    stop = last = start + 1
    while stop < len(lines) and (not lines[stop].strip() or _indent(lines[stop]) > depth):
        stop += 1
        if lines[stop - 1].strip():
            last = stop
    if last == start + 1:  # nothing is indented under this line
        return _rest_of_line(lines, start, chance)
    body = sum(map(len, lines[start:last]))
    end = lines[last - 1]
    return len(lines[start]), body - (len(end) - len(end.rstrip("\r\n")))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def encode_document(tokenizer: Tokenizer, text: str, ratio: float, seed: str) -> Sample:
    """Return a document as the model is to see it: as it is, or as a middle to fill in.

    Args:
        tokenizer: The model's; from v3 on.
        text: The document.
        ratio: Share of the documents that are cut.
        seed: Decides, together with the text, whether and where it is cut.

    Returns:
        A sample in which everything is trained but BOS and the two control tokens.

    Raises:
        UsageError: The tokenizer has no layout for it.
    """
    if not ratio or make_chance(text, f"{seed}/cut").random() >= ratio:
        return tokenizer.encode_text(text)
    cut = cut_text(text, seed)
    if cut is None:
        return tokenizer.encode_text(text)
    prompt = tokenizer.fim_prompt(cut.prefix, cut.suffix)
    controls = {tokenizer.bos_id, *tokenizer.fim_controls}
    answer = [*tokenizer.fim_middle(cut.middle), tokenizer.eos_id]
    labels = [IGNORED if token in controls else token for token in prompt]
    return Sample([*prompt, *answer], labels + answer)
