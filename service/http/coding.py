"""The coding of a body (RFC 9110, 8.4.1).

It is unpacked when all of it is there, and no further than asked. Until then a client makes the service hold no more
than it has sent: 1 KB may unpack to 1 MB, and clients may be many, and slow.
"""

import zlib

from service.errors import InvalidRequest, UnsupportedEncoding

NONE = "identity"
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # as zlib numbers the formats: RFC 1952, and RFC 1950


def coding_of(content_encoding: str | None) -> str:
    """The coding that a header names.

    Raises:
        UnsupportedEncoding: it is none of those that can be unpacked.
    """
    name = (content_encoding or NONE).strip().lower()
    if name != NONE and name not in _WINDOW_BITS:
        raise UnsupportedEncoding(f"the content encoding is {name[:64]!r}; send gzip, deflate, or the body as it is")
    return name


def unpack(coding: str, body: bytes, most: int) -> bytes:
    """What a complete body holds.

    Args:
        coding: see `coding_of`.
        most: bytes of it that are given out, above 0; where there are as many, the rest is lost.

    Raises:
        InvalidRequest: it is not of that coding, or not one of it and no more.
    """
    if coding == NONE:
        return body[:most]
    stream = zlib.decompressobj(_WINDOW_BITS[coding])
    try:
        content = stream.decompress(body, most)
    except zlib.error:
        raise InvalidRequest(f"the body is not {coding}, as its Content-Encoding says") from None
    if stream.unused_data:  # another member of gzip would be allowed, and as many as there is room for
        raise InvalidRequest(f"something follows the end of the {coding} body; send it in one piece")
    if not stream.eof and len(content) < most:
        raise InvalidRequest(f"the {coding} body ends too early")
    return content
