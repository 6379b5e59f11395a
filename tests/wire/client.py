"""A client that says on a socket what no library would, and reads what comes back."""

import socket
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import orjson


@dataclass(frozen=True)
class Answer:
    """One answer; headers by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        """Of an error in the service's shape; None of any other answer."""
        content: Any = orjson.loads(self.body) if self.body else {}
        error = content.get("error") if isinstance(content, dict) else None
        assert error is None or error["request_id"] == self.headers["x-request-id"]
        return None if error is None else error["code"]


class Client:
    """One connection.

    Args:
        receive_bytes: that the network may keep for it.
    """

    def __init__(self, host: str, port: int, *, receive_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(10)
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.connect((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.socket.close()

    def say(self, *pieces: bytes) -> None:
        """Sends each piece so that it arrives by itself."""
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(0.02)
            self.socket.sendall(piece)

    def answer(self, head_only: bool = False) -> Answer:
        """The next answer, of known length."""
        head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        length = 0 if head_only else int(headers.get("content-length", 0))
        while len(self._buffer) < length:
            self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(int(head[0].split(" ")[1]), headers, body)

    def closed(self) -> bool:
        """Whether the service sends nothing more; waits for that."""
        assert not self._buffer, self._buffer
        try:
            return self.socket.recv(65536) == b""
        except ConnectionResetError:
            return True

    def in_step(self) -> bool:
        """Whether the next request is understood as that."""
        self.say(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        return self.answer().status == 200

    def flood(self, piece: bytes, most: int) -> int:
        """Sends the same for ever; returns how many bytes were taken before the service wanted no more."""
        sent = 0
        self.socket.settimeout(3)
        try:
            while sent < most:
                sent += self.socket.send(piece)
        except OSError:  # closed, reset, or not taken
            return sent
        return sent

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._more()
        part, _, self._buffer = self._buffer.partition(end)
        return part

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"closed after {self._buffer!r}")
        self._buffer += data


def counted(client: Client, series: str) -> float:
    """A sample of /metrics."""
    client.say(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    exposition = client.answer().body.decode()
    return sum(float(line.split()[-1]) for line in exposition.splitlines() if line.startswith(series))
