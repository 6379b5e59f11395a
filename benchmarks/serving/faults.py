"""A million requests while things go wrong: is any lost that was accepted, or answered wrongly?

    python -m benchmarks.serving.faults bundles/sentiment-balanced

Sixteen clients ask one text after another, and now and then one leaves before its answer. Meanwhile another version is
loaded again and again, many clients come at once with more than the queue holds, and the worker is killed. Both
versions are the same model, so that each text has one right answer, to the last digit. A request may be rejected (429),
or come too late (504); a connection may end without an answer where the client ended it or the worker was killed
meanwhile, and then alone. Writes results/faults.json.
"""

import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import click
import httpx
import orjson
import psutil  # type: ignore[import-untyped]
import uvloop

from benchmarks.serving.client import Connection
from benchmarks.serving.loads import copy_as
from benchmarks.serving.servers import served
from benchmarks.serving.texts import short_messages
from compression.measure.machine import this_machine

RESULTS = Path(__file__).resolve().parent / "results" / "faults.json"
CLIENTS = 16
CROWD_TEXTS = 64
LEAVES = 0.02  # of the requests
REJECTED, LATE = 429, 504
VERSIONS = ("one", "two")
TEXTS = short_messages()
_KINDS = 3  # of faults


@dataclass(frozen=True)
class Plan:
    """Seconds from one fault of a kind to the next.

    Attributes:
        clients: of a crowd.
    """

    load: float = 5.0
    crowd: float = 20.0
    kill: float = 60.0
    clients: int = 200


@dataclass
class Seen:
    """What became of the requests.

    Attributes:
        answers: by status, those of the crowds too.
        left: given up by the client.
        killed: under way, or sent, while there was no worker: those that were not answered.
        lost: not answered for no such reason.
        wrong: answered with 200 and another result than the text has.
        faults: how often each was made.
        back_s: seconds until a killed worker was ready again.
    """

    answers: Counter[int] = field(default_factory=Counter)
    left: int = 0
    killed: int = 0
    lost: int = 0
    wrong: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    back_s: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """As JSON has them; `asdict` would count the items of a Counter."""
        return dict(vars(self))


class Faults:
    """Asks a service while it is disturbed.

    Args:
        parent: the process that started the worker.
    """

    def __init__(self, url: str, parent: psutil.Process, plan: Plan) -> None:
        self.seen = Seen()
        self._url = url
        self._parent = parent
        self._plan = plan
        self._opened: set[Connection] = set()
        self._down = False
        self._right: dict[str, object] = {}

    async def run(self, requests: int) -> Seen:
        """Until so many requests of the sixteen were made, and each fault."""
        numbers = self._numbers(requests)
        faults = [
            asyncio.ensure_future(self._again(seconds, fault))
            for seconds, fault in (
                (self._plan.load, self._load()),
                (self._plan.crowd, self._crowd()),
                (self._plan.kill, self._kill()),
            )
        ]
        try:
            await asyncio.gather(*(self._client(numbers, random.Random(seed)) for seed in range(CLIENTS)))
        finally:
            for fault in faults:
                fault.cancel()
            for ended in await asyncio.gather(*faults, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended
            for connection in self._opened:
                connection.close()
        return self.seen

    def _numbers(self, requests: int) -> Iterator[int]:
        for number in count():
            if number >= requests and len(self.seen.faults) == _KINDS:
                return
            yield number

    async def _again(self, seconds: float, fault: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            await fault()

    async def _client(self, numbers: Iterator[int], choose: random.Random) -> None:
        connection: Connection | None = None
        for number in numbers:
            text = TEXTS[number % len(TEXTS)]
            leaves = choose.uniform(0, 0.02) if choose.random() < LEAVES else None
            connection = await self._ask(connection, text, leaves)

    async def _ask(
        self, connection: Connection | None, inputs: str | list[str], leaves: float | None = None
    ) -> Connection | None:
        """Asks once; the connection where it can be used again."""
        excused = self._down
        try:
            if connection is None or connection.closed:
                connection = await Connection.open(f"{self._url}/v1/classify")
                self._opened.add(connection)
            asking = asyncio.ensure_future(
                connection.post(orjson.dumps({"model": "sentiment", "inputs": inputs, "top_k": 9}))
            )
            if leaves is not None:
                await asyncio.wait([asking], timeout=leaves)
                if not asking.done():
                    asking.cancel()
                    self._close(connection)
                    self.seen.left += 1
                    return None
            status, body = await asking
        except OSError:
            if connection is not None:
                self._close(connection)
            if excused or self._down:
                self.seen.killed += 1
                await asyncio.sleep(0.1)
            else:
                self.seen.lost += 1
            return None
        self.seen.answers[status] += 1
        if status == 200:
            texts = [inputs] if isinstance(inputs, str) else inputs
            for text, result in zip(texts, orjson.loads(body)["results"], strict=True):
                self.seen.wrong += self._right.setdefault(text, result) != result
        elif status == REJECTED:
            await asyncio.sleep(0.05)
        return connection

    def _close(self, connection: Connection) -> None:
        self._opened.discard(connection)
        connection.close()

    def _load(self) -> Callable[[], Awaitable[None]]:
        number = count(1)

        async def load() -> None:
            async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
                place = f"{self._url}/v1/models/sentiment/load"
                body = {"bundle": VERSIONS[next(number) % 2]}
                excused = self._down
                try:
                    answer = await client.post(place, json=body)
                except httpx.TransportError:
                    if not (excused or self._down):
                        raise
                    return
                if not (excused or self._down):
                    answer.raise_for_status()
                    self.seen.faults["load"] += 1

        return load

    def _crowd(self) -> Callable[[], Awaitable[None]]:
        async def crowd() -> None:
            many = [TEXTS[number % len(TEXTS)] for number in range(CROWD_TEXTS)]
            connections = await asyncio.gather(*(self._ask(None, many) for _ in range(self._plan.clients)))
            for connection in connections:
                if connection is not None:
                    self._close(connection)
            self.seen.faults["crowd"] += 1

        return crowd

    def _kill(self) -> Callable[[], Awaitable[None]]:
        async def kill() -> None:
            self._down = True
            for child in self._parent.children():
                with suppress(psutil.NoSuchProcess):
                    if "--worker-id" in child.cmdline():
                        child.kill()
            start = time.monotonic()
            async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
                while True:
                    await asyncio.sleep(0.05)
                    with suppress(httpx.TransportError):
                        if (await client.get(f"{self._url}/readyz")).status_code == 200:
                            break
            self.seen.back_s.append(round(time.monotonic() - start, 2))
            self.seen.faults["kill"] += 1
            await asyncio.sleep(0.2)  # what was reset is told by now
            self._down = False

        return kill


def prepare(bundle: Path, root: Path) -> dict[str, str]:
    """Puts both versions below `root`; the settings of a service that begins with the first."""
    root.mkdir()
    for name in VERSIONS:
        copy_as(bundle, root / name, name)
    return {"LATHE_MODELS": f"sentiment={root / VERSIONS[0]}", "LATHE_BUNDLES_ROOT": str(root)}


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--requests", default=1_000_000, show_default=True)
def main(bundle: Path, requests: int) -> None:
    """Writes results/faults.json."""
    with tempfile.TemporaryDirectory() as folder:
        environment = prepare(bundle, Path(folder) / "bundles")
        with served("service.app:Lathe", Path(folder) / "log", environment) as server:
            start = time.monotonic()
            seen = uvloop.run(Faults(server.url, server.processes[0], Plan()).run(requests))
            passed = time.monotonic() - start
        errors = sum(" [ERROR] " in line for line in (Path(folder) / "log").read_text("utf-8").splitlines())
    result = {
        "machine": asdict(this_machine()),
        "requests": requests,
        "seconds": round(passed, 1),
        **seen.figures(),
        "errors_logged": errors,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    click.echo(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
