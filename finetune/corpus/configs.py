"""Configs of other trainers: they name data, they are none. Told by their shape, not their name.

| file                                                             | is                        |
|------------------------------------------------------------------|---------------------------|
| `{NAME: {"file_name" or "hf_hub_url", "formatting", "columns"}}` | LLaMA-Factory's           |
| `datasets: [{path, type, data_files, field_messages}]`           | axolotl's, or TRL's       |
| `dataset: {_component_: torchtune.…, source, column_map}`        | torchtune's               |
| `data: {train: {datasets: [{dataset_name, dataset_path}]}}`      | oumi's                    |
| `data: {train: [{path}]}`                                        | a recipe                  |

Sources: LLaMA-Factory's `data/README.md`, axolotl's "Config Reference", torchtune's "Chat Datasets"
and `instruct_dataset`, oumi's "Training Configuration", as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from finetune.errors import RecipeError, UsageError
from finetune.recipe.source import MAX_BYTES, read_document
from finetune.text import plural, safe

_SUFFIXES = (".json", ".yaml", ".yml")
_SHOWN = 3  # sources written out in a hint
_LLAMA_FACTORY = ("file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url")
_ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
_DATASET_KEYS = {"type", "ds_type", "split", "name", "field_messages", "chat_template"}
_BARE = 2  # keys of an entry that holds `path` alone, and `data_files` as it is added
_AXOLOTL = {"alpaca": "alpaca", "sharegpt": "sharegpt", "chat_template": "openai"}
_DATA_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".zst", ".gz")


class Config(NamedTuple):
    """A file that names data.

    Attributes:
        tool: Whose it is.
        sources: The corpora it names, as a recipe's `data.train` has them.
    """

    tool: str
    sources: list[dict[str, Any]]

    def refusal(self, path: Path) -> UsageError:
        """Return what to say where the file is given as data."""
        if self.tool == "a recipe":
            return UsageError(
                f"{path}: is a recipe, not data", hint=f"`finetune prepare {safe(str(path), 80)}`"
            )
        shown = "; ".join(f"`- {_flow(source)}`" for source in self.sources[:_SHOWN])
        more = " …" if len(self.sources) > _SHOWN else ""
        return UsageError(
            f"{path}: is {self.tool}'s list of {plural(len(self.sources), 'corpus', 'corpora')},"
            " not data",
            hint=f"give `finetune init` that file, or write under `data.train` {shown}{more}",
        )


def read_config(path: Path) -> Config | None:
    """Return what a file names, if it is a config; None where it may be data."""
    if path.suffix.lower() not in _SUFFIXES or not 0 < path.stat().st_size <= MAX_BYTES:
        return None
    try:
        if path.suffix.lower() == ".json":
            value = msgspec.json.decode(path.read_bytes())
        else:
            value = read_document(path).values
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, RecipeError):
        return None
    return find_config(value)


def find_config(value: Any) -> Config | None:
    """Return what a parsed document names, if it is a config of a known shape."""
    if not isinstance(value, dict) or not value:
        return None
    if all(isinstance(one, dict) and one.keys() & set(_LLAMA_FACTORY) for one in value.values()):
        return Config("LLaMA-Factory", [_llama_factory(one) for one in value.values()])
    listed = _mappings(value.get("datasets"), "path")
    if listed and all(one.keys() & _DATASET_KEYS or len(one) == _BARE for one in listed):
        return Config("axolotl or TRL", [_axolotl(one) for one in listed])
    if listed := _mappings(value.get("dataset"), "_component_"):
        return Config("torchtune", [_torchtune(one) for one in listed])
    train = _at(value, "data", "train")
    if listed := _mappings(_at(value, "data", "train", "datasets"), "dataset_name"):
        return Config("oumi", [_oumi(one) for one in listed])
    return Config("a recipe", []) if _mappings(train, "path") else None


def _mappings(value: Any, key: str) -> list[dict[str, Any]]:
    """Return the mappings that a value is or lists, if each has a key; one for each data file."""
    listed = value if isinstance(value, list) else [value]
    if not all(isinstance(one, dict) and key in one for one in listed):
        return []
    return [
        {**one, "data_files": file}
        for one in listed
        for file in (
            one["data_files"]
            if isinstance(one.get("data_files"), list)
            else [one.get("data_files")]
        )
    ]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _source(path: Any, name: str | None, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return a source of a recipe; columns that have the usual name are left out."""
    source: dict[str, Any] = {"path": path if isinstance(path, str) else "…"}
    if name:
        source["format"] = name
    said = {k: v for k, v in columns.items() if isinstance(v, str) and v != k}
    return source | ({"columns": said} if said else {})


def _llama_factory(one: dict[str, Any]) -> dict[str, Any]:
    hub = next((one[key] for key in _LLAMA_FACTORY[1:] if key in one), None)
    path = f"hub:{hub}" if hub else one.get("file_name")
    columns = _mapping(one.get("columns"))
    chat = one.get("formatting") == "sharegpt"
    before = (
        {"prompt": columns.get("messages", "conversations")}
        if chat
        else _pick(columns, prompt=("prompt", "instruction"), context=("query", None))
    )
    if one.get("ranking"):
        answers = _pick(columns, chosen=("chosen", None), rejected=("rejected", None))
        return _source(path, "preference", before | answers)
    if "kto_tag" in columns:
        rated = {"completion": before["prompt"]} if chat else before
        rated |= {} if chat else _pick(columns, completion=("response", "output"))
        return _source(path, "rating", rated | {"label": columns["kto_tag"]})
    if chat and _at(one, "tags", "role_tag") == "role":
        return _source(path, "openai", {"messages": columns.get("messages", "conversations")})
    if chat:
        found = _pick(columns, conversations=("messages", None), system=("system", None))
        return _source(path, "sharegpt", found | _pick(columns, tools=("tools", None)))
    if columns.keys() == {"prompt"}:
        return _source(path, "text", {"text": columns["prompt"]})
    names = {_ALPACA.get(key, key): value for key, value in columns.items()}
    return _source(path, "alpaca", names)


def _pick(columns: Mapping[str, Any], **wanted: tuple[str, str | None]) -> dict[str, Any]:
    """Return our part → column, by their name of the part, else its default."""
    found = {part: columns.get(name, default) for part, (name, default) in wanted.items()}
    return {part: column for part, column in found.items() if column is not None}


def _place(path: Any, files: Any) -> str:
    """Return where a corpus lies that is named as `load_dataset` takes it."""
    if isinstance(files, str):
        return files
    text = path if isinstance(path, str) else "…"
    is_file = text.startswith((".", "/", "~")) or text.lower().endswith(_DATA_SUFFIXES)
    return text if is_file else f"hub:{text}"


def _axolotl(one: dict[str, Any]) -> dict[str, Any]:
    path, kind = _place(one["path"], one.get("data_files")), one.get("type")
    if isinstance(kind, dict):
        fields = _pick(
            kind,
            user=("field_instruction", None),
            context=("field_input", None),
            assistant=("field_output", None),
            system=("field_system", None),
        )
        return _source(path, "pairs", fields)
    if kind == "completion":
        return _source(path, "text", {"text": one.get("field", "text")})
    name = _AXOLOTL.get(str(kind).split(".")[0])
    roles = [_at(one, "message_property_mappings", "role"), one.get("message_field_role")]
    if name == "openai" and "from" in roles:
        name = "sharegpt"
    part = {"openai": "messages", "sharegpt": "conversations"}.get(name or "", "")
    return _source(path, name, {part: one["field_messages"]} if "field_messages" in one else {})


def _torchtune(one: dict[str, Any]) -> dict[str, Any]:
    path = _place(one.get("source"), one.get("data_files"))
    component = str(one["_component_"]).rpartition(".")[2]
    columns = _mapping(one.get("column_map"))
    if component == "chat_dataset":
        is_openai = one.get("conversation_style") == "openai"
        column = one.get("conversation_column")
        name, part = ("openai", "messages") if is_openai else ("sharegpt", "conversations")
        return _source(path, name, {part: column})
    if component == "preference_dataset":
        return _source(path, "preference", columns)
    if component == "text_completion_dataset":
        return _source(path, "text", {"text": one.get("column", "text")})
    if component == "alpaca_dataset":
        return _source(path, "alpaca", {})
    found = _pick(columns, user=("input", None), assistant=("output", None))
    return _source(path, "pairs" if found else None, found)


def _oumi(one: dict[str, Any]) -> dict[str, Any]:
    files = one.get("dataset_path") or _at(one, "dataset_kwargs", "dataset_path")
    return _source(_place(one["dataset_name"], files), None, {})


def _flow(source: dict[str, Any]) -> str:
    """Return a source as YAML on one line."""
    return "{" + ", ".join(f"{key}: {_inline(value)}" for key, value in source.items()) + "}"


def _inline(value: Any) -> str:
    return _flow(value) if isinstance(value, dict) else safe(str(value), 120)
