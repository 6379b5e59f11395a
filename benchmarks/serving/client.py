"""A client that costs little, since it shares the machine with the server: raw HTTP/1.1 on keep-alive connections."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from urllib.parse import urlsplit


class Connection(asyncio.Protocol):
    """One connection to one path; one request at a time.

    Attributes:
        closed: by the server, as servers do with those that idle, or by us.
    """

    def __init__(self, head: bytes) -> None:
        self.closed = False
        self._head = head
        self._transport: asyncio.WriteTransport | None = None
        self._received = b""
        self._answered: Callable[[int, bytes], None] | None = None

    @classmethod
    async def open(cls, url: str, headers: str = "") -> "Connection":
        """Connects to the host of a URL, for its path; headers are lines that end with CRLF."""
        address = urlsplit(url)
        head = f"POST {address.path} HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n{headers}"
        assert address.hostname is not None
        assert address.port is not None
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(head.encode()), address.hostname, address.port)
        return connection

    def ask(self, body: bytes, answered: Callable[[int, bytes], None]) -> None:
        """Sends a request; `answered` gets status and body of the answer, or 0 where the connection ended instead."""
        if self.closed:
            answered(0, b"")
            return
        assert self._transport is not None
        self._answered = answered
        self._transport.write(b"%scontent-length: %d\r\n\r\n%s" % (self._head, len(body), body))

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer.

        Raises:
            ConnectionError: the connection ended instead.
        """
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

        def answered(status: int, content: bytes) -> None:
            if not answer.cancelled():
                answer.set_result((status, content))

        self.ask(body, answered)
        status, content = await answer
        if not status:
            raise ConnectionError("the server closed the connection before its answer")
        return status, content

    def close(self) -> None:
        """Closes it."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.WriteTransport) -> None:  # type: ignore[override]  # of a Protocol
        """See asyncio.Protocol."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._received += data
        head, complete, body = self._received.partition(b"\r\n\r\n")
        if not complete:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._received = b""
            self._end(int(head[9:12]), body)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.closed = True
        self._end(0, b"")

    def _end(self, status: int, body: bytes) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(status, body)


async def closed_loop(
    url: str, bodies: Sequence[bytes], requests: int, connections: int, headers: str = ""
) -> list[float]:
    """Asks again on each connection as soon as it is answered.

    Args:
        bodies: taken in turn.
        requests: in all.
        headers: lines that end with CRLF.

    Returns:
        seconds of each request.

    Raises:
        RuntimeError: an answer is not 200.
    """
    upcoming: Iterator[bytes] = cycle(bodies)
    seconds: list[float] = []

    async def ask(count: int) -> None:
        connection = await Connection.open(url, headers)
        for _ in range(count):
            start = time.perf_counter()
            status, answer = await connection.post(next(upcoming))
            seconds.append(time.perf_counter() - start)
            if status != 200:
                raise RuntimeError(f"{url} answers {status}: {answer[:200].decode()}")
        connection.close()

    share, rest = divmod(requests, connections)
    await asyncio.gather(*(ask(share + (number < rest)) for number in range(connections)))
    return seconds


@dataclass(frozen=True)
class Sent:
    """One request of an open loop.

    Attributes:
        at: seconds since the beginning, when it was sent.
        status: of its answer; 0 where there was none.
        seconds: until that.
    """

    at: float
    status: int
    seconds: float


async def open_loop(url: str, bodies: Sequence[bytes], rate: float, seconds: float, timeout_ms: int) -> list[Sent]:
    """Sends so many requests per second at random moments (Poisson), whatever becomes of those before.

    Args:
        timeout_ms: X-Request-Timeout-Ms of each.
    """
    choose, upcoming = random.Random(0), cycle(bodies)
    idle: list[Connection] = []
    sent: list[Sent] = []
    started = 0
    news = asyncio.Event()
    begin = time.perf_counter()

    def note(start: float, status: int) -> None:
        sent.append(Sent(start - begin, status, time.perf_counter() - start))
        news.set()

    def ask(connection: Connection, start: float) -> None:
        def answered(status: int, _: bytes) -> None:
            note(start, status)
            if status:
                idle.append(connection)

        connection.ask(next(upcoming), answered)

    async def connect_and_ask(start: float) -> None:
        try:
            ask(await Connection.open(url, f"x-request-timeout-ms: {timeout_ms}\r\n"), start)
        except OSError:
            note(start, 0)

    connecting: set[asyncio.Task[None]] = set()
    due = 0.0
    while due < seconds:
        due += choose.expovariate(rate)
        wait = begin + due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        started += 1
        while idle and idle[-1].closed:
            idle.pop()
        if idle:
            ask(idle.pop(), time.perf_counter())
        else:
            task = asyncio.create_task(connect_and_ask(time.perf_counter()))
            connecting.add(task)
            task.add_done_callback(connecting.discard)
    while len(sent) < started:
        news.clear()
        await news.wait()
    for connection in idle:
        connection.close()
    return sent
