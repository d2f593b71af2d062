"""`finetune inspect`: a record's exact tokens, the trained ones marked."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from finetune import records
from finetune.cli.console import Console, has_colour, output_options
from finetune.errors import DataError, UsageError
from finetune.files import open_bytes, read_lines
from finetune.text import plural, safe

if TYPE_CHECKING:
    from finetune.tokens import Sample, Tokenizer

_VISIBLE = str.maketrans({"\n": "⏎\n", "\t": "⇥", "\r": "␍"})
_OPEN, _CLOSE = "⟦", "⟧"  # around trained tokens where there are no colours


@click.command("inspect")
@click.argument("place", metavar="FILE[:LINE]")
@click.option("--model", required=True, help="Catalog name, model folder or tokenizer file.")
@output_options
def command(place: str, model: str, console: Console) -> None:
    """Show a record's exact tokens: the trained ones green, or inside ⟦ ⟧."""
    from finetune.tokens import load_tokenizer
    from finetune.tokens.sides import name_answers

    path, wanted = split_place(place)
    lines = _read_records(path, wanted)  # a missing file is told before the tokenizer loads
    first = next(lines, None)
    if first is None:
        what = "no record in this file" if wanted is None else "no such line"
        raise UsageError(f"{place}: {what}")
    tokenizer = load_tokenizer(model)
    tokens = trained = 0
    for number, record in (first, *lines):
        try:
            samples = tokenizer.encode(record)
        except DataError as error:
            raise DataError(
                error.fact,
                file=str(path),
                line=number,
                path=error.path,
                rule=error.rule,
                hint=error.hint,
            ) from None
        for index, sample in enumerate(samples, start=1):
            tokens += len(sample)
            trained += sample.count_trained()
            name = dict(enumerate(name_answers(record))).get(sample.side)
            show_sample(
                console, tokenizer, sample, line=number, index=index, of=len(samples), answer=name
            )
    console.say(f"{plural(tokens, 'token')}, {trained:,} trained; tokenizer {tokenizer.version}")
    console.next(shlex.join(["finetune", "validate", str(path), "--for", model]))


def split_place(place: str) -> tuple[Path, int | None]:
    """Split `FILE:LINE` from the right; a file that has this very name wins.

    Example:
        >>> split_place("data/chats.jsonl:12")
        (PosixPath('data/chats.jsonl'), 12)
    """
    match = re.fullmatch(r"(.+):(\d+)", place)
    if match is None or Path(place).exists():
        return Path(place), None
    return Path(match[1]), int(match[2])


def _read_records(path: Path, wanted: int | None) -> Iterator[tuple[int, records.Record]]:
    with open_bytes(path) as file:
        for line in read_lines(file):
            if wanted is not None and line.number != wanted:
                continue
            if wanted is None and line.data is not None and not line.data.strip():
                continue
            yield line.number, _decode(line.data, path, line.number)
            if line.number == wanted:
                return


def _decode(data: bytes | None, path: Path, number: int) -> records.Record:
    try:
        kind = records.kind_of(msgspec.json.decode(data or b""))
        if kind is not None:
            return records.decode(kind, data or b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    raise DataError(
        "not a record",
        file=str(path),
        line=number,
        hint=f"`finetune validate {path}` names the fault; of raw data show what `finetune convert`"
        " makes of them",
    )


def show_sample(
    console: Console,
    tokenizer: Tokenizer,
    sample: Sample,
    *,
    line: int,
    index: int,
    of: int,
    answer: str | None = None,
) -> None:
    """Print one sample: a JSON line with `--json`, else its text with the trained tokens marked.

    `answer` is the key of the answer that it trains, where its record compares some.
    """
    from finetune.tokens import IGNORED

    pieces = tokenizer.pieces(sample.input_ids)
    console.emit(
        {
            "line": line,
            "sample": index,
            **({"answer": answer} if answer else {}),
            "input_ids": sample.input_ids,
            "labels": sample.labels,
            "weights": sample.weights,
            "tokens": pieces,
        }
    )
    count = f"{plural(len(sample), 'token')}, {sample.count_trained():,} trained"
    which = f"sample {index}/{of}" + (f" (`{answer}`)" if answer else "")
    console.show(f"line {line}, {which}: {count}", style="bold")
    trained = [label != IGNORED for label in sample.labels]
    console.show(mark(pieces, trained, colour=has_colour(sys.stdout)) + "\n")


def mark(pieces: list[str], trained: list[bool], *, colour: bool) -> str:
    """Return the pieces as one text, runs of trained ones green or in brackets."""
    parts: list[str] = []
    inside = False
    for piece, now in zip(pieces, trained, strict=True):
        shown = safe(piece, len(piece) + 1).translate(_VISIBLE)
        if colour:
            parts.append(click.style(shown, fg="green") if now else click.style(shown, dim=True))
            continue
        if now != inside:
            parts.append(_OPEN if now else _CLOSE)
            inside = now
        parts.append(shown)
    return "".join(parts) + (_CLOSE if inside else "")
