"""What a request costs the server besides the model: CPU of the service in front of an engine that does nothing.

    python -m benchmarks.serving.noop

Beside it, a no-op `@bentoml.api` that takes and gives the same, both as `bentoml serve` starts them. Clients on
keep-alive connections ask again as soon as they are answered. Each line is the median and the spread of interleaved
rounds, in CPU time of the server's processes, threads included: a busy machine changes it little. Needs the default
bundles (`make bundles`), or LATHE_MODELS with a model named `sentiment`; of them only the labels are used.
"""

import asyncio
import contextlib
import os
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click
import orjson
import psutil  # type: ignore[import-untyped]

from loadtests.run import start, stop

TARGETS = {
    "lathe": "benchmarks.serving.noop_lathe:Lathe",
    "@bentoml.api": "benchmarks.serving.noop_bentoml:Noop",
}
BODY = orjson.dumps({"model": "sentiment", "inputs": "the card that you sent has still not arrived"})


@dataclass(frozen=True)
class Server:
    """One that is measured: where it answers, and its processes."""

    url: str
    processes: tuple[psutil.Process, ...]

    def cpu_seconds(self) -> float:
        """CPU time that its processes have taken so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)


@contextlib.contextmanager
def served(target: str, log: Path) -> Iterator[Server]:
    """Runs a service."""
    url, process = start(log, {**os.environ, "BENTOML_DO_NOT_TRACK": "True", "LATHE_STREAMS": "2"}, target)
    try:
        parent = psutil.Process(process.pid)
        yield Server(url, (parent, *parent.children(recursive=True)))
    finally:
        stop(process)


async def ask(url: str, requests: int, connections: int) -> None:
    """Sends so many requests over so many connections, one at a time on each.

    Raises:
        RuntimeError: an answer is not 200.
    """
    address = urlsplit(url)
    head = f"POST /v1/classify HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(BODY)}\r\n\r\n".encode() + BODY

    async def connection(count: int) -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        for _ in range(count):
            writer.write(request)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            if not answer.startswith(b"http/1.1 200"):
                raise RuntimeError(f"{url} answers {answer[:12].decode()}: {body[:200].decode()}")
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(connection(requests // connections) for _ in range(connections)))


@click.command()
@click.option("--requests", default=4000, show_default=True, help="Requests of a round.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--connections", default="1,32", show_default=True, help="At the same time, with commas.")
def main(requests: int, rounds: int, connections: str) -> None:
    """Prints the server's CPU microseconds per request."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {
            name: stack.enter_context(served(target, folder / f"{number}.log"))
            for number, (name, target) in enumerate(TARGETS.items())
        }
        click.echo("| server | connections | CPU us per request | lowest | highest |\n| --- | --- | --- | --- | --- |")
        for count in map(int, connections.split(",")):
            measured: dict[str, list[float]] = {name: [] for name in servers}
            for number in range(rounds + 1):  # the first warms up
                for name, server in servers.items():
                    before = server.cpu_seconds()
                    asyncio.run(ask(server.url, requests, count))
                    if number:
                        measured[name].append((server.cpu_seconds() - before) / requests * 1e6)
            for name, values in measured.items():
                figures = f"{statistics.median(values):.0f} | {min(values):.0f} | {max(values):.0f}"
                click.echo(f"| {name} | {count} | {figures} |")


if __name__ == "__main__":
    main()
