"""The server's memory: one SQLite file, and the folders beside it.

server.sqlite3        files, jobs, tuned models, keys and what each used
files/<id>            what was uploaded
jobs/<id>/            request, recipe, what validation found, the worker's words
runs/<id>/            the run of a job: the only truth about its training
datasets/             what the runs train on

What a call has acknowledged is on the disk: every write is one transaction, synced at its end.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune.errors import RunError

VERSION = 1
_TABLES = """
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE key (
    name TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, revoked INTEGER,
    requests_per_minute INTEGER, tokens_per_minute INTEGER, storage_bytes INTEGER,
    requests INTEGER NOT NULL DEFAULT 0, tokens_in INTEGER NOT NULL DEFAULT 0,
    tokens_out INTEGER NOT NULL DEFAULT 0, trained_tokens INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE file (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, created INTEGER NOT NULL, filename TEXT NOT NULL,
    sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, purpose TEXT NOT NULL, sample_type TEXT NOT NULL,
    mimetype TEXT NOT NULL, visibility TEXT NOT NULL, expires INTEGER, document TEXT NOT NULL
) STRICT;
CREATE INDEX file_content ON file (sha256, filename);
CREATE TABLE job (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, created INTEGER NOT NULL, model TEXT NOT NULL,
    suffix TEXT, status TEXT NOT NULL, digest TEXT NOT NULL, document TEXT NOT NULL
) STRICT;
CREATE INDEX job_status ON job (status);
CREATE TABLE model (
    id TEXT PRIMARY KEY, created INTEGER NOT NULL, job TEXT NOT NULL UNIQUE, deleted INTEGER,
    archived INTEGER NOT NULL DEFAULT 0, name TEXT, description TEXT, document TEXT NOT NULL
) STRICT;
"""


class Store:
    """The database of a server's folder.

    Reads need no lock and never wait for a write (write-ahead log); writes come one at a time,
    also from other processes. Safe to use from several threads.

    Args:
        folder: The server's folder; made where it is missing, for its owner alone.

    Raises:
        RunError: It was written by a newer version, or is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for path in (folder, *(folder / name for name in ("files", "jobs", "runs", "datasets"))):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / "server.sqlite3"
        self._threads = threading.local()
        try:
            self._open()
        except sqlite3.Error as error:
            raise RunError(
                f"{self._path}: can't be used: {error}",
                hint="put back a backup of the folder, or name another with `--folder`",
            ) from None

    def _open(self) -> None:
        """Make the tables where there are none.

        Raises:
            RunError: A newer version wrote them.
        """
        with self.write() as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise RunError(f"{self._path}: written by a newer version of this tool")
            if version < VERSION:
                for statement in _TABLES.split(";\n"):
                    database.execute(statement)
                secret = secrets.token_hex(32)
                database.execute("INSERT INTO setting VALUES ('secret', ?)", (secret,))
                database.execute(f"PRAGMA user_version = {VERSION}")

    def read(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """Return the rows of a query."""
        rows: list[sqlite3.Row] = self._connection().execute(query, values).fetchall()
        return rows

    def find(self, query: str, *values: Any) -> sqlite3.Row | None:
        """Return the first row of a query, None where it has none."""
        row: sqlite3.Row | None = self._connection().execute(query, values).fetchone()
        return row

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Give the database for one transaction: on the disk when the block ends, or undone."""
        database = self._connection()
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:  # a full disk may have ended it already
                database.execute("ROLLBACK")
            raise

    @property
    def secret(self) -> bytes:
        """What signed addresses are signed with."""
        row = self.find("SELECT value FROM setting WHERE name = 'secret'")
        return bytes.fromhex(row["value"]) if row else b""

    def _connection(self) -> sqlite3.Connection:
        if not hasattr(self._threads, "connection"):
            connection = sqlite3.connect(self._path, timeout=60, isolation_level=None)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            self._threads.connection = connection
        found: sqlite3.Connection = self._threads.connection
        return found
