"""An OpenAI-compatible chat endpoint: asked one thing at a time, within bounds."""

from __future__ import annotations

import ipaddress
import json
import time
from typing import Any
from urllib.parse import urlsplit

from finetune import __version__
from finetune.errors import PlatformError, RecipeError
from finetune.text import safe

_MOST_BYTES = 2**20  # of a reply
_MOST_TOKENS = 512  # some judges think before the word
_TRIES = 3
_LONGEST_PAUSE = 20.0  # seconds
_BUSY = (408, 429, 500, 502, 503, 504)
_KEY_HOST = "mistral.ai"  # whose key MISTRAL_API_KEY is


class Endpoint:
    """One model behind one address.

    Redirects are not followed, and proxies are the environment's.

    Args:
        url: Such as `https://api.mistral.ai/v1`; `/chat/completions` is added.
        model: The model's name there.
        key: Sent as a bearer token; None sends none.
        timeout: Seconds that one question may take, from the first try to the last byte.

    Raises:
        RecipeError: The address is none, holds a password, or would carry a key unencrypted.
    """

    def __init__(
        self, url: str, model: str, *, key: str | None = None, timeout: float = 60
    ) -> None:
        self.host = read_host(url)
        if key and urlsplit(url).scheme != "https" and not is_here(url):
            raise RecipeError(
                f"evaluation.judge.url: a key would go to `{safe(self.host)}` unencrypted",
                hint="use an address that begins with https://",
            )
        self._url = url.rstrip("/") + "/chat/completions"
        self._model = model
        self._headers = {"user-agent": f"finetune/{__version__}"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        self._timeout = timeout

    def ask(self, system: str, user: str) -> str:
        """Return the model's reply.

        Raises:
            PlatformError: It refuses, cannot be reached, takes too long, or sends something else.
        """
        deadline = time.monotonic() + self._timeout
        body = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": user},
            ],
            "temperature": 0,
            "max_tokens": _MOST_TOKENS,
            "stream": False,
        }
        for attempt in range(1, _TRIES + 1):
            status, wait, content = self._post(body, deadline)
            if status == 200:
                return self._read(content)
            pause = min(_LONGEST_PAUSE, wait if wait is not None else 2.0**attempt / 2)
            late = time.monotonic() + pause > deadline
            if status not in _BUSY or attempt == _TRIES or late:
                break
            time.sleep(pause)
        raise self._error(status)

    def _post(self, body: dict[str, Any], deadline: float) -> tuple[int, float | None, bytes]:
        """Return the status, the seconds that it asks to wait, and the content."""
        import httpx2

        left = max(0.1, deadline - time.monotonic())
        content = bytearray()
        try:
            with httpx2.stream(
                "POST", self._url, json=body, headers=self._headers, timeout=left
            ) as response:
                for part in response.iter_bytes():
                    content += part
                    if len(content) > _MOST_BYTES:
                        raise self._fault(f"its reply is larger than {_MOST_BYTES:,} bytes")
                    if time.monotonic() > deadline:
                        raise self._fault(f"no reply within {self._timeout:g} s")
                wait = response.headers.get("retry-after", "")
                return response.status_code, float(wait) if wait.isdigit() else None, bytes(content)
        except httpx2.TimeoutException:
            raise self._fault(f"no reply within {self._timeout:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise self._fault(f"cannot be reached: {type(error).__name__}") from None

    def _read(self, content: bytes) -> str:
        try:
            reply = json.loads(content)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            reply = None
        if not isinstance(reply, str):
            raise self._fault("its reply is no chat completion")
        return reply

    def _error(self, status: int) -> PlatformError:
        if status in (401, 403):
            return PlatformError(
                f"judge {safe(self.host)}: the key is missing or refused: {status}",
                exit_code=4,
                hint="`finetune evaluate RUN --api-key-file FILE`, or MISTRAL_API_KEY for"
                f" hosts of {_KEY_HOST}",
            )
        return self._fault(f"answered {status}")

    def _fault(self, fact: str) -> PlatformError:
        return PlatformError(
            f"judge {safe(self.host)}: {fact}",
            hint="check `evaluation.judge`; `finetune evaluate RUN` judges again",
        )


def read_host(url: str) -> str:
    """Return the host and port of an address.

    Raises:
        RecipeError: It is no address that can be asked.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = None
    if not good or parts.username or parts.password or parts.query or parts.fragment:
        raise RecipeError(
            "evaluation.judge.url: not an http(s) address without password, query and fragment",
            hint="such as https://api.mistral.ai/v1",
        )
    return parts.netloc


def is_here(url: str) -> bool:
    """Return whether an address is this machine's own, so that nothing leaves it."""
    name = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def choose_key(url: str, given: str | None, environment: str | None) -> str | None:
    """Return the key to send: the given one, or Mistral's to Mistral's own hosts alone.

    Args:
        url: The judge's address.
        given: What `--api-key-file` holds.
        environment: MISTRAL_API_KEY.
    """
    if given:
        return given
    name = urlsplit(url).hostname or ""
    own = name == _KEY_HOST or name.endswith("." + _KEY_HOST)
    return environment if own else None
