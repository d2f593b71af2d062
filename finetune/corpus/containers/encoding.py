"""Encodings: told from the first bytes, by evidence and not by guess; everything becomes UTF-8.

1. A byte order mark decides.
2. Without one, text is UTF-16 or UTF-32 where the NULs of its first characters say which, and 99 of
   100 characters of its head then are some.
3. Text that is UTF-8 is UTF-8. So is text with single faults: their lines are rejected.
4. Text is cp1252, the superset of latin-1 that Windows programs write, where all of this holds in
   its head: high bytes stand in at least two places; 99 of 100 places are not UTF-8, and hold
   only letters and signs that texts of Western European languages use; and 95 of 100 hold one or
   two, not words, as those of other alphabets do.
"""

from __future__ import annotations

import codecs
import io
import re
from typing import Any

from finetune.files import Stream

_CHUNK = 2**18
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Where the NULs stand in two ASCII characters.
_NULS = (
    (re.compile(rb"[^\0]\0\0\0[^\0]\0\0\0"), "utf-32-le"),
    (re.compile(rb"\0\0\0[^\0]\0\0\0[^\0]"), "utf-32-be"),
    (re.compile(rb"[^\0]\0[^\0]\0"), "utf-16-le"),
    (re.compile(rb"\0[^\0]\0[^\0]"), "utf-16-be"),
)
_HIGH = re.compile(rb"[\x80-\xff]+")
_UTF8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
# Not among them: what the central European code pages have in the place of other letters.
_WESTERN = frozenset(
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüŒœŠšŽžŸ"
    "‘’“”‚„‹›«»…–—•·€£§©®™°ªº¡¿½¼\xa0".encode("cp1252")
)
_KEEP_BROKEN = "finetune.keep-broken"


def _keep_broken(error: UnicodeError) -> tuple[str, int]:
    """Put half a surrogate pair in the place of what cannot be decoded, for the row's parser."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end


codecs.register_error(_KEEP_BROKEN, _keep_broken)


def find_encoding(head: bytes) -> tuple[str, int]:
    """Return the encoding of a text, and the length of its byte order mark.

    Args:
        head: Its first bytes, which may end inside a character.
    """
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding, len(mark)
    for pattern, encoding in _NULS:
        if pattern.match(head) and _is_text(head, encoding):
            return encoding, 0
    return ("cp1252" if _is_western(head) else "utf-8"), 0


def _is_text(head: bytes, encoding: str) -> bool:
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    return "\0" not in text and 100 * text.count("\ufffd") <= len(text)


def _is_western(head: bytes) -> bool:
    if head.isascii() or b"\0" in head:
        return False
    runs = _HIGH.findall(head)
    if len(runs) < 2:
        return False
    bad = (
        len(_UTF8.findall(head)),
        sum(not _WESTERN.issuperset(run) for run in runs),
        sum(len(run) > 2 for run in runs) / 5,
    )
    return all(100 * count <= len(runs) for count in bad)


class Transcoded(io.RawIOBase):
    """A text as UTF-8, a piece at a time.

    What its own encoding does not allow is no UTF-8 either, so that only its row is rejected.

    Args:
        stream: The text, behind its byte order mark.
        encoding: As `find_encoding` gives it.
    """

    def __init__(self, stream: Stream, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(_KEEP_BROKEN)
        self._ready = b""

    @property
    def damage(self) -> tuple[str, str] | None:
        """What is wrong with the file that the text stands in."""
        return self._stream.damage

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Give what is ready, once there is something."""
        while not self._ready:
            data = self._stream.read(_CHUNK)
            text = self._decoder.decode(data, final=not data)
            self._ready = text.encode("utf-8", "surrogatepass")
            if not data and not self._ready:
                return 0
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size
