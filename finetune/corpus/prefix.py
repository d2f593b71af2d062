"""Prefix: the part of a file that is uploaded where a service takes no more.

La Plateforme takes validation data of at most 1 MB and 5 % of the training data. The dataset holds
all of them; what is uploaded are the lines of the lowest hashes, so that the choice depends on no
seed, and stays nearly the same when data are added.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from pathlib import Path


def read_prefix(path: Path, limit: int) -> Iterator[bytes]:
    """Yield the lines of lowest hash that together have at most `limit` bytes.

    Args:
        path: JSONL. It is read twice; 16 bytes a line are held.
        limit: In bytes, line ends counted.

    Returns:
        Lines with their ends, in the order of the file: all of them where they fit. The lines of
        lowest hash are taken until one does not fit.
    """
    import numpy as np

    hashes, sizes = array("Q"), array("Q")
    with open(path, "rb") as file:
        for line in file:
            digest = hashlib.blake2b(line.rstrip(b"\r\n"), digest_size=8).digest()
            hashes.append(int.from_bytes(digest, "big"))
            sizes.append(len(line))
    order = np.argsort(np.frombuffer(hashes, np.uint64), kind="stable")
    fits = np.cumsum(np.frombuffer(sizes, np.uint64)[order]) <= limit
    taken = np.zeros(len(order), bool)
    taken[order[fits]] = True
    with open(path, "rb") as file:
        for line, take in zip(file, taken.tolist(), strict=True):
            if take:
                yield line
