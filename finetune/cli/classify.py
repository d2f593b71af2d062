"""`finetune classify`: label texts with a run's classifier."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from finetune.cli.console import Console, output_options
from finetune.cli.options import RUNS, call_run
from finetune.errors import DataError, UsageError
from finetune.text import safe

if TYPE_CHECKING:
    from finetune.backends.local.classifier import Scores
    from finetune.recipe.tree import ClassifierTarget
    from finetune.records import ClassifierRecord

_SHOWN = 60  # characters of a text beside its labels


@click.command("classify")
@click.argument("run")
@click.argument("text", nargs=-1)
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A text a line, or JSON Lines with `text` or `messages`; `-` is standard input.",
)
@output_options
def command(run: str, text: tuple[str, ...], path: Path | None, console: Console) -> None:
    """Label texts with a run's classifier; without TEXT and --file, what stands on stdin.

    RUN is a path, a name, a unique prefix, or `last`. With --json a line for each text, in the
    given order, with the score of each label: those of a target with one label a text add up to
    1; of a target with several, labels of 0.5 and more are given.
    """
    from finetune.runs import find_run

    found = find_run(run, RUNS)
    if path is not None and text:
        raise UsageError("classify: takes either TEXT or --file")
    if not text and path is None and sys.stdin.isatty():
        raise UsageError("classify: no text", hint="give TEXT, `--file FILE`, or pipe texts in")
    rows = list(enumerate(map(_as_record, text), 1)) if text else list(_read(path))
    from finetune.backends.local.classifier import Classifier

    with console.progress() as progress:
        classifier = Classifier(found.recipe, found.adapter, progress=progress)
        ids = []
        for number, record in rows:
            try:
                ids.append(classifier.encode(record))
            except DataError as error:
                raise error.at(str(path or "-"), number) from None
        scores = classifier.classify(ids, progress=progress)
    for (number, record), one in zip(rows, scores, strict=True):
        named = {target.name: _choose(target, one) for target in classifier.head.targets}
        console.emit({"line": number, "labels": named, "scores": one})
        console.show(f"{_describe(named, one)}  {_begin(record)}")
    console.next(f"finetune export {call_run(found)} --to adapter -o DIR")


def _read(path: Path | None) -> Iterator[tuple[int, ClassifierRecord]]:
    from finetune.files import open_bytes, open_stream, read_lines

    here = path is None or str(path) == "-"
    with open_stream(sys.stdin.buffer, "-") if here or path is None else open_bytes(path) as file:
        for line in read_lines(file):
            if line.data is None:
                raise DataError("the line is too long", file=str(path or "-"), line=line.number)
            if line.data.strip():
                yield line.number, _parse(line.data, str(path or "-"), line.number)


def _parse(data: bytes, name: str, number: int) -> ClassifierRecord:
    """Return the record of a line: JSON, else a text as it stands."""
    from finetune.records import from_object

    if not data.lstrip().startswith(b"{"):
        try:
            return _as_record(data.decode().strip())
        except UnicodeDecodeError:
            raise DataError("is not UTF-8", file=name, line=number) from None
    try:
        row = msgspec.json.decode(data)
        record = from_object("classifier", {"labels": {}, **row})
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise DataError("is no object with `text` or `messages`", file=name, line=number) from None
    if (record.text is msgspec.UNSET) == (record.messages is msgspec.UNSET):  # type: ignore[union-attr]
        raise DataError("needs either `text` or `messages`", file=name, line=number)
    if record.messages == [] or record.text == "":  # type: ignore[union-attr]
        raise DataError("holds nothing to label", file=name, line=number)
    return record  # type: ignore[return-value]


def _as_record(text: str) -> ClassifierRecord:
    from finetune.records import ClassifierRecord

    if not text.strip():
        raise UsageError("classify: an empty text")
    return ClassifierRecord(text=text, labels={})


def _choose(target: ClassifierTarget, scores: Scores) -> str | list[str]:
    """Return the likeliest label, or those of 0.5 and more."""
    from finetune.evaluation.labels import THRESHOLD

    found = scores[target.name]
    if target.loss_function == "single_class":
        return max(found, key=lambda label: found[label])
    return [label for label, score in found.items() if score >= THRESHOLD]


def _describe(named: dict[str, Any], scores: Scores) -> str:
    parts = []
    for target, labels in named.items():
        chosen = [labels] if isinstance(labels, str) else labels
        shown = ", ".join(f"{safe(one, 60)} {scores[target][one]:.2f}" for one in chosen)
        parts.append(f"{safe(target, 40)}: {shown or '–'}")
    return "; ".join(parts)


def _begin(record: ClassifierRecord) -> str:
    from finetune.records import text_of

    text = record.text if isinstance(record.text, str) else ""
    for message in record.messages or []:
        text = text_of(message.content)
    return safe(" ".join(text.split()), _SHOWN)
