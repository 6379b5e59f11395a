"""The coding of a body (RFC 9110, 8.4.1): it is unpacked part by part as it comes, and no further than asked."""

import zlib
from typing import Protocol

from service.errors import InvalidRequest, UnsupportedEncoding

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # as zlib numbers the formats: RFC 1952, and RFC 1950


class Coding(Protocol):
    """One body's."""

    def unpack(self, part: bytes, most: int) -> bytes:
        """What the next part of the body holds.

        Args:
            most: bytes of it that are given out, above 0; where there are as many, the rest is lost.

        Raises:
            InvalidRequest: it is not of that coding.
        """

    def end(self) -> None:
        """There is no further part.

        Raises:
            InvalidRequest: something is missing.
        """


class Identity:
    """No coding."""

    def unpack(self, part: bytes, most: int) -> bytes:
        """See Coding."""
        return part[:most]

    def end(self) -> None:
        """See Coding."""


class Compressed:
    """gzip or deflate."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stream = zlib.decompressobj(_WINDOW_BITS[name])

    def unpack(self, part: bytes, most: int) -> bytes:
        """See Coding."""
        try:
            content = self._stream.decompress(part, most)
        except zlib.error:
            raise InvalidRequest(f"the body is not {self._name}, as its Content-Encoding says") from None
        if self._stream.unused_data:  # another member of gzip would be allowed, and as many as there is room for
            raise InvalidRequest(f"something follows the end of the {self._name} body; send it in one piece")
        return content

    def end(self) -> None:
        """See Coding."""
        if not self._stream.eof:
            raise InvalidRequest(f"the {self._name} body ends too early")


def coding_of(content_encoding: str | None) -> Coding:
    """The coding that a header names.

    Raises:
        UnsupportedEncoding: it is none of those.
    """
    name = (content_encoding or "identity").strip().lower()
    if name == "identity":
        return Identity()
    if name not in _WINDOW_BITS:
        raise UnsupportedEncoding(f"the content encoding is {name[:64]!r}; send gzip, deflate, or the body as it is")
    return Compressed(name)
