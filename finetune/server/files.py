"""Files on the server: kept by content, listed, signed, deleted."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.files import sync_folder
from finetune.server.contract import File, FileList
from finetune.server.keys import Key
from finetune.server.refusal import Refused
from finetune.server.store import Store
from finetune.server.uploads import Upload, describe

NO_FILE = "No file matches the given query."
_INCOMING = ".incoming-"
_PURPOSES = ("fine-tune", "batch", "ocr")


class Files:
    """The uploads of a server.

    Args:
        store: The server's memory.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = store.folder / "files"

    def incoming(self) -> Path:
        """Return where the next upload goes until it is whole."""
        return self._folder / f"{_INCOMING}{uuid.uuid4().hex}"

    def path(self, file_id: str) -> Path:
        """Return where a file's content lies."""
        return self._folder / file_id

    def add(self, upload: Upload, key: Key) -> File:
        """Keep an upload; one of the same name and content is returned as it is.

        Raises:
            Refused: 422: the form or the file is no good; 429: the key's storage is full.
        """
        purpose = upload.fields.get("purpose", "fine-tune")
        visibility = upload.fields.get("visibility", "workspace")
        expiry = upload.fields.get("expiry") or None
        try:
            _require("purpose", purpose, _PURPOSES)
            _require("visibility", visibility, ("workspace", "user"))
            if expiry is not None and not (expiry.isdigit() and 0 < int(expiry) <= 24 * 366):
                raise _fault("expiry", "a number of hours is expected")
            sample = describe(upload) if purpose == "fine-tune" else "batch_request"
            return self._keep(upload, key, purpose, sample, visibility, expiry)
        finally:
            upload.path.unlink(missing_ok=True)

    def _keep(
        self,
        upload: Upload,
        key: Key,
        purpose: str,
        sample: str,
        visibility: str,
        expiry: str | None,
    ) -> File:
        now = int(time.time())
        file = File.model_validate(
            {
                "id": str(uuid.uuid4()),
                "bytes": upload.bytes,
                "created_at": now,
                "filename": upload.filename,
                "purpose": purpose,
                "sample_type": sample,
                "source": "upload",
                "num_lines": upload.lines,
                "mimetype": "application/jsonl",
                "signature": upload.sha256[:16],
                "expires_at": now + int(expiry) * 3600 if expiry else None,
                "visibility": visibility,
            }
        )
        path = self.path(str(file.id))
        with self._store.write() as database:
            same = database.execute(
                "SELECT document FROM file WHERE sha256 = ? AND filename = ? AND purpose = ?"
                " AND visibility = ? AND (visibility = 'workspace' OR key = ?)",
                (upload.sha256, upload.filename, purpose, visibility, key.name),
            ).fetchone()
            if same is not None:
                return File.model_validate_json(same["document"])
            self._require_room(database, upload, key)
            upload.path.rename(path)
            sync_folder(self._folder)
            database.execute(
                "INSERT INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    str(file.id), key.name, now, file.filename, upload.sha256, file.bytes, purpose,
                    sample, file.mimetype, visibility, file.expires_at, file.model_dump_json(),
                ),
            )  # fmt: skip
        return file

    def _require_room(self, database: sqlite3.Connection, upload: Upload, key: Key) -> None:
        if key.storage_bytes is None:
            return
        row = database.execute("SELECT coalesce(sum(bytes), 0) FROM file WHERE key = ?", key[:1])
        if row.fetchone()[0] + upload.bytes > key.storage_bytes:
            raise Refused(
                429,
                f"Storage limit: {key.storage_bytes} bytes for this key; delete files first",
                headers={"Retry-After": "120"},
            )

    def find(self, file_id: str, key: Key | None) -> File:
        """Return a file.

        Args:
            file_id: Its number.
            key: Who asks; None for one who has a signed address.

        Raises:
            Refused: 404: there is none that this key may see.
        """
        row = self._store.find("SELECT key, visibility, document FROM file WHERE id = ?", file_id)
        hidden = row and key and row["visibility"] == "user" and row["key"] != key.name
        if row is None or hidden:
            raise Refused(404, NO_FILE)
        return File.model_validate_json(row["document"])

    def page(
        self,
        key: Key,
        *,
        page: int,
        page_size: int,
        include_total: bool,
        search: str | None,
        filters: dict[str, Sequence[str]],
    ) -> FileList:
        """Return a page of files, newest first.

        Args:
            key: Who asks.
            page: From 0.
            page_size: Files a page.
            include_total: Count those of all pages.
            search: A part of the name.
            filters: Column → the values that are let through.
        """
        where, values = "(visibility = 'workspace' OR key = ?)", [key.name]
        for column, wanted in filters.items():
            where += f" AND {column} IN ({', '.join('?' * len(wanted))})"
            values += wanted
        if search:
            where += " AND instr(lower(filename), lower(?))"
            values.append(search)
        rows = self._store.read(
            f"SELECT document FROM file WHERE {where}"  # noqa: S608 (columns are ours)
            " ORDER BY created DESC, rowid DESC LIMIT ? OFFSET ?",
            *values, page_size, page * page_size,
        )  # fmt: skip
        total = None
        if include_total:
            count = self._store.find(f"SELECT count(*) FROM file WHERE {where}", *values)  # noqa: S608
            total = count[0] if count else 0
        data = [File.model_validate_json(row["document"]) for row in rows]
        return FileList(data=data, total=total)

    def delete(self, file_id: str, key: Key) -> None:
        """Forget a file and its content; jobs that were made of it keep their own copy.

        Raises:
            Refused: 404: there is none that this key may see.
        """
        self.find(file_id, key)
        self._delete(file_id)

    def expire(self) -> None:
        """Delete the files whose time has come."""
        for row in self._store.read("SELECT id FROM file WHERE expires <= ?", int(time.time())):
            self._delete(row["id"])

    def sweep(self) -> None:
        """Remove what an earlier server left half-done; to be called before any request."""
        known = {row["id"] for row in self._store.read("SELECT id FROM file")}
        for path in self._folder.iterdir():
            if path.name not in known:
                path.unlink()

    def _delete(self, file_id: str) -> None:
        try:
            self._forget(file_id)
        except sqlite3.OperationalError:  # on a full disk its content makes the room for that
            self.path(file_id).unlink(missing_ok=True)
            self._forget(file_id)
        self.path(file_id).unlink(missing_ok=True)

    def _forget(self, file_id: str) -> None:
        with self._store.write() as database:
            database.execute("DELETE FROM file WHERE id = ?", (file_id,))

    def sign(self, file_id: str, hours: int) -> str:
        """Return the query that lets anyone read a file for some hours."""
        expires = int(time.time()) + hours * 3600
        return f"expires={expires}&signature={self._sign(file_id, expires)}"

    def is_signed(self, file_id: str, expires: int, signature: str) -> bool:
        """Tell whether a signed address holds."""
        right = hmac.compare_digest(self._sign(file_id, expires).encode(), signature.encode())
        return right and expires > time.time()

    def _sign(self, file_id: str, expires: int) -> str:
        text = f"{file_id} {expires}".encode()
        return hmac.new(self._store.secret, text, hashlib.sha256).hexdigest()


def _require(field: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise _fault(field, f"one of {', '.join(allowed)} is expected")


def _fault(field: str, fact: str) -> Refused:
    fault: dict[str, Any] = {"loc": ["body", field], "msg": fact, "type": "value_error"}
    return Refused(422, [fault])
