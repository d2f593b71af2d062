"""Access: to which address a request goes, and with which key."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import re
import shlex
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
        url: That paths of the API are put behind, such as `https://api.mistral.ai/v1`.
        host: Name and port, for people.
        local: It is this machine: nothing leaves it.
        own: It is one of Mistral's.
    """

    url: str
    host: str
    local: bool
    own: bool

    @property
    def option(self) -> str:
        """What a command of `finetune platform` needs to go there."""
        return "" if self.host == HOST else f" --host {shlex.quote(self.url)}"


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
        text: Such as `api.mistral.ai` or `http://127.0.0.1:8000`; `/v1` is added where it is not.
        place: Where it was written, for messages.

    Raises:
        RecipeError: It is none, holds a password, or would carry the key unencrypted.
    """
    address = _read(text, place)
    _require_encrypted(address, place)
    path = "" if address.url.endswith("/v1") else "/v1"
    return address._replace(url=address.url + path)


def read_endpoint(
    text: str, given: str | None, environment: Mapping[str, str], *, place: str
) -> tuple[Address, Key | None]:
    """Return the address of an OpenAI-compatible service, and the key that it gets.

    Args:
        text: Such as `https://api.mistral.ai/v1`; a path stays as it is written.
        given: What `--api-key-file` holds; else Mistral's own hosts get MISTRAL_API_KEY.
        environment: Where that is looked for.
        place: Where the address was written, for messages.

    Raises:
        RecipeError: It is none, holds a password, or would carry a key unencrypted.
        PlatformError: The key cannot be one.
    """
    address = _read(text, place)
    if urlsplit(address.url).path == "":
        address = address._replace(url=f"{address.url}/v1")
    value = given or (environment.get(VARIABLE) if address.own else None)
    if not value:
        return address, None
    _require_encrypted(address, place)
    return address, Key(value)


def _read(text: str, place: str) -> Address:
    written = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(written)
        good = parts.hostname and parts.port != 0 and written.isascii() and written.isprintable()
    except ValueError:
        good = None
    wrong = parts.username or parts.password or parts.query or parts.fragment if good else True
    if wrong or parts.scheme not in ("http", "https"):
        raise RecipeError(
            f"{place}: not a host or an http(s) address without password, query and fragment",
            hint=f"such as {HOST} or http://127.0.0.1:8000",
        )
    name = parts.hostname or ""
    own = name == "mistral.ai" or name.endswith(".mistral.ai")
    url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    return Address(url, parts.netloc, _is_here(name), own)


def _require_encrypted(address: Address, place: str) -> None:
    if not (address.local or address.url.startswith("https:")):
        raise RecipeError(
            f"{place}: `{safe(address.host)}` would get the key unencrypted",
            hint="use an address that begins with https://",
        )


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
        hint=f"set {VARIABLE}, or give `--api-key-file FILE` (`-` is standard input), or keep it in"
        f" the keyring (extra `keyring`): `keyring set finetune {safe(address.host)}`",
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
