"""Contamination: training records that repeat what a model is to be evaluated on.

A record is contaminated where it shares a sequence of 13 words with an evaluation item, or holds
the whole of a text of 8 to 12 words. Shorter texts are not searched: they occur by chance.

Source: 8 to 13 words as in T. Brown and others, Language Models are Few-Shot Learners
(arXiv 2005.14165, 2020), appendix C; what occurs in more than ten items is taken for a template,
after NVIDIA NeMo Curator's `max_matches` (read 2026-08).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.corpus.clean.words import fold, hash_sequences, hash_words, words_of
from finetune.corpus.containers import open_container
from finetune.errors import DataError
from finetune.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from finetune.corpus.sources import SourceFile

LONGEST = 13  # words
SHORTEST = 8
_TEMPLATE = 10  # items of one file that may share a sequence


class Contamination:
    """Evaluation files, and which of their items a record shares a sequence of words with.

    Words are compared without case, accents and punctuation. System prompts count on neither
    side, and a sequence that more than ten different items of a file share (or more than half of
    them) is taken for its template.

    Args:
        paths: Files, folders or globs of any container; every text of a row is looked at.

    Attributes:
        facts: File → `items`, how many of them have no text of 8 words (`too_short`), and how
            many sequences are templates (`shared`), for the manifest.

    Raises:
        UsageError: A path is not there.
        DataError: A row of a file cannot be read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        from finetune.corpus.sources import find_files  # reads recipes too: not for every worker

        self.facts: dict[str, dict[str, int]] = {}
        self._places: list[str] = []
        # Words of a sequence → its hashes in order, and the item of each.
        self._tables: dict[int, tuple[NDArray[np.uint64], NDArray[np.int32]]] = {}
        found: dict[int, list[tuple[NDArray[np.uint64], NDArray[np.int32]]]] = {}
        for path in paths:
            for file in find_files(path)[0]:
                for length, table in self._read(file).items():
                    found.setdefault(length, []).append(table)
        for length, tables in found.items():
            self._tables[length] = _merge(tables)

    def find(self, record: Record) -> str | None:
        """Return the first item that a record shares a sequence with, as `file:line`, else None.

        Where there is one, the record is to be left out by the rule `contaminated`.
        """
        import numpy as np

        words = words_of(record)
        items = []
        for length, (hashes, owners) in self._tables.items():
            sequences = hash_sequences(words, length)
            places = np.searchsorted(hashes, sequences)
            places[places == len(hashes)] = 0
            shared = places[hashes[places] == sequences]
            if len(shared):
                items.append(int(owners[shared].min()))
        return self._places[min(items)] if items else None

    def _read(self, file: SourceFile) -> dict[int, tuple[NDArray[np.uint64], NDArray[np.int32]]]:
        """Return the sequences of a file by their length, each once, with its first item."""
        import numpy as np

        name = file.name
        hashes: dict[int, list[NDArray[np.uint64]]] = {}
        owners: dict[int, list[NDArray[np.int32]]] = {}
        counts = {"items": 0, "too_short": 0, "shared": 0}
        seen: set[bytes] = set()
        with file.open() as stream:
            for row in open_container(stream, name).rows:
                if row.fault is not None:
                    raise DataError(
                        row.fault.message, file=name, line=row.line, rule=row.fault.rule
                    )
                counts["items"] += 1
                item = _sequences(row.value)
                counts["too_short"] += not item
                key = hashlib.blake2b(
                    b"".join(one.tobytes() for one in item.values()), digest_size=16
                ).digest()
                if key in seen:  # the same item again would look like a template
                    continue
                seen.add(key)
                for length, sequences in item.items():
                    hashes.setdefault(length, []).append(sequences)
                    owners.setdefault(length, []).append(
                        np.full(len(sequences), len(self._places), np.int32)
                    )
                self._places.append(f"{name}:{row.line}")
        most = max(1, min(_TEMPLATE, len(seen) // 2))
        tables = {}
        for length, parts in hashes.items():
            values, first, times = np.unique(
                np.concatenate(parts), return_index=True, return_counts=True
            )
            own = times <= most
            counts["shared"] += int((~own).sum())
            if own.any():
                tables[length] = values[own], np.concatenate(owners[length])[first[own]]
        self.facts[name] = counts
        return tables


def _merge(
    tables: list[tuple[NDArray[np.uint64], NDArray[np.int32]]],
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    import numpy as np

    hashes = np.concatenate([table[0] for table in tables])
    owners = np.concatenate([table[1] for table in tables])
    hashes, first = np.unique(hashes, return_index=True)
    return hashes, owners[first]


def _sequences(row: Any) -> dict[int, NDArray[np.uint64]]:
    """Return the different sequences of an item by their length."""
    import numpy as np

    found: dict[int, list[NDArray[np.uint64]]] = {}
    for text in _texts(row):
        words = hash_words(fold(text))[0]
        if len(words) >= SHORTEST:
            length = min(LONGEST, len(words))
            found.setdefault(length, []).append(hash_sequences(words, length))
    return {length: np.unique(np.concatenate(parts)) for length, parts in sorted(found.items())}


def _texts(row: Any) -> Iterator[str]:
    """Yield the texts of a row, however deep, but for system prompts."""
    values = [row]
    while values:
        value = values.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            values += value
        elif isinstance(value, dict) and "system" not in (value.get("role"), value.get("from")):
            values += [one for key, one in value.items() if key not in ("system", "system_prompt")]
