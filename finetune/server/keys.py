"""Keys: who may use the server, how much, and what each has used.

A key is shown once, when it is made. Only its SHA-256 is kept: it has 192 random bits, so that no
slow hash is needed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from finetune.errors import UsageError
from finetune.server.refusal import Refused
from finetune.server.store import Store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
COUNTS = ("requests", "tokens_in", "tokens_out")


class Key(NamedTuple):
    """Who asks.

    Attributes:
        name: The key's name.
        requests_per_minute: Most requests a minute, None for no limit.
        tokens_per_minute: Most tokens read and written a minute.
        storage_bytes: Most bytes of uploads kept.
    """

    name: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    storage_bytes: int | None


def create_key(
    store: Store,
    name: str,
    *,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    storage_bytes: int | None = None,
) -> str:
    """Make a key and return it; it can't be shown again.

    Raises:
        UsageError: There is one of this name, or it is no name.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"keys: `{name[:80]}` is no name", hint="letters, digits, `.`, `_`, `-`")
    if store.find("SELECT 1 FROM key WHERE name = ?", name):
        raise UsageError(f"keys: there is a key `{name}`", hint="`finetune serve keys list`")
    key = f"ftk-{secrets.token_urlsafe(24)}"
    limits = (requests_per_minute, tokens_per_minute, storage_bytes)
    with store.write() as database:
        database.execute(
            "INSERT INTO key (name, hash, created, requests_per_minute, tokens_per_minute,"
            " storage_bytes) VALUES (?, ?, ?, ?, ?, ?)",
            (name, _hash(key), int(time.time()), *limits),
        )
    return key


def revoke_key(store: Store, name: str) -> None:
    """Refuse a key from now on; what it used stays on record.

    Raises:
        UsageError: There is no such key.
    """
    with store.write() as database:
        changed = database.execute(
            "UPDATE key SET revoked = coalesce(revoked, ?) WHERE name = ?", (int(time.time()), name)
        )
        if not changed.rowcount:
            raise UsageError(f"keys: no key `{name}`", hint="`finetune serve keys list`")


def list_keys(store: Store) -> list[dict[str, Any]]:
    """Return every key with its limits and what it used; never the key itself."""
    rows = store.read(
        "SELECT name, created, revoked, requests_per_minute, tokens_per_minute,"
        " key.storage_bytes AS storage_limit, requests, tokens_in, tokens_out, trained_tokens,"
        " (SELECT coalesce(sum(bytes), 0) FROM file WHERE file.key = key.name) AS storage_bytes"
        " FROM key ORDER BY created, name"
    )
    return [dict(row) for row in rows]


class Gate:
    """Lets requests in by their key, and counts what they use.

    Counts of requests and tokens are kept in memory and written by `flush`: a crash loses the last
    second of them, and never a key.

    Args:
        store: The server's memory.
        clock: Seconds, for the limits.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._used: Counter[tuple[str, str]] = Counter()
        self._windows: dict[tuple[str, str], tuple[float, float]] = {}
        self._lock = threading.Lock()

    def admit(self, secret: str) -> Key:
        """Return who asks.

        Raises:
            Refused: 401 without a key that holds, 429 over its limit.
        """
        row = self._store.find(
            "SELECT name, requests_per_minute, tokens_per_minute, storage_bytes FROM key"
            " WHERE hash = ? AND revoked IS NULL",
            _hash(secret),
        )
        if row is None:
            raise Refused(401, "Unauthorized", headers={"WWW-Authenticate": "Bearer"})
        key = Key(*row)
        with self._lock:
            self._take(key.name, "requests", 1, key.requests_per_minute)
            self._take(key.name, "tokens", 0, key.tokens_per_minute)
            self._used[key.name, "requests"] += 1
        return key

    def count(self, key: Key, *, tokens_in: int = 0, tokens_out: int = 0) -> None:
        """Take note of tokens that were read and written."""
        with self._lock:
            self._used[key.name, "tokens_in"] += tokens_in
            self._used[key.name, "tokens_out"] += tokens_out
            if key.tokens_per_minute is not None:
                spent, since = self._level(key.name, "tokens", key.tokens_per_minute)
                self._windows[key.name, "tokens"] = (spent + tokens_in + tokens_out, since)

    def flush(self) -> None:
        """Write what was used since the last call."""
        with self._lock:
            used, self._used = self._used, Counter()
        if not used:
            return
        try:
            with self._store.write() as database:
                for (name, column), count in used.items():
                    database.execute(
                        f"UPDATE key SET {column} = {column} + ? WHERE name = ?",  # noqa: S608 (of COUNTS)
                        (count, name),
                    )
        except BaseException:  # a full disk: they count the next time
            with self._lock:
                self._used.update(used)
            raise

    def _level(self, name: str, what: str, limit: int) -> tuple[float, float]:
        """Return what is spent now of a limit that refills evenly, and the time."""
        now = self._clock()
        spent, since = self._windows.get((name, what), (0.0, now))
        return max(0.0, spent - (now - since) * limit / 60), now

    def _take(self, name: str, what: str, amount: int, limit: int | None) -> None:
        if limit is None:
            return
        spent, now = self._level(name, what, limit)
        over = spent + max(amount, 1) - limit
        if over > 0:
            wait = max(1, -(-int(over * 60) // max(1, limit)))
            raise Refused(
                429,
                f"Rate limit: {limit} {what} a minute for this key",
                headers={"Retry-After": str(min(wait, 120))},
            )
        self._windows[name, what] = (spent + amount, now)


def _hash(key: str) -> str:
    return hashlib.sha256(key.strip().encode("utf-8", "replace")).hexdigest()
