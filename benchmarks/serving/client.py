"""A client that costs little, since it shares the machine with the server: raw HTTP/1.1 on keep-alive connections."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from urllib.parse import urlsplit


class Connection:
    """One connection to one path; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self._head = head

    @classmethod
    async def open(cls, url: str, headers: str = "") -> "Connection":
        """Connects to the host of a URL, for its path; headers are lines that end with CRLF."""
        address = urlsplit(url)
        head = f"POST {address.path} HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n{headers}"
        return cls(*await asyncio.open_connection(address.hostname, address.port), head.encode())

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._writer.write(b"%scontent-length: %d\r\n\r\n%s" % (self._head, len(body), body))
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(answer[9:12]), await self._reader.readexactly(length)

    @property
    def closed(self) -> bool:
        """Whether the server has closed it, as servers do with those that idle."""
        return self._reader.at_eof()

    async def close(self) -> None:
        """Closes it."""
        self._writer.close()
        await self._writer.wait_closed()


async def closed_loop(url: str, bodies: Sequence[bytes], requests: int, connections: int) -> list[float]:
    """Asks again on each connection as soon as it is answered.

    Args:
        bodies: taken in turn.
        requests: in all.

    Returns:
        seconds of each request.

    Raises:
        RuntimeError: an answer is not 200.
    """
    upcoming: Iterator[bytes] = cycle(bodies)
    seconds: list[float] = []

    async def ask(count: int) -> None:
        connection = await Connection.open(url)
        for _ in range(count):
            start = time.perf_counter()
            status, answer = await connection.post(next(upcoming))
            seconds.append(time.perf_counter() - start)
            if status != 200:
                raise RuntimeError(f"{url} answers {status}: {answer[:200].decode()}")
        await connection.close()

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
    tasks: set[asyncio.Task[None]] = set()
    begin = time.perf_counter()

    async def ask(body: bytes) -> None:
        start = time.perf_counter()
        connection = idle.pop() if idle else None
        while connection is not None and connection.closed:
            connection = idle.pop() if idle else None
        if connection is None:
            connection = await Connection.open(url, f"x-request-timeout-ms: {timeout_ms}\r\n")
        try:
            status, _ = await connection.post(body)
            idle.append(connection)
        except (OSError, asyncio.IncompleteReadError):
            status = 0
        sent.append(Sent(start - begin, status, time.perf_counter() - start))

    due = 0.0
    while due < seconds:
        due += choose.expovariate(rate)
        wait = begin + due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(ask(next(upcoming)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for connection in idle:
        await connection.close()
    return sent
