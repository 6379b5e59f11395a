"""HTTP/1.1 as uvicorn speaks it, and what makes it fit for a service whose model answers in a millisecond.

- An answer is sent in one piece. uvicorn writes its head and its body apart: two calls of the kernel, and a client that
  is woken twice. Joining them took off a seventh of the server's CPU for a request that computes nothing
  (benchmarks/serving/noop.py), and half of the client's.
- A request that no model has room for is refused when its head is there, before uvicorn makes objects and a task for
  it: in overload most requests are such, and what they cost is taken from the others
  (benchmarks/serving/overload.py).
- An idle connection is kept for longer than load balancers keep theirs: a request that meets a connection as its server
  closes it is lost.
- Who serves a request is told when its client has left; ASGI would take a task for each, which waits for that.
- A connection on which nothing comes, or a head that does not end, is closed; uvicorn would keep it for ever.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service.http.messages import GONE, Gone, Headers, Response

Refuse = Callable[[str, str, Headers], Response | None]
"""The answer to a request, by its method, path and headers, that is refused before its body; None where it is not."""

_IDLE_S = 75  # nginx, and AWS's load balancers, reuse a connection that was idle for 60 seconds
_HEAD_S = 10  # from the first byte of a request to the end of its head


class JoinedWrites:
    """A transport that sends at once what is written in one turn of the event loop. All else is the transport's own."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends it at the end of this turn."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        """Closes the connection after what was written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, []
            self._transport.write(b"".join(held))


class HttpProtocol(HttpToolsProtocol):
    """What uvicorn makes for each connection.

    Args:
        refuse: of the gate behind it.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        refuse: Refuse,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.timeout_keep_alive = max(self.timeout_keep_alive, _IDLE_S)
        self._refuse = refuse
        self._gone: Gone = self.loop.create_future()
        self._in_head = False
        self._head_timer: asyncio.TimerHandle | None = None  # where it did not come in one piece
        self._refused = False  # the request whose head was the last to come
        self._ends = False  # the connection, after it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """A client has connected."""
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]  # it behaves as one
        self._wait_idly()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone. uvicorn's timer would keep one that was reset in memory until it ends."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        """A part of what the client sends is there."""
        super().data_received(data)
        if self._in_head and self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEAD_S, self.transport.close)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope[GONE] = self._gone  # type: ignore[literal-required]  # ours
        self._in_head = True

    def on_headers_complete(self) -> None:
        """The head of a request is there."""
        self._end_head()
        response = (
            None if self._must_wait() else self._refuse(self.parser.get_method().decode(), self._path(), self.headers)
        )
        self._refused = response is not None
        if response is None:
            super().on_headers_complete()
        else:
            self._send(response)

    def on_body(self, body: bytes) -> None:
        """A part of a request's body is there."""
        if self._refused:
            self._wait_idly()
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is there."""
        if not self._refused:
            super().on_message_complete()
        elif self._ends:
            self.transport.close()

    def _end_head(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _must_wait(self) -> bool:
        """Whether an answer now would be out of turn, or not understood."""
        answering = self.cycle is not None and not self.cycle.response_complete
        return answering or self.expect_100_continue or self.parser.should_upgrade()

    def _path(self) -> str:
        return self.url.partition(b"?")[0].decode("latin-1")

    def _send(self, response: Response) -> None:
        headers = response.headers
        self._ends = self.parser.get_http_version() == "1.0" or not self.parser.should_keep_alive()
        if self._ends:
            headers = [*headers, (b"connection", b"close")]
        lines = [b"%s: %s\r\n" % header for header in (*self.server_state.default_headers, *headers)]
        self.transport.write(b"".join([STATUS_LINE[response.status], *lines, b"\r\n", response.body]))
        self.server_state.total_requests += 1
        self._wait_idly()

    def _wait_idly(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
