"""Shared: a base in memory once, with the adapters that were put on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.backends.local.base import check_adapter
from finetune.backends.local.model import load_adapter, load_model, resolve_model
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
        self._folder, self._quantize = folder, quantize
        self._made = 0
        self._load_base()

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

    def _load_base(self) -> None:
        self._model: Any = None  # memory holds one at a time
        self._model = load_model(self._folder, quantize=self._quantize)
        self._names: dict[Path, str] = {}  # least recently used first

    def _load(self, adapter: Path) -> str:
        name = self._names.pop(adapter, None)
        if name is None:
            self._made += 1
            name = f"adapter-{self._made}"
            check_adapter(adapter, self.ref)
            try:
                self._model = load_adapter(self._model, adapter, name=name)
            except UsageError:
                self._load_base()  # half an adapter may be on it
                raise
        self._names[adapter] = name
        if len(self._names) > _MOST_ADAPTERS:
            oldest = next(iter(self._names))
            self._model.delete_adapter(self._names.pop(oldest))
        return name
