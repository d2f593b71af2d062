"""MEASURES: what an answer is worth beside the reference. Pure functions, no models, no I/O.

Each is 0 (worst) to 1 (best) of one answer, and None where it does not apply:

| measure        | asks                                            | where the reference is    |
|----------------|-------------------------------------------------|---------------------------|
| exact_match    | is it the reference (as JSON where both are)?   | anything                  |
| json_valid     | is it one JSON object or list?                  | one                       |
| schema_valid   | does it follow the schema in the system prompt? | following one             |
| field_accuracy | which share of the top fields is right?         | an object                 |
| field_f1       | how many values are right, at every depth?      | an object                 |
| tool_names     | are the right functions called, or none?        | calls, or could be        |
| tool_calls     | which share of the calls is right?              | calls                     |
| tool_arguments | which share of the calls fits its declaration?  | calls of declared tools   |
| chrf           | how alike are the letters? (sacrebleu)          | 20 characters of text     |
| rouge_l        | how many words are common, in order?            | 20 characters of text     |
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from finetune.evaluation.answers import Answer, Call, Reference, fits, read_structure

_ABSENT = object()
_SHORTEST_TEXT = 20  # below that, an answer is a label rather than prose
_WORD = re.compile(r"\w+")


def exact_match(answer: Answer, reference: Reference) -> float:
    """Return 1 where the answer is the reference, else 0.

    Space around the text does not count; where both are JSON, neither do spaces and the order of
    keys in it; the order of tool calls does not count either.

    Example:
        >>> exact_match(Answer('{"b":2, "a":1}'), Reference(Answer('{"a": 1, "b": 2}')))
        1.0
    """
    right = reference.answer
    if right.calls or answer.calls:
        wanted, got = len(right.calls), len(answer.calls)
        return float(wanted == got == _count_same(answer.calls, right.calls))
    if answer.text.strip() == right.text.strip():
        return 1.0
    structure = read_structure(right.text)
    return float(structure is not None and _same(read_structure(answer.text), structure))


def json_valid(answer: Answer, reference: Reference) -> float | None:
    """Return 1 where the answer is a JSON object or list, else 0; None where none was wanted.

    Example:
        >>> json_valid(Answer('{"a": 1'), Reference(Answer('{"a": 1}')))
        0.0
    """
    if _structure(reference.answer) is None:
        return None
    return float(_structure(answer) is not None)


def schema_valid(answer: Answer, reference: Reference) -> float | None:
    """Return 1 where the answer follows the record's JSON Schema, else 0; None without one."""
    if reference.schema is None:
        return None
    value = _structure(answer)
    return float(value is not None and fits(value, reference.schema))


def field_accuracy(answer: Answer, reference: Reference) -> float | None:
    """Return the share of fields that are right, of those in either object; None without one.

    Counting the fields of both, so that invented ones cost as much as missing ones.

    Example:
        >>> field_accuracy(Answer('{"a": 1, "b": 3}'), Reference(Answer('{"a": 1, "b": 2}')))
        0.5
    """
    wanted, got = _structure(reference.answer), _structure(answer)
    if not isinstance(wanted, dict) or not wanted:
        return None
    if not isinstance(got, dict):
        return 0.0
    keys = wanted.keys() | got.keys()
    right = sum(_same(got.get(key, _ABSENT), wanted.get(key, _ABSENT)) for key in keys)
    return right / len(keys)


def field_f1(answer: Answer, reference: Reference) -> float | None:
    """Return the F1 of the values at every depth of an object; None where none was wanted.

    A value counts with the keys above it; where it stands in a list does not count.

    Example:
        >>> field_f1(Answer('{"a": {"b": 1}}'), Reference(Answer('{"a": {"b": 1, "c": 2}}')))
        0.6666666666666666
    """
    wanted, got = _structure(reference.answer), _structure(answer)
    if not isinstance(wanted, dict) or not wanted:
        return None
    right, found = Counter(_leaves(wanted)), Counter(_leaves(got) if isinstance(got, dict) else ())
    return 2 * (right & found).total() / (right.total() + found.total())


def tool_names(answer: Answer, reference: Reference) -> float | None:
    """Return 1 where the functions that should be are called, or none, in any order; else 0."""
    wanted = reference.answer.calls
    if not wanted and not reference.tools:
        return None
    return float(Counter(c.name for c in answer.calls) == Counter(c.name for c in wanted))


def tool_calls(answer: Answer, reference: Reference) -> float | None:
    """Return the share of calls that are right, of those in either, in any order.

    Right is the function with equal arguments. None where no call was wanted.
    """
    wanted = reference.answer.calls
    if not wanted:
        return None
    same = _count_same(answer.calls, wanted)
    return same / (len(wanted) + len(answer.calls) - same)


def tool_arguments(answer: Answer, reference: Reference) -> float | None:
    """Return the share of calls to declared tools with the arguments these declare.

    0 where nothing is called; None where no call of a declared tool was wanted.
    """
    if not any(call.name in reference.tools for call in reference.answer.calls):
        return None
    good = sum(
        call.name in reference.tools
        and isinstance(call.arguments, dict)
        and fits(call.arguments, reference.tools[call.name])
        for call in answer.calls
    )
    return good / len(answer.calls) if answer.calls else 0.0


def chrf(answer: Answer, reference: Reference) -> float | None:
    """Return chrF (n-grams of 6 letters at most, beta 2) from 0 to 1; None where it says nothing.

    It is a record's own score, as sacrebleu's `sentence_score` gives it.
    """
    metric = _load_chrf()
    if metric is None or not _is_prose(reference):
        return None
    return float(metric.sentence_score(answer.text, [reference.answer.text]).score) / 100


def rouge_l(answer: Answer, reference: Reference) -> float | None:
    """Return ROUGE-L: F1 of the longest common sequence of words; None where it says nothing.

    Words are runs of letters and digits of any script, in any case, and are not stemmed.
    """
    lcs = _load_lcs()
    if lcs is None or not _is_prose(reference):
        return None
    wanted, got = _words(reference.answer.text), _words(answer.text)
    return 2 * float(lcs(got, wanted)) / (len(got) + len(wanted)) if wanted else None


MEASURES: dict[str, Callable[[Answer, Reference], float | None]] = {
    "exact_match": exact_match,
    "json_valid": json_valid,
    "schema_valid": schema_valid,
    "field_accuracy": field_accuracy,
    "field_f1": field_f1,
    "tool_names": tool_names,
    "tool_calls": tool_calls,
    "tool_arguments": tool_arguments,
    "chrf": chrf,
    "rouge_l": rouge_l,
}


def compare(answer: Answer, reference: Reference) -> dict[str, float]:
    """Return every measure that applies."""
    values = {name: measure(answer, reference) for name, measure in MEASURES.items()}
    return {name: value for name, value in values.items() if value is not None}


def list_missing(references: Iterable[Reference]) -> list[str]:
    """Return the measures that apply to some reference, but whose library is not installed."""
    if not any(map(_is_prose, references)):
        return []
    libraries = {"chrf": _load_chrf(), "rouge_l": _load_lcs()}
    return [name for name, library in libraries.items() if library is None]


def _structure(answer: Answer) -> dict[str, Any] | list[Any] | None:
    return None if answer.calls else read_structure(answer.text)


def _is_prose(reference: Reference) -> bool:
    text = reference.answer.text
    return len(text.strip()) >= _SHORTEST_TEXT and read_structure(text) is None


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


@functools.cache
def _load_chrf() -> Any:
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        return None
    return CHRF()


@functools.cache
def _load_lcs() -> Any:
    try:
        from rapidfuzz.distance import LCSseq
    except ImportError:
        return None
    return LCSseq.similarity


def _count_same(got: Iterable[Call], wanted: Iterable[Call]) -> int:
    """Return how many calls are in both, each counted once."""
    left, same = list(wanted), 0
    for call in got:
        for place, other in enumerate(left):
            if call.name == other.name and _same(call.arguments, other.arguments):
                del left[place]
                same += 1
                break
    return same


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: `true` is not 1, but 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _leaves(value: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return (keys above it, is it true or false, value) of each value in an object."""
    leaves: list[tuple[Any, ...]] = []
    todo: list[tuple[tuple[str | None, ...], Any]] = [((), value)]
    while todo:
        path, item = todo.pop()
        if isinstance(item, dict) and item:
            todo += [((*path, key), inner) for key, inner in item.items()]
        elif isinstance(item, list) and item:
            todo += [((*path, None), inner) for inner in item]
        else:  # an empty object or list is a value too
            empty = isinstance(item, dict | list)
            leaves.append((path, type(item) if empty else isinstance(item, bool), empty or item))
    return leaves
