"""HTTP/1.1 as bytes (RFC 9112): what the head of a request says, and where its body ends. Knows no sockets.

Strict: whatever two readers could understand differently, such as a proxy and this service, is refused. So a request
has one length, an `Upgrade` that nobody takes changes nothing, and trailers are read and dropped.

Ours, and not httptools', which cannot be stopped where a request ends, so that whatever came in one piece has to be
understood at once; which takes an `Upgrade` for the end of HTTP; and which gives trailers out as headers.
"""

import re
from dataclasses import dataclass
from typing import Protocol

from service.errors import (
    HeadersTooLarge,
    HttpVersionNotSupported,
    MalformedRequest,
    PayloadTooLarge,
    UnsupportedTransfer,
    UriTooLong,
)
from service.http.messages import Headers

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(%s) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])" % _TOKEN)
_BEGINNING = re.compile(rb"(%s) (/[\x21-\x3e\x40-\x7e]*)" % _TOKEN)
_FIELD = re.compile(rb"%s:[\t\x20-\x7e\x80-\xff]*+" % _TOKEN)
_FIELDS = re.compile(rb"(?:\r\n%s)*+" % _FIELD.pattern)
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]*)(?::[0-9]*)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)([^#]*)", re.IGNORECASE)
_BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")

_CONTINUE = b"100-continue"
_CLOSE = b"close"
# What says how a request is read; of these only lists may come twice.
_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"})
_LISTS = frozenset({b"transfer-encoding", b"connection", b"expect"})


@dataclass(frozen=True)
class Bounds:
    """How large the parts of a request may be around its content.

    Attributes:
        overhead_bytes: chunk sizes, chunk extensions and trailers; as many again as half of the content may come.
    """

    head_bytes: int = 65536
    headers: int = 100
    target_bytes: int = 8192
    overhead_bytes: int = 16384


class Body(Protocol):
    """What is still to come of a request's body.

    Attributes:
        ended: whether that is nothing.
        left: bytes that are known to come; None where only the end will tell.
    """

    ended: bool

    @property
    def left(self) -> int | None: ...

    def read(self, data: bytes | bytearray) -> tuple[bytes, int]:
        """The content at the start of `data`, and how many bytes of `data` are done with.

        Raises:
            MalformedRequest, HeadersTooLarge, PayloadTooLarge: the connection cannot go on.
        """


@dataclass(slots=True)
class Head:
    """The head of a request.

    Attributes:
        target: as it was sent, but for the scheme and authority of an absolute one.
        headers: with lower-case names.
        latest: whether the client speaks HTTP/1.1; otherwise 1.0.
        keep_alive: whether the client wants to go on after the answer.
        expects_continue: whether it waits for a word before it sends the body.
        body: None where there is none.
    """

    method: str
    target: bytes
    headers: Headers
    latest: bool
    keep_alive: bool
    expects_continue: bool
    body: Body | None


def skip_empty_lines(data: bytes | bytearray) -> bytes | bytearray:
    """What comes after empty lines, which may stand before a request."""
    match = _EMPTY_LINES.match(data)
    return data if match is None else data[match.end() :]


def find_end(data: bytes | bytearray, start: int, bounds: Bounds) -> int:
    """Where the head at the start of `data` ends, without its empty line; -1 where that has not come.

    Args:
        start: how far it was looked for before.

    Raises:
        UriTooLong, HeadersTooLarge, MalformedRequest: it can only become one that is refused.
    """
    end = data.find(b"\r\n\r\n", max(0, start - 3))
    if end < 0:
        if len(data) > bounds.target_bytes and data.find(b"\r\n", 0, bounds.target_bytes + 64) < 0:
            raise _too_long(bounds)
        if _BARE_LINE_END.search(data, max(0, start - 1)):
            raise MalformedRequest("a line of the head does not end in CR LF")
    if end > bounds.head_bytes or (end < 0 and len(data) > bounds.head_bytes):
        raise HeadersTooLarge(f"the head has more than {bounds.head_bytes} bytes; send fewer or shorter headers")
    return end


def guess_request(data: bytes | bytearray) -> tuple[str, bytes]:
    """Method and path, without query, of what may be no request; empty where it does not even begin like one."""
    match = _BEGINNING.match(data)
    return ("", b"") if match is None else (match[1].decode(), match[2])


def parse_head(data: bytes, bounds: Bounds) -> Head:
    """Reads a head, without the empty line that ends it.

    Raises:
        MalformedRequest, UriTooLong, HeadersTooLarge, UnsupportedTransfer, HttpVersionNotSupported: it is refused, and
            nothing that follows it can be understood.
    """
    line, *fields = data.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        if len(line) > bounds.target_bytes:
            raise _too_long(bounds)
        raise MalformedRequest("the first line is not METHOD TARGET HTTP/1.1")
    method, target, major, minor = match.groups()
    if len(target) > bounds.target_bytes:
        raise _too_long(bounds)
    if major != b"1":
        raise HttpVersionNotSupported("send HTTP/1.1")
    if len(fields) > bounds.headers:
        raise HeadersTooLarge(f"there are more than {bounds.headers} headers; send fewer")
    if _FIELDS.fullmatch(data, len(line)) is None:
        raise MalformedRequest("a line of the head is not NAME: VALUE")
    headers, framing = _split(fields)
    latest = minor != b"0"
    host = framing.get(b"host")
    if host is None:
        if latest:
            raise MalformedRequest("there is no Host header")
    elif _HOST.fullmatch(host) is None:
        raise MalformedRequest("the Host header is not HOST or HOST:PORT")
    url = None if target.startswith(b"/") else _ABSOLUTE.fullmatch(target)
    if url is not None:
        headers = _addressed(headers, url[1])
    body = _body(framing, latest, bounds)
    return Head(
        method.decode(),
        target if target.startswith(b"/") else _path(method, target),
        headers,
        latest,
        latest and _CLOSE not in _tokens(framing.get(b"connection")),
        latest and body is not None and _CONTINUE in _tokens(framing.get(b"expect")),
        body,
    )


def _split(fields: list[bytes]) -> tuple[Headers, dict[bytes, bytes]]:
    """Names and values of all fields, and of those that say how the request is read."""
    headers: list[tuple[bytes, bytes]] = []
    framing: dict[bytes, bytes] = {}
    for field in fields:
        name, _, value = field.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        headers.append((name, value))
        if name in _FRAMING:
            if name in framing:
                if name not in _LISTS:
                    raise MalformedRequest(f"there is more than one {name.decode()} header")
                value = framing[name] + b"," + value
            framing[name] = value
    return headers, framing


def _addressed(headers: Headers, authority: bytes) -> Headers:
    """With the authority of a URL as their host, whatever they say (RFC 9112 3.2.2)."""
    if _HOST.fullmatch(authority) is None:
        raise MalformedRequest("the authority of the target is not HOST or HOST:PORT")
    return [(b"host", authority), *(header for header in headers if header[0] != b"host")]


def _tokens(value: bytes | None) -> list[bytes]:
    return [] if value is None else [token.strip(b" \t") for token in value.lower().split(b",")]


def _path(method: bytes, target: bytes) -> bytes:
    """The origin form of a target that has another."""
    if method == b"CONNECT":
        raise UnsupportedTransfer("this is no proxy")
    if target == b"*" and method == b"OPTIONS":
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise MalformedRequest("the target is neither a path nor a URL")
    path = match[2]
    return path if path.startswith(b"/") else b"/" + path


def _body(framing: dict[bytes, bytes], latest: bool, bounds: Bounds) -> Body | None:
    coding, length = framing.get(b"transfer-encoding"), framing.get(b"content-length")
    if coding is not None:
        if length is not None or not latest:
            raise MalformedRequest("Transfer-Encoding goes neither with Content-Length nor with HTTP/1.0")
        tokens = _tokens(coding)
        if tokens == [b"chunked"]:
            return Chunked(bounds)
        if tokens[-1] == b"chunked" and tokens.count(b"chunked") == 1:
            raise UnsupportedTransfer("the transfer coding is not chunked alone")
        raise MalformedRequest("the last transfer coding is not chunked, or not the only chunked one")
    if length is None:
        return None
    if _LENGTH.fullmatch(length) is None:
        raise MalformedRequest("the Content-Length is not a number of bytes")
    return Sized(int(length)) if length.strip(b"0") else None


def _too_long(bounds: Bounds) -> UriTooLong:
    return UriTooLong(f"the target has more than {bounds.target_bytes} bytes")


class Sized:
    """A body whose length is known."""

    def __init__(self, length: int) -> None:
        self.left = length
        self.ended = False

    def read(self, data: bytes | bytearray) -> tuple[bytes, int]:
        """See Body."""
        content = bytes(data[: self.left])
        self.left -= len(content)
        self.ended = not self.left
        return content, len(content)


class Chunked:
    """A body in chunks.

    size ──CRLF──▶ content ──all of it──▶ line end ──CRLF──▶ size
      └──0, CRLF──▶ trailers ──empty line──▶ ended
    """

    left = None

    def __init__(self, bounds: Bounds) -> None:
        self.ended = False
        self._bounds = bounds
        self._content = 0  # bytes still to come of this chunk
        self._in_trailers = self._at_end = False
        self._allowed = float(bounds.overhead_bytes)  # bytes that are no content

    def read(self, data: bytes | bytearray) -> tuple[bytes, int]:
        """See Body."""
        parts: list[bytes] = []
        at = 0
        while at < len(data) and not self.ended:
            if self._content:
                part = bytes(data[at : at + self._content])
                parts.append(part)
                at += len(part)
                self._content -= len(part)
                self._allowed += len(part) / 2
                self._at_end = not self._content
                continue
            if self._at_end and data[at : at + 2] not in (b"\r\n", b"\r"):
                raise MalformedRequest("a chunk is longer than its size")
            end = data.find(b"\r\n", at, at + int(self._allowed) + 2)
            if end < 0:
                self._require_room(len(data) - at)
                if _BARE_LINE_END.search(data, at):
                    raise MalformedRequest("a line between the chunks does not end in CR LF")
                break
            self._require_room(end + 2 - at)
            self._allowed -= end + 2 - at
            self._take_line(bytes(data[at:end]))
            at = end + 2
        return b"".join(parts), at

    def _take_line(self, line: bytes) -> None:
        if self._in_trailers:
            if line and _FIELD.fullmatch(line) is None:
                raise MalformedRequest("a trailer is not NAME: VALUE")
            self.ended = not line
        elif self._at_end:
            self._at_end = False
        else:
            match = _CHUNK.fullmatch(line)
            if match is None:
                raise MalformedRequest("the size of a chunk is not a hexadecimal number")
            self._content = int(match[1], 16)
            self._in_trailers = not self._content

    def _require_room(self, size: int) -> None:
        if size <= self._allowed:
            return
        if self._in_trailers:
            raise HeadersTooLarge(f"the trailers have more than {self._bounds.overhead_bytes} bytes; send none")
        raise PayloadTooLarge("the chunks are too small, or their extensions too long; send larger ones")
