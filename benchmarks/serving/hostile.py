"""An honest client beside eight hostile ones: what becomes of its answers?

    python -m benchmarks.serving.hostile bundles/sentiment-balanced --minutes 10

In turn, ten seconds each: the honest client alone, and beside the others, which run in a process of their own. Each of
those does its kind of harm again and again, each time on a new connection; they have what the server and the honest
client leave of this machine's cores, since elsewhere they would have their own. Writes results/hostile.json: the 99th
percentile of the honest client's answers beside and alone, as a ratio of each round; what was not answered, or not with
the right label; and the server's memory. `--kind` runs some of the eight, and writes nothing: which of them costs most?
"""

import asyncio
import gzip
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import click
import orjson
import uvloop

from benchmarks.serving.client import Connection
from benchmarks.serving.servers import served
from benchmarks.serving.texts import short_messages
from compression.measure.machine import this_machine

RESULTS = Path(__file__).resolve().parent / "results" / "hostile.json"
HALF_S = 10.0
PAUSE_S = 0.02  # of the honest client
PATIENCE_S = 5.0  # of a hostile one
MB = 1_000_000
_LOWEST = 19

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _request(body: bytes, path: str = "/v1/classify", headers: str = "", length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
    return f"{head}{headers}\r\n".encode() + body


def _classify(inputs: object) -> bytes:
    return _request(orjson.dumps({"model": "sentiment", "inputs": inputs}))


def _sending(*requests: bytes) -> Attack:
    """Sends them one after another, and reads each answer's beginning."""

    async def attack(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for request in requests:
            writer.write(request)
            await reader.readuntil(b"\r\n\r\n")

    return attack


def _repeating(beginning: bytes, piece: bytes, pause_s: float) -> Attack:
    """Begins, and then sends the same for ever."""

    async def attack(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return attack


async def _reads_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /docs.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
    await asyncio.sleep(PATIENCE_S)


async def _pipelines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000)
    while await reader.read(65536):
        pass


def attacks() -> dict[str, Attack]:
    """The eight, by name."""
    junk = b'{"model": "sentiment", "inputs": "a", "junk": ['
    return {
        "texts of 1 MB": _sending(_classify("good and bad, " * (MB // 14)), _classify("!" * (MB - 100))),
        "words of 99 letters": _sending(_classify(("x" * 99 + " ") * 2000), _classify([("y" * 99 + " ") * 30] * 256)),
        "many values": _sending(
            _request(b'{"model": "sentiment", "inputs": [' + b"1," * (MB // 2) + b"1]}"),
            _request(junk + b"[]," * (MB // 3) + b"1]}"),
            _request(b"[" * MB),
            _request(junk + b"9" * MB + b"]}"),
        ),
        "bombs": _sending(_request(gzip.compress(b" " * (100 * MB)), headers="Content-Encoding: gzip\r\n")),
        "reads nothing": _reads_nothing,
        "endless heads": _repeating(b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"A: b\r\n" * 10, 0.01),
        "pipelines": _pipelines,
        "endless bodies": _repeating(_request(b"{", length=MB), b" ", 0.05),
    }


async def attack(url: str, seconds: float, kinds: Sequence[Attack]) -> None:
    """Each kind, again and again, on a connection at a time."""
    address = urlsplit(url)
    end = time.monotonic() + seconds

    async def client(kind: Attack) -> None:
        while time.monotonic() < end:
            with suppress(OSError, EOFError, asyncio.LimitOverrunError):
                reader, writer = await asyncio.open_connection(address.hostname, address.port)
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        await kind(reader, writer)
                finally:
                    writer.transport.abort()

    await asyncio.gather(*map(client, kinds))


@dataclass
class Honest:
    """What a client that does nothing wrong has seen.

    Attributes:
        seconds: of its answers.
        statuses: of those; 0 where the connection ended instead.
        wrong: answers with another label than the first to that text.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0

    def p99_ms(self) -> float:
        """Of its answers."""
        return round(sorted(self.seconds)[int(0.99 * len(self.seconds))] * 1e3, 2)


async def honest(url: str, seconds: float, labels: dict[str, str], pause_s: float = PAUSE_S) -> Honest:
    """Asks one text after another.

    Args:
        labels: of texts; what is not there yet is noted.
    """
    seen, texts = Honest(), short_messages()
    end = time.monotonic() + seconds
    connection: Connection | None = None
    while time.monotonic() < end:
        text = texts[seen.statuses.total() % len(texts)]
        start = time.perf_counter()
        if connection is None or connection.closed:
            connection = await Connection.open(f"{url}/v1/classify")
        try:
            status, body = await connection.post(orjson.dumps({"model": "sentiment", "inputs": text}))
        except ConnectionError:
            status, body = 0, b""
        seen.seconds.append(time.perf_counter() - start)
        seen.statuses[status] += 1
        if status == 200:
            label = orjson.loads(body)["results"][0]["label"]
            seen.wrong += labels.setdefault(text, label) != label
        await asyncio.sleep(pause_s)
    if connection is not None:
        connection.close()
    return seen


def _attack(url: str, seconds: float, kinds: Sequence[str]) -> None:
    os.setsid()
    os.nice(_LOWEST)
    with suppress(
        OSError
    ):  # where the kernel gives each session its share of the cores, a process' niceness is not asked
        Path("/proc/self/autogroup").write_text(str(_LOWEST))
    known = attacks()
    asyncio.run(attack(url, seconds, [known[kind] for kind in kinds]))


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--kind", "kinds", type=click.Choice(list(attacks())), multiple=True, help="Of attack.  [default: all]")
def main(bundle: Path, minutes: float, kinds: tuple[str, ...]) -> None:
    """Writes results/hostile.json, of all kinds of attack."""
    labels: dict[str, str] = {}
    rounds: list[tuple[Honest, Honest]] = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {"LATHE_MODELS": f"sentiment={bundle.absolute()}"}
        with served("service.app:Lathe", Path(folder) / "log", environment) as server:
            uvloop.run(honest(server.url, HALF_S / 2, labels))
            memory = [server.rss_bytes()]
            end = time.monotonic() + 60 * minutes
            while time.monotonic() < end:
                alone = uvloop.run(honest(server.url, HALF_S, labels))
                others = multiprocessing.get_context("spawn").Process(
                    target=_attack, args=(server.url, HALF_S + 4, kinds or tuple(attacks()))
                )
                others.start()
                time.sleep(3)  # until they are there
                beside = uvloop.run(honest(server.url, HALF_S, labels))
                others.join()
                rounds.append((alone, beside))
                memory.append(server.rss_bytes())
        errors = sum(" [ERROR] " in line for line in (Path(folder) / "log").read_text("utf-8").splitlines())
    result = {
        "machine": asdict(this_machine()),
        "minutes": minutes,
        "p99_ms": [{"alone": alone.p99_ms(), "beside": beside.p99_ms()} for alone, beside in rounds],
        "p99_ratio": round(statistics.median(beside.p99_ms() / alone.p99_ms() for alone, beside in rounds), 2),
        "answers": dict(sum((half.statuses for both in rounds for half in both), Counter())),
        "wrong": sum(half.wrong for both in rounds for half in both),
        "errors_logged": errors,
        "rss_mb": [round(value / 1e6, 1) for value in memory],
    }
    if not kinds:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    click.echo(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
