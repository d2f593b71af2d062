"""Shared: a base in memory once, with the adapters that were put on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.backends.local.model import load_adapter, load_model, resolve_model
from finetune.backends.local.quiet import quiet
from finetune.errors import UsageError
from finetune.tokens import Tokenizer, load_tokenizer

_MOST_ADAPTERS = 8


class Shared:
    """A base that answers as itself, or with one of its adapters.

    Args:
        ref: A folder, a catalog name or a hub id.
        quantize: Hold the base in 4 or 8 bits.

    Raises:
        UsageError: The model can't be loaded.

    Attributes:
        ref: The base.
        tokenizer: Its tokenizer.
    """

    def __init__(self, ref: str, quantize: Any = "none") -> None:
        folder = resolve_model(ref)
        self.ref = ref
        self.tokenizer: Tokenizer = load_tokenizer(folder)
        self._model = load_model(folder, quantize=quantize)
        self._base = self._model
        self._names: dict[Path, str] = {}  # least recently used first
        self._made = 0

    @contextlib.contextmanager
    def using(self, adapter: Path | None) -> Iterator[Any]:
        """Give the model as it is with an adapter, or as the base.

        Raises:
            UsageError: There is no such adapter, or it belongs to another model.
        """
        if adapter is not None:
            self._model.set_adapter(self._load(adapter)) if self._names else self._load(adapter)
            yield self._model
        elif self._names:
            with self._model.disable_adapter():
                yield self._model
        else:
            yield self._model

    def _load(self, adapter: Path) -> str:
        name = self._names.pop(adapter, None)
        if name is None:
            self._made += 1
            name = f"adapter-{self._made}"
            if not self._names:
                self._model = load_adapter(self._base, adapter, name=name)
            else:
                _add(self._model, adapter, name)
        self._names[adapter] = name
        if len(self._names) > _MOST_ADAPTERS:
            oldest = next(iter(self._names))
            self._model.delete_adapter(self._names.pop(oldest))
        return name


def _add(model: Any, adapter: Path, name: str) -> None:
    if not (adapter / "adapter_model.safetensors").is_file():
        raise UsageError(f"{adapter}: no adapter here")
    with quiet():
        try:
            model.load_adapter(adapter, adapter_name=name, autocast_adapter_dtype=False)
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            raise UsageError(
                f"{adapter}: this adapter does not fit the model: {type(error).__name__}"
            ) from error
    for parameter_name, parameter in model.named_parameters():
        if f".{name}." in parameter_name:
            parameter.data = parameter.data.to(model.dtype)
    model.eval()
