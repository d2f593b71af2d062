"""From a name, a file or a folder to a tokenizer."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

from finetune.catalog import SHIPPED, find_model, shipped_file, suggest_model
from finetune.errors import FinetuneError, MissingExtra, UsageError
from finetune.files import digest, read_json
from finetune.tokens import embedded
from finetune.tokens.tokenizer import Tokenizer

_VERSIONED = re.compile(r"\.model\.v\d+(m\d+)?$")


def load_tokenizer(
    ref: str | Path, find: Callable[[str], str | Path | None] | None = None
) -> Tokenizer:
    """Return the tokenizer that `ref` names.

    Args:
        ref: A tokenizer file (`tekken.json`, `tokenizer.model.v3`, `tokenizer.json`), a model
            folder that holds one, a version that mistral-common ships (`v3`, `v3-tekken`, …), a
            catalog model of such a version, or the embedded model.
        find: Gives the model folder of a name that is no path, None where it knows none.

    Raises:
        UsageError: Nothing is there, or it is no tokenizer that can be used exactly.
        MissingExtra: A `tokenizer.json` without the extra `local`.
    """
    name = str(ref)
    if Path(ref).exists():
        return _load_path(_choose(Path(ref)), name)
    if name == embedded.NAME:
        return _load_path(_choose(_provide_embedded()), name)
    folder = find(name) if find else None
    if folder is not None:
        return _load_path(_choose(Path(folder)), name)
    model = find_model(name)
    version = name if model is None else model.tokenizer
    file = shipped_file(version or "")
    if file is not None:
        return _load_path(_data_folder() / file, name)
    if model is not None:
        raise UsageError(
            f"{name}: its tokenizer is in no package: {version or 'unknown version'}",
            hint="give the model's folder, which holds the tokenizer file",
        )
    raise UsageError(
        f"{name}: no tokenizer file, model folder or known model",
        hint=suggest_model(name)
        or f"give a tokenizer file, a model folder, or one of {', '.join(SHIPPED)}",
    )


def _provide_embedded() -> Path:
    try:
        return embedded.provide_tokenizer()
    except ImportError:
        raise MissingExtra("local", "gguf") from None


def _data_folder() -> Path:
    spec = importlib.util.find_spec("mistral_common")
    if spec is None or spec.origin is None:
        raise UsageError("mistral-common is not installed")
    return Path(spec.origin).parent / "data"


def _choose(path: Path) -> Path:
    """Return the tokenizer file of a model folder; a file as it is."""
    if not path.is_dir():
        if path.name == "tokenizer.model" and not _is_first_version(path.parent):
            raise UsageError(
                f"{path}: a file of this name does not say its version, and v1 would be assumed",
                hint="give it the version as an ending, such as `tokenizer.model.v3`",
            )
        return path
    found = sorted(path.glob("tekken*.json")) or sorted(
        file for file in path.iterdir() if _VERSIONED.search(file.name)
    )
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise UsageError(f"{path}: several tokenizer files: {names}", hint="name the file itself")
    if found:
        return found[0]
    if (path / "tokenizer.model").is_file() and _is_first_version(path):
        return path / "tokenizer.model"
    if (path / "tokenizer.json").is_file():
        return path / "tokenizer.json"
    if (path / "tokenizer.model").is_file():
        return _choose(path / "tokenizer.model")
    raise UsageError(
        f"{path}: no tokenizer in this folder",
        hint="a model folder holds `tekken.json`, `tokenizer.model.v3` or `tokenizer.json`",
    )


def _is_first_version(folder: Path) -> bool:
    """Tell whether a model's config says that its bare `tokenizer.model` is v1.

    The models of v1 have 32,000 ids; later ones have 32,768 (mistral-common 1.13.1).
    """
    path = folder / "config.json"
    config = read_json(path) if path.exists() else {}
    known = isinstance(config, dict) and config.get("model_type") in ("mistral", "mixtral")
    return known and config.get("vocab_size") == 32000


def _load_path(path: Path, name: str) -> Tokenizer:
    state = path.stat()
    return _load(path.resolve(), name, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=4)
def _load(path: Path, name: str, _modified: int, _size: int) -> Tokenizer:
    if path.name == "tokenizer.json":
        from finetune.tokens.hugging_face import HuggingFaceTokenizer

        return HuggingFaceTokenizer(path.parent, name=name)
    if path.suffix == ".json" and "tekken" not in path.name:
        raise UsageError(
            f"{path}: not a tokenizer file by its name",
            hint="tekken files are named `tekken….json`, Hugging Face's `tokenizer.json`",
        )
    from mistral_common.exceptions import MistralCommonException

    from finetune.tokens.mistral import MistralFileTokenizer

    try:
        return MistralFileTokenizer(path, name=name, sha256=digest(path))
    except FinetuneError:
        raise
    except (MistralCommonException, *_UNREADABLE) as error:
        raise UsageError(
            f"{path}: not a tokenizer file that mistral-common reads: {type(error).__name__}",
            hint="the version stands in `config.version` (tekken) or in the file's name (`.v3`)",
        ) from None


# What a damaged file, an unknown version or a missing control token raises in mistral-common.
_UNREADABLE = (ValueError, KeyError, TypeError, AssertionError, RuntimeError, OSError)
