r"""Ranked answers: several answers to one prompt, each with a score or a rank.

| row                                                        | records                         |
| ---------------------------------------------------------- | ------------------------------- |
| `{"prompt": "P", "responses": ["A", "B"], "scores": [2, 1]}` | a pair: `A` before `B`          |
| `{"prompt": "P", "answers": [{"answer": "A", "rank": 1}, …]}` | ranks: the lowest is the best   |
| `{"completions": [{"response", "overall_score"}, …], …}`   | scores: the highest is the best |
| scores 3, 2, 1                                             | 3 before 2, 3 before 1          |
| scores 3, 3, 1                                             | each 3 before 1                 |
| scores 2, 2                                                | rejected: `tied-answers`        |
| fewer scores than answers, a score that is no number       | rejected                        |

The best is paired with each worse answer: pairs among the worse ones would teach to prefer an
answer that is not the best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from finetune.converters.answers import find_prompt, read_part, read_prompt
from finetune.converters.reading import ConvertError, Detection, as_object, list_at, type_name
from finetune.records import PreferenceRecord, Record
from finetune.text import plural

FIELDS = ("prompt", "answers", "scores", "ranks", "system", "context", "tools")
_LISTS = ("answers", "responses", "completions", "outputs", "candidates", "generations")
_MARKS = {
    "scores": ("scores", "score", "ratings", "rating", "overall_score", "rewards", "reward"),
    "ranks": ("ranks", "rank", "ranking"),
}
_TEXTS = ("answer", "response", "text", "content", "completion", "output")


def recognise(rows: Sequence[Any], columns: Mapping[str, str]) -> Detection | None:
    """Return how `rows` are read, when they are lists of marked answers."""
    row = next((row for row in rows if isinstance(row, dict)), {})
    found = dict(columns)
    if "answers" not in found:
        there = [name for name in _LISTS if isinstance(row.get(name), list)]
        if len(there) != 1:
            return None
        found["answers"] = there[0]
    answers = row.get(found["answers"])
    if not isinstance(answers, list) or not answers:
        return None
    marks = answers[0] if isinstance(answers[0], dict) else row
    if not {"scores", "ranks"} & found.keys():
        marked = [(part, n) for part, names in _MARKS.items() for n in names if n in marks]
        if len(marked) != 1:
            return None
        found |= dict(marked)
    prompted = find_prompt(row, found)
    if prompted is None or "prompt" not in prompted:
        return None
    mark = prompted.get("scores") or prompted["ranks"]
    reason = f"`{prompted['answers']}` with `{mark}`"
    return Detection("ranked", "preference", prompted, reason)


def convert(value: Any, source: Detection) -> list[Record]:
    """Return the pairs of one row: each of the best answers with each that is worse.

    Raises:
        ConvertError: The answers are not marked, or all alike.
    """
    row = as_object(value)
    before = read_prompt(row, source)
    if not before.prompt:
        raise ConvertError(
            "expected text or messages, got nothing",
            path=source.column("prompt"),
            rule="missing-key",
        )
    column = source.column("answers")
    answers = list_at(row, column)
    marks = _marks(row, answers, source)
    if len(marks) < 2 or min(marks) == max(marks):
        raise ConvertError("no answer is better than another", path=column, rule="tied-answers")
    length = len(before.messages())
    made = [
        before.with_answer(_read_answer(answer, f"{column}[{number}]"))
        for number, answer in enumerate(answers)
    ]
    best = max(marks)
    return [
        PreferenceRecord(
            prompt=made[good].messages[:length],
            chosen=made[good].messages[length:],
            rejected=made[worse].messages[length:],
            tools=made[good].tools,
        )
        for good in range(len(made))
        for worse in range(len(made))
        if marks[good] == best and marks[worse] < best
    ]


def _read_answer(answer: Any, path: str) -> Any:
    if isinstance(answer, dict) and "role" not in answer and "from" not in answer:
        there = [name for name in _TEXTS if name in answer]
        if len(there) != 1:
            raise ConvertError(f"expected one of {', '.join(_TEXTS)}", path=path, rule="type")
        return read_part(answer[there[0]], "assistant", f"{path}.{there[0]}")
    return read_part(answer, "assistant", path)


def _marks(row: dict[str, Any], answers: list[Any], source: Detection) -> list[float]:
    """Return a number for each answer: the higher, the better."""
    part = "ranks" if "ranks" in source.columns else "scores"
    name, column = source.column(part), source.column("answers")
    sign = -1 if part == "ranks" else 1
    if name not in row and any(isinstance(answer, dict) for answer in answers):
        values = [as_object(answer, f"{column}[{n}]").get(name) for n, answer in enumerate(answers)]
        paths = [f"{column}[{number}].{name}" for number in range(len(answers))]
    else:
        values = list_at(row, name)
        paths = [f"{name}[{number}]" for number in range(len(values))]
    if len(values) != len(answers):
        raise ConvertError(
            f"{plural(len(values), 'mark')} for {plural(len(answers), 'answer')}",
            path=name,
            rule="answer-marks",
        )
    return [sign * _number(value, path) for value, path in zip(values, paths, strict=True)]


def _number(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConvertError(
            f"expected a number, got {type_name(value)}", path=path, rule="answer-marks"
        )
    return value
