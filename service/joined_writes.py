"""HTTP/1.1 as uvicorn speaks it, but an answer is sent in one piece.

uvicorn writes an answer's head and body apart: two calls of the kernel, and a client that is woken twice. Joining them
took off a seventh of the server's CPU for a request that computes nothing (benchmarks/serving/noop.py), and half of
the client's.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


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
    """What uvicorn makes for each connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """A client has connected."""
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]  # it behaves as one
