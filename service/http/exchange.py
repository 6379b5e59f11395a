"""One request and its answer, as ASGI has them: `receive` gives the body, `send` takes the answer.

An app that has a complete answer can hand it over as one, by `answer`, for less.
"""

import asyncio
import logging
from http import HTTPStatus
from typing import Protocol

from service.errors import ServiceError
from service.http.http1 import Head
from service.http.messages import App, Headers, Message, Response
from service.redaction import describe_exception

logger = logging.getLogger(__name__)

_STATUS_LINE = {status.value: b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_NO_CONTENT = (204, 304)
CLOSE = (b"connection", b"close")


def answer_head(status: int, *headers: Headers) -> bytes:
    """The head of an answer.

    Raises:
        RuntimeError: a header has more than one line.
    """
    lines = [_STATUS_LINE.get(status) or b"HTTP/1.1 %d \r\n" % status]
    for some in headers:
        lines += [b"%s: %s\r\n" % header for header in some]
    lines.append(b"\r\n")
    head = b"".join(lines)
    if head.count(b"\n") != len(lines):
        raise RuntimeError("a header of the answer has more than one line")
    return head


def _framing(headers: Headers) -> tuple[list[tuple[bytes, bytes]], int | None, bool]:
    """The headers but for `Connection: close`, the length that they say, and whether the connection may go on."""
    named = [(name.lower(), value) for name, value in headers]
    others = [header for header in named if header[0] != b"connection" or header[1].lower() != b"close"]
    length = next((int(value) for name, value in named if name == b"content-length"), None)
    return others, length, len(others) == len(named)


class Wire(Protocol):
    """What an exchange asks of its connection."""

    def write(self, data: bytes) -> None:
        """Sends it."""

    async def drain(self) -> None:
        """Waits until what was written is sent, or the connection has ended."""

    def answer(self, response: Response, body_bytes: int, keep_alive: bool = True) -> None:
        """Sends a complete answer to a request of which so much of a body was read; `keep_alive`: see begin_answer."""

    def want_body(self, ask: bool) -> None:
        """Reads on in the body; `ask`: the client waits for a word before it sends it."""

    def begin_answer(self, keep_alive: bool) -> tuple[Headers, bool]:
        """The headers of every answer, and whether the connection goes on after this one.

        Args:
            keep_alive: whether it may, by the answer's own headers.
        """

    def end_answer(self) -> None:
        """The answer is written."""

    def fail(self) -> None:
        """The answer cannot be finished."""


class Exchange:
    """Made when the head is there.

    Attributes:
        unread: bytes of the body that came and were not asked for.
    """

    __slots__ = (
        "_begun", "_body", "_chunked", "_complete", "_error", "_gone", "_head", "_left", "_more", "_silent", "_size",
        "_started", "_waiter", "_wire", "unread",
    )  # fmt: skip

    def __init__(self, head: Head, wire: Wire) -> None:
        self._head = head
        self._wire = wire
        self._body: list[bytes] = []
        self.unread = self._size = 0
        self._more = True  # whether `receive` has something to give but the client's leaving
        self._error: ServiceError | None = None  # why the rest of the body cannot be understood
        self._gone = False
        self._waiter: asyncio.Future[None] | None = None
        self._begun: tuple[int, Headers] | None = None  # status and headers that wait for the first part of the body
        self._started = self._complete = False
        self._silent = self._chunked = False  # an answer without a body; or with one whose length is not known
        self._left: int | None = None  # bytes that the answer says will come

    @property
    def started(self) -> bool:
        """Whether an answer has begun."""
        return self._started

    def feed(self, content: bytes) -> None:
        """A part of the body has come."""
        self._body.append(content)
        self._size += len(content)
        self.unread += len(content)
        self._wake()

    def leave(self) -> None:
        """The client has gone."""
        self._gone = True
        self._wake()

    def refuse(self, error: ServiceError) -> None:
        """The rest of the body cannot be understood; who reads it is told so."""
        self._error = error
        self._wake()

    async def run(self, app: App, scope: Message) -> None:
        """Lets an app answer."""
        try:
            await app(scope, self.receive, self.send)
        except Exception as error:  # the gate's own fault: it answers whatever happens behind it
            logger.error("a request was not answered: %s", describe_exception(error))
        finally:
            if not self._complete and not self._gone:
                self._wire.fail()

    async def receive(self) -> Message:
        """A part of the body; when there is nothing more, that the client has left or the answer is complete.

        Raises:
            ServiceError: the rest of the body cannot be understood.
        """
        while not (self._gone or self._complete):
            if self._error is not None:
                raise self._error
            ended = self._head.body is None or self._head.body.ended
            if self._body or (ended and self._more):
                content = b"".join(self._body)
                self._body.clear()
                self.unread = 0
                self._more = not ended
                return {"type": "http.request", "body": content, "more_body": not ended}
            if not ended:
                self._wire.want_body(self._head.expects_continue and not self._started)
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return {"type": "http.disconnect"}

    def answer(self, response: Response) -> None:
        """Sends a complete answer; see ANSWER."""
        if self._gone:
            return
        self._begin()
        self._end()
        self._wire.answer(response, self._size)

    async def send(self, message: Message) -> None:
        """Sends a part of the answer."""
        if self._gone:
            return
        if message["type"] == "http.response.start":
            self._begin()
            self._begun = message["status"], message.get("headers", ())
        elif message["type"] == "http.response.body":
            if not self._started:
                raise RuntimeError("an answer begins with its status")
            content, more = message.get("body", b""), message.get("more_body", False)
            if self._begun is not None and not more:
                self._send_whole(*self._begun, content)
                return
            head = b"" if self._begun is None else self._first(*self._begun)
            self._begun = None
            data = head + self._framed(content, more)
            if data:
                self._wire.write(data)
            if more:
                await self._wire.drain()
            else:
                self._end()
                self._wire.end_answer()
        else:
            raise RuntimeError(f"there is no such message: {message['type']!r}")

    def _begin(self) -> None:
        if self._started:
            raise RuntimeError("an answer has one beginning")
        self._started = True

    def _end(self) -> None:
        self._complete = True
        self._wake()

    def _send_whole(self, status: int, headers: Headers, content: bytes) -> None:
        """Sends an answer of one part, as one that was complete from the start."""
        headers, length, keep_alive = _framing(headers)
        silent = self._head.method == "HEAD" or status in _NO_CONTENT
        if silent:
            content = b""
        elif length is None:
            headers.append((b"content-length", b"%d" % len(content)))
        elif length != len(content):
            raise RuntimeError("the answer does not have the length that it says")
        self._end()
        self._wire.answer(Response(status, headers, content), self._size, keep_alive)

    def _first(self, status: int, headers: Headers) -> bytes:
        """The head of an answer of several parts."""
        headers, self._left, keep_alive = _framing(headers)
        always, keep_alive = self._wire.begin_answer(keep_alive)
        self._silent = self._head.method == "HEAD" or status in _NO_CONTENT
        if self._left is None and not self._silent and self._head.latest:
            self._chunked = True
            headers.append((b"transfer-encoding", b"chunked"))
        return answer_head(status, always, headers, () if keep_alive else (CLOSE,))

    def _framed(self, content: bytes, more: bool) -> bytes:
        if self._silent:
            return b""
        if self._chunked:
            chunk = b"%x\r\n%s\r\n" % (len(content), content) if content else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if self._left is not None:
            self._left -= len(content)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the answer does not have the length that it says")
        return content

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
