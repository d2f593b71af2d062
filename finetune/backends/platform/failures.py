"""Failures: what a service says about a job that failed, with the place in the user's own data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune.backends.platform.replies import Job
from finetune.backends.platform.uploads import Part
from finetune.errors import TrainingError
from finetune.files import read_journal
from finetune.runs import Run
from finetune.text import safe

_LINE = re.compile(r"\bline[s]?\s*[:#]?\s*(\d+)", re.IGNORECASE)
_MOST_TEXT = 1000  # characters of what the service says
_MOST_PLACES = 5


def describe_failure(
    job: Job, run: Run, parts: Sequence[Part], file_ids: Mapping[str, str]
) -> TrainingError:
    """Return the error of a job that ended without a model.

    Args:
        job: The job.
        run: The run that made it.
        parts: Its files.
        file_ids: Their ids at the service, by name.
    """
    said = list(dict.fromkeys(_read_texts(job.events)))
    text = safe(" ".join("; ".join(said).split()), _MOST_TEXT)
    message = f"job {safe(job.id)}: {safe(job.status)}" + (f": {text}" if text else "")
    places = list(dict.fromkeys(_find_places(said, run, parts, file_ids)))[:_MOST_PLACES]
    hint = "; ".join(places) if places else None
    if job.status == "CANCELLED":
        hint = "`finetune run RECIPE --fresh` makes a new job"
    elif hint is None and job.status == "FAILED_VALIDATION":
        hint = "`finetune validate` checks the files that were uploaded, in the run's dataset"
    return TrainingError(message, hint=hint or "`finetune run RECIPE --fresh` makes a new job")


def _read_texts(events: Sequence[Mapping[str, Any]] | None) -> Iterator[str]:
    """Yield what the events say beside their status; where is not documented."""
    for event in sorted(events or [], key=_when):
        yield from _walk(event.get("data"))


def _when(event: Mapping[str, Any]) -> float:
    when = event.get("created_at")
    return float(when) if isinstance(when, int | float) else 0.0


def _walk(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _walk(one, str(name))
    elif isinstance(value, list):
        for one in value:
            yield from _walk(one, key)
    elif isinstance(value, str) and key not in ("status", "object", "id", "type"):
        yield value


def _find_places(
    said: Sequence[str], run: Run, parts: Sequence[Part], file_ids: Mapping[str, str]
) -> Iterator[str]:
    """Yield the lines of the user's own files that are spoken of."""
    train = [part for part in parts if part.weight is not None]
    wanted: dict[tuple[str, int], str] = {}
    for text in said:
        named = [p for p in parts if p.name in text or file_ids.get(p.name, "\0") in text]
        part = next(iter(named or (train if len(train) == 1 else [])), None)
        for match in _LINE.finditer(text):
            line = part.find_line(int(match[1])) if part is not None else None
            if part is not None and line is not None:
                wanted[part.path.name, line] = f"line {match[1]} is {part.path}:{line}"
    if not wanted:
        return
    origins = read_journal(run.dataset / "origins.jsonl")
    rows = {(one["output"], one["line"]): f"{one['file']}:{one['row']}" for one in origins}
    for place, words in wanted.items():
        yield words + (f", made of {rows[place]}" if place in rows else "")
