"""The key of the pseudonyms: 32 bytes in the user's data directory, for their eyes only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

from finetune.errors import UsageError

_BYTES = 32


def find_folder() -> Path:
    """Return the folder of the user's data, where the key and the exclusion list lie."""
    import platformdirs

    return Path(platformdirs.user_data_dir("finetune", appauthor=False))


def provide_key(folder: Path | None = None) -> bytes:
    """Return the key in `folder`, made on first use.

    Args:
        folder: The user's data directory where absent.

    Raises:
        UsageError: The file there is no key, so that nothing made with it could be found again.
    """
    path = (folder or find_folder()) / "privacy.key"
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first: its key counts
            path.hardlink_to(temporary)
        temporary.unlink()
    key = path.read_bytes()
    if len(key) != _BYTES:
        raise UsageError(
            f"{path}: not a key of {_BYTES} bytes",
            hint="restore it from a backup; without it earlier pseudonyms cannot be made again",
        )
    return key


def fingerprint(key: bytes) -> str:
    """Return what tells one key from another and says nothing about either."""
    return hashlib.blake2b(b"finetune", key=key, digest_size=8).hexdigest()
