"""Who the data are for: La Plateforme, or a tokenizer version. Verdicts differ."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import msgspec

from finetune.checks.rules import RULES, TARGETS, VERSIONS, Severity, find_rule
from finetune.errors import UsageError
from finetune.records import ImageChunk, TextChunk, ThinkChunk
from finetune.text import did_you_mean

_TEXT: frozenset[type] = frozenset({TextChunk})
_SEEN = _TEXT | {ImageChunk}
_THOUGHT = _TEXT | {ThinkChunk}

# Which chunks each role can have (mistral-common 1.13.1, validators and encoders together: v7 and
# v11 validate reasoning chunks that their encoders refuse).
_CHUNKS: dict[str, dict[str, frozenset[type]]] = {
    "user": dict.fromkeys(TARGETS, _SEEN) | {"v1": _TEXT, "v2": _TEXT},
    "assistant": dict.fromkeys(TARGETS, _TEXT) | dict.fromkeys(("v13", "v15", "hf"), _THOUGHT),
    "system": dict.fromkeys(TARGETS, _TEXT) | {"v13": _THOUGHT},
    "tool": dict.fromkeys(TARGETS, _TEXT) | {"v15": _SEEN},
}


class Target(NamedTuple):
    """What the data are checked against.

    `severities` holds the rules in force; `chunks` the kinds of content by role.
    """

    name: str
    severities: dict[str, Severity]
    chunks: dict[str, frozenset[type]]


def _make(name: str, ignore: frozenset[str]) -> Target:
    severities = {
        rule.name: severity
        for rule in RULES.values()
        if (severity := rule.severity(name)) == "error" or (severity and rule.name not in ignore)
    }
    return Target(name, severities, {role: chunks[name] for role, chunks in _CHUNKS.items()})


def find_target(name: str, ignore: frozenset[str] = frozenset()) -> Target:
    """Return the target of a name: `platform`, `v1` … `v15`, `hf`, a model or its files.

    Args:
        name: A target, a model of the catalog, a tokenizer file or a model folder.
        ignore: Rules whose warnings are left out. What is an error for the target stays one.

    Raises:
        UsageError: Nothing has this name, its tokenizer's version is not known here, or a rule
            that is to be ignored is not there or is never a warning.
    """
    for rule in sorted(ignore):
        if not find_rule(rule).warnings:
            raise UsageError(
                f"{rule}: cannot be ignored: it is an error for every target",
                hint=f"`finetune explain {rule}` says how to mend it",
            )
    if name in TARGETS:
        return _make(name, ignore)
    path = Path(name)
    version = tokenizer_version(path) if path.exists() else _catalog_version(name)
    if version not in TARGETS:
        raise UsageError(
            f"{name}: tokenizer version {version} is not known here",
            hint=f"known are {', '.join(VERSIONS)}",
        )
    return _make(version, ignore)


def _catalog_version(name: str) -> str:
    from finetune.catalog import find_model

    model = find_model(name)
    if model is None:
        raise UsageError(
            f"{name}: no such target, model or path",
            hint=did_you_mean(name, TARGETS) or f"targets are {', '.join(TARGETS)}",
        )
    if model.tokenizer is None:
        raise UsageError(
            f"{name}: its tokenizer is not known here", hint="name its folder or tokenizer file"
        )
    return model.tokenizer.partition("-")[0]


class _TekkenConfig(msgspec.Struct):
    version: str


class _Tekken(msgspec.Struct):
    config: _TekkenConfig


def tokenizer_version(path: Path) -> str:
    """Return the version of a tokenizer file or of the one in a model folder.

    A tekken file names its version; a SentencePiece file has it in its name, and a bare
    `tokenizer.model` is v1 (mistral-common 1.13.1). A folder without either is `hf`.

    Raises:
        UsageError: There is no tokenizer, or its file cannot be read.
    """
    if path.is_dir():
        for pattern in ("tekken.json", "tokenizer.model*"):
            if found := sorted(path.glob(pattern)):
                return tokenizer_version(found[-1])
        if (path / "tokenizer.json").exists():
            return "hf"
        raise UsageError(f"{path}: no tokenizer in this folder")
    if path.suffix == ".json" and path.name != "tokenizer.json":
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Tekken).config.version
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise UsageError(f"{path}: not a tekken tokenizer file") from None
    if path.name == "tokenizer.json":
        return "hf"
    match = re.search(r"\.(v[0-9]+)(?:m[0-9]+)?$", path.name)
    if match:
        return match[1]
    if path.name == "tokenizer.model":
        return "v1"
    raise UsageError(f"{path}: not a tokenizer file")
