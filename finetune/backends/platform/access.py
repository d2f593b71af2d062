"""Access: to which address a request goes, and with which key."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from finetune.catalog import HOST
from finetune.errors import PlatformError, RecipeError, UsageError
from finetune.text import redact, safe

EMBEDDED = "embedded"  # the value of `platform.host` for a server of our own
VARIABLE = "MISTRAL_API_KEY"
_UNLOCKED = 3.0  # seconds that a keyring may take
_KEY = re.compile(r"[\x21-\x7e]{8,256}")


class Address(NamedTuple):
    """Where a service is.

    Attributes:
        url: Without a slash at its end.
        host: Name and port, for people.
        local: It is this machine: nothing leaves it.
        own: It is one of Mistral's.
    """

    url: str
    host: str
    local: bool
    own: bool


class Key:
    """An API key that does not print itself.

    Args:
        value: As it was read; spaces and line ends around it are taken off.
        origin: Where it was read, for messages.

    Raises:
        PlatformError: It cannot be a key.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str, origin: str = VARIABLE) -> None:
        value = value.strip()
        if not _KEY.fullmatch(value):
            raise PlatformError(
                f"{origin}: is no key: {len(value)} characters, expected 8 to 256 without spaces",
                exit_code=4,
            )
        self._value = value

    def __repr__(self) -> str:
        return "Key(***)"

    def reveal(self) -> str:
        """Return the key itself, to be sent and nothing else."""
        return self._value

    def hide(self, text: str) -> str:
        """Return a text without the key, and without what looks like one."""
        return redact(text, [self._value])


def read_address(text: str, *, place: str = "platform.host") -> Address:
    """Return the address that a host's name or a URL means.

    Args:
        text: Such as `api.mistral.ai` or `http://127.0.0.1:8000`.
        place: Where it was written, for messages.

    Raises:
        RecipeError: It is none, holds a password, or would carry the key unencrypted.
    """
    written = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(written)
        good = parts.hostname and parts.port != 0 and written.isascii() and written.isprintable()
    except ValueError:
        good = None
    if not good or parts.username or parts.password or parts.query or parts.fragment:
        raise RecipeError(
            f"{place}: not a host or an address without password, query and fragment",
            hint=f"such as {HOST} or http://127.0.0.1:8000",
        )
    name = parts.hostname or ""
    local = _is_here(name)
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise RecipeError(
            f"{place}: `{safe(parts.netloc)}` would get the key unencrypted",
            hint="use an address that begins with https://",
        )
    path = parts.path.rstrip("/").removesuffix("/v1")
    own = name == "mistral.ai" or name.endswith(".mistral.ai")
    return Address(f"{parts.scheme}://{parts.netloc}{path}", parts.netloc, local, own)


def read_key(path: Path) -> Key:
    """Return the key in a file.

    Raises:
        UsageError: The file cannot be read.
        PlatformError: It holds none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a key: {type(error).__name__}") from None
    return Key(text, str(path))


def find_key(address: Address, environment: Mapping[str, str]) -> Key:
    """Return the key of a service: that of MISTRAL_API_KEY, else that of the keyring.

    Raises:
        PlatformError: There is none.
    """
    if environment.get(VARIABLE):
        return Key(environment[VARIABLE])
    kept = _ask_keyring(address.host)
    if kept:
        return Key(kept, "the keyring")
    raise PlatformError(
        f"{safe(address.host)}: no key",
        exit_code=4,
        hint=f"set {VARIABLE}, or give `--api-key-file FILE` (`-` is standard input)",
    )


def _ask_keyring(host: str) -> str | None:
    """Return the key that the desktop's keyring holds for `finetune` and this host.

    Where the library `keyring` is not installed, or nobody unlocks the ring in time, there is none.
    """
    if importlib.util.find_spec("keyring") is None:
        return None
    found: list[str | None] = []

    def ask() -> None:
        with contextlib.suppress(Exception):
            found.append(importlib.import_module("keyring").get_password("finetune", host))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_UNLOCKED)
    return found[0] if found else None


def _is_here(name: str) -> bool:
    try:
        return "%" not in name and ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
