"""Converters: raw row → records. No I/O.

CONVERTERS is the whole list. A new format is one module with `recognise` and `convert`, one line
here, and a folder of cases under `tests/converters/cases/`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from finetune.converters import (
    alpaca,
    anthropic,
    bfcl,
    classification,
    code,
    glaive,
    hermes,
    laplateforme,
    logs,
    oasst,
    oasst_table,
    openai,
    pairs,
    preference,
    ranked,
    rating,
    sharegpt,
    text,
    toolace,
    trl,
    turns,
    xlam,
)
from finetune.converters.reading import ConvertError, Detection, LeftOut, columns_of
from finetune.errors import UsageError
from finetune.records import KINDS, Record, kind_of
from finetune.text import did_you_mean, visible

__all__ = [
    "CONVERTERS",
    "ConvertError",
    "Converter",
    "Detection",
    "LeftOut",
    "detect",
    "find_converter",
    "keys_of",
]


class Converter(NamedTuple):
    """One row of CONVERTERS.

    Attributes:
        convert: Row → records; raises `ConvertError`.
        recognise: The first rows and `columns` → how they are read, or None.
        fields: What `columns` may name.
        keys: The keys of a row that are used (all where empty).
        kinds: The kinds of record that come out.
        summary: One line for people.
        group: For formats of which several rows make a record: row → where it belongs; raises
            `ConvertError`. `convert` then takes the list of the rows that belong together.
        unused: A row that was converted → what inside it is not used, beside keys of the row.
    """

    convert: Callable[[Any, Detection], list[Record]]
    recognise: Callable[[Sequence[Any], Mapping[str, str]], Detection | None]
    fields: tuple[str, ...]
    keys: tuple[str, ...]
    kinds: tuple[str, ...]
    summary: str
    group: Callable[[Any, Detection], turns.Place] | None = None
    unused: Callable[[Any, Detection], Iterable[str]] | None = None


def _row(module: Any, summary: str, *extra: str, kinds: tuple[str, ...] = ("chat",)) -> Converter:
    keys = (*getattr(module, "KEYS", module.FIELDS), *extra) if module.FIELDS else ()
    group = getattr(module, "group", None)
    unused = getattr(module, "unused", None)
    return Converter(
        module.convert, module.recognise, module.FIELDS, keys, kinds, summary, group, unused
    )


_PAIRS = ("preference",)
_TREES = ("chat", "preference")
_TRL = ("chat", "text", "preference", "rating")

CONVERTERS: dict[str, Converter] = {
    "pairs": _row(pairs, "one question and one answer a row: CSV, TSV, JSON"),
    "alpaca": _row(alpaca, "`instruction`, `input`, `output`"),
    "sharegpt": _row(sharegpt, "`conversations` of `from` and `value`"),
    "openai": _row(openai, "`messages` as OpenAI has them, with tools", "functions"),
    "anthropic": _row(
        anthropic, "`messages` with blocks as Anthropic has them", "params", "result"
    ),
    "logs": _row(logs, "requests and answers as OpenAI, Anthropic, LiteLLM, OpenRouter log them"),
    "glaive": _row(glaive, "`SYSTEM:`, `USER:`, `ASSISTANT:`, `<functioncall>` in a text"),
    "hermes": _row(hermes, "`<tool_call>` in ShareGPT's turns, as Hermes and Qwen write calls"),
    "xlam": _row(xlam, "`query`, `tools` and `answers`"),
    "bfcl": _row(bfcl, "`question`, `function` and `ground_truth`"),
    "toolace": _row(toolace, "functions in the system prompt, calls such as `[f(a=1)]`"),
    "turns": _row(turns, "one message a row, with the conversation it belongs to"),
    "text": _row(text, "a document a row, or a file of plain text", "path", kinds=("text",)),
    "code": _row(code, "a source file a row: a folder, archive or checkout", kinds=("text",)),
    "trl": _row(
        trl, "TRL's, as `prompt` and `completion` of messages", "messages", "text", kinds=_TRL
    ),
    "preference": _row(preference, "a better and a worse answer: DPO, HH-RLHF", kinds=_PAIRS),
    "ranked": _row(ranked, "several answers with scores or ranks", kinds=_PAIRS),
    "rating": _row(rating, "an answer and whether it was good: KTO", "messages", kinds=("rating",)),
    "oasst": _row(oasst, "a tree of messages: by the best replies", kinds=_TREES),
    "oasst-paths": Converter(
        oasst.convert_paths,
        oasst.recognise_paths,
        oasst.FIELDS,
        oasst.FIELDS,
        ("chat",),
        "a tree of messages: every path",
    ),
    "oasst-table": _row(
        oasst_table, "one message of a tree a row", *oasst_table.EXTRA, kinds=_TREES
    ),
    "classification": _row(classification, "a text with its labels", kinds=("classifier",)),
    "laplateforme": _row(laplateforme, "La Plateforme's own JSONL, as it is", kinds=tuple(KINDS)),
}


# What `columns` must say where the names of the columns do not.
_NEEDED = {"pairs": ("user", "assistant"), "turns": ("conversation", "role", "content")}


def find_converter(name: str) -> Converter:
    """Return the converter of a format.

    Raises:
        UsageError: There is none of this name.
    """
    if name not in CONVERTERS:
        hint = did_you_mean(name, CONVERTERS) or f"known formats: {', '.join(CONVERTERS)}"
        raise UsageError(f"{name}: unknown format", hint=hint)
    return CONVERTERS[name]


def detect(
    rows: Sequence[Any],
    *,
    format: str | None = None,  # noqa: A002 (the recipe's word)
    kind: str | None = None,
    columns: Mapping[str, str] | None = None,
    roles: Mapping[str, str] | None = None,
) -> Detection:
    """Return how a source is read, from its first rows.

    Args:
        rows: About a hundred rows, at least one.
        format: The converter, where it was named.
        kind: The kind of record wanted, which rules out other readings.
        columns: Which key holds what, where it was said.
        roles: What the rows call their roles → our roles, where it was said.

    Raises:
        UsageError: No reading is possible, or more than one, or a column is not there.

    Example:
        >>> detect([{"question": "Q", "answer": "A"}]).reason
        'columns `question` and `answer`'
    """
    columns, roles = columns or {}, roles or {}
    if kind is not None and kind not in KINDS:
        hint = did_you_mean(kind, KINDS) or f"kinds are {', '.join(KINDS)}"
        raise UsageError(f"{kind}: no such kind of record", hint=hint)
    _check_columns(rows, columns)
    fitting = _readings(rows, [format] if format else list(CONVERTERS), columns, roles)
    found = [_of_kind(one, kind) for one in fitting if kind in (None, one.kind, *one.also)]
    if len(found) == 1:
        if not (format or kind or columns) and found[0].format in {"text", "laplateforme"}:
            _check_documents(rows, found[0])
        return found[0]
    if format:
        return _named(format, kind, columns, rows)._replace(roles=roles)
    if fitting and not found:
        seen = " or ".join(f"{one.kind} records (`{one.format}`: {one.reason})" for one in fitting)
        raise UsageError(
            f"it holds {seen}, not {kind} records",
            hint="take the `method` (`--kind`) that is for such records, or name another `format`"
            " (`--from`) to read it otherwise",
        )
    if not found:
        _check_parts(columns)
        raise UsageError(
            f"unknown format: {_seen(rows)}",
            hint="say which column holds what: `columns: {user: …, assistant: …}` in a recipe,"
            " `convert --columns user=…,assistant=…`; for a message a row conversation, role and"
            " content, with `roles` where they have other names; or name the format (`format`,"
            f" `--from`): {', '.join(CONVERTERS)}",
        )
    readings = " or ".join(f"`{one.format}` ({one.reason})" for one in found)
    raise UsageError(
        f"two readings are possible: {readings}", hint="name one with `format` (`--from`)"
    )


def _check_documents(rows: Sequence[Any], found: Detection) -> None:
    """Refuse to take conversations for documents in silence, once a template made texts of them."""
    mark = text.find_template(rows) if found.kind == "text" else None
    if mark:
        raise UsageError(
            f"two readings are possible: documents (`{found.format}`), or conversations that a"
            f" template made texts of (`{mark}`)",
            hint="convert what they were made of; to take the texts as they are, name that"
            f" with `format` (`--from {found.format}`)",
        )


def _readings(
    rows: Sequence[Any],
    names: Sequence[str],
    columns: Mapping[str, str],
    roles: Mapping[str, str],
) -> list[Detection]:
    """Return the readings that fit, but for those of which another one uses more of the row.

    So a rating is no pair of prompt and completion, and a text with a label no document: the
    rest of the row says what its answer or text is for.
    """
    found = []
    for name in names:
        converter = find_converter(name)
        recognise = converter.recognise
        if name == "turns":  # a table of messages is told by its roles too
            recognise = functools.partial(turns.recognise, roles=roles)
        if not _unknown_parts(converter, columns) and (fits := recognise(rows, columns)):
            found.append(fits._replace(roles=roles, reason=visible(fits.reason, 300)))
    there = {key for row in rows if isinstance(row, dict) for key in row}
    used = {one.format: there & _looked_at(one) for one in found}
    return [
        one for one in found if not any(used[one.format] < used[other.format] for other in found)
    ]


def _of_kind(found: Detection, kind: str | None) -> Detection:
    return found if kind is None else found._replace(kind=kind)


def keys_of(found: Detection) -> frozenset[str]:
    """Return the keys of a row that a reading looks at; none where it is all of them."""
    parts = CONVERTERS[found.format].keys
    if not parts:
        return frozenset()
    return frozenset(key for part in (*parts, *found.columns) for key in found.keys(part))


def _looked_at(found: Detection) -> frozenset[str]:
    return keys_of(found) or frozenset(KINDS[found.kind].__struct_fields__)


def _check_parts(columns: Mapping[str, str]) -> None:
    """Refuse `columns` that no format has, or of which one needs more."""
    fitting = [name for name, one in CONVERTERS.items() if not _unknown_parts(one, columns)]
    if columns and not fitting:
        fields = {field for one in CONVERTERS.values() for field in one.fields}
        hints = (did_you_mean(part, fields) for part in columns if part not in fields)
        parts = ", ".join(f"`{visible(part, 40)}`" for part in columns)
        raise UsageError(
            f"columns: no format has the parts {parts}",
            hint=next(filter(None, hints), None)
            or "name the format (`format`, `--from`): it says which parts it has",
        )
    for name in fitting if columns else ():
        missing = [part for part in _NEEDED.get(name, ()) if part not in columns]
        if missing and len(missing) < len(_NEEDED[name]):
            raise UsageError(
                f"columns: `{name}` needs {' and '.join(f'`{part}`' for part in missing)} too",
                hint=f"say it: `columns: {{{': …, '.join(_NEEDED[name])}: …}}`",
            )


def _unknown_parts(converter: Converter, columns: Mapping[str, str]) -> list[str]:
    """Return what `columns` names and the format does not have; `labels.*` is any target."""
    families = tuple(field[:-1] for field in converter.fields if field.endswith(".*"))
    return sorted(
        part
        for part in columns.keys() - set(converter.fields)
        if not part.startswith(families) or part in families
    )


def _named(
    name: str, kind: str | None, columns: Mapping[str, str], rows: Sequence[Any]
) -> Detection:
    converter = find_converter(name)
    if unknown := _unknown_parts(converter, columns):
        raise UsageError(
            f"columns: {', '.join(unknown)}: not a part of the format `{name}`",
            hint=f"its parts are {', '.join(converter.fields) or 'not to be named'}",
        )
    if kind not in (None, *converter.kinds):
        raise UsageError(f"the format `{name}` holds no {kind} records")
    if needed := _NEEDED.get(name):
        raise UsageError(
            f"no known columns of `{name}`: {_seen(rows)}",
            hint=f"say which column holds what: `columns: {{{': …, '.join(needed)}: …}}`",
        )
    seen = next((kind_of(row) for row in rows if kind_of(row) in converter.kinds), None)
    return Detection(name, kind or seen or converter.kinds[0], dict(columns), "it was named")


def _check_columns(rows: Sequence[Any], columns: Mapping[str, str]) -> None:
    there = {key for row in rows if isinstance(row, dict) for key in row}
    for part, said in columns.items():
        for column in columns_of(said):
            if column not in there:
                raise UsageError(
                    f"columns.{part}: no column `{visible(column, 80)}`: {_seen(rows)}",
                    hint=did_you_mean(column, there),
                )


def _seen(rows: Sequence[Any]) -> str:
    there = list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))
    if not there:
        return "the rows are not objects"
    shown = ", ".join(f"`{visible(key, 40)}`" for key in there[:12])
    return f"there are {shown}{' …' if len(there) > 12 else ''}"
