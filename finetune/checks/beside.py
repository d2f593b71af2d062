"""Training files beside their validation file: sizes, records in both, labels in one alone."""

from __future__ import annotations

import hashlib

from finetune.checks.report import Fault
from finetune.records import ClassifierRecord, Record, encode
from finetune.text import plural, size

# La Plateforme: 512 MB a file (API reference), validation data of at most 1 MB and 5 % of the
# training data (help pages); both as of 2026-08. Its own example has more, so that is a warning.
MAX_TRAINING = 512_000_000
MAX_VALIDATION, MAX_SHARE = 1_000_000, 0.05


def check_training_size(count: int) -> list[Fault]:
    """Return the fault of a training file of so many bytes, if it has one."""
    if count <= MAX_TRAINING:
        return []
    return [Fault("training-size", "", f"{size(count)}: cut it in two, a job takes many files")]


class Beside:
    """A validation file, and what is to be remembered of it and of the training files.

    Memory grows with the validation file alone: 16 bytes a record.
    """

    def __init__(self) -> None:
        self._held: set[bytes] = set()
        self._labels: dict[bool, set[tuple[str, str]]] = {True: set(), False: set()}
        self._sizes = {True: 0, False: 0}

    def add(self, record: Record, *, held_out: bool) -> list[Fault]:
        """Take note of a record, the validation file's first; return whether it is in both."""
        if isinstance(record, ClassifierRecord):
            for name, value in record.labels.items():
                values = value if isinstance(value, list) else [value]
                self._labels[held_out].update((name, label) for label in values)
        fingerprint = hashlib.blake2b(encode(record), digest_size=16).digest()
        if held_out:
            self._held.add(fingerprint)
        elif fingerprint in self._held:
            return [Fault("overlap", "", "the same record stands in the validation data")]
        return []

    def add_size(self, count: int, *, held_out: bool) -> None:
        """Take note of a file's bytes."""
        self._sizes[held_out] += count

    def finish(self) -> list[Fault]:
        """Return the faults of the validation file as a whole."""
        faults = []
        unseen = len(self._labels[True] - self._labels[False])
        if unseen:
            fact = f"{plural(unseen, 'class', 'classes')} that no training record has"
            faults.append(Fault("unseen-label", "labels.*", fact))
        held, trained = self._sizes[True], self._sizes[False]
        if held > min(MAX_VALIDATION, MAX_SHARE * trained):
            fact = f"{size(held)} beside {size(trained)} of training data"
            faults.append(Fault("validation-size", "", fact))
        return faults
