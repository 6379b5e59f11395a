"""What a key's priority does: a client that asks one text at a time, beside six keys that send as much as they can.

    python -m benchmarks.serving.priorities bundles/sentiment

The six send requests of many texts on two connections each, once as interactive keys, like the client's, and once as
those of the priority `batch`; the rounds alternate. Writes results/priorities.json.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import click
import numpy as np
import orjson
import uvloop

from benchmarks.serving.client import Connection
from benchmarks.serving.servers import Server, served
from benchmarks.serving.texts import short_messages
from compression.measure.machine import this_machine
from service.access.keys import add_key
from service.tenant import Priority

RESULTS = Path(__file__).resolve().parent / "results" / "priorities.json"
JOBS, CONNECTIONS = 6, 2
NOBODY = "nobody else"


@dataclass(frozen=True)
class Round:
    """Seconds of the client's requests, and what the jobs had answered a second."""

    seconds: Sequence[float]
    texts_per_s: float


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=6.0, show_default=True, help="Of a round.")
@click.option("--texts", default=64, show_default=True, help="In a request of the jobs.")
def main(bundle: Path, rounds: int, seconds: float, texts: int) -> None:
    """Writes results/priorities.json."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        keys = folder / "keys.json"
        shop = add_key(keys, "shop")
        priorities: tuple[Priority, ...] = ("interactive", "batch")
        jobs: dict[str, list[str]] = {
            NOBODY: [],
            **{one: [add_key(keys, f"{one} {number}", priority=one) for number in range(JOBS)] for one in priorities},
        }
        settings = {"LATHE_MODELS": f"m={bundle.absolute()}", "LATHE_KEYS_FILE": str(keys)}
        measured: dict[str, list[Round]] = {name: [] for name in jobs}
        with served("service.app:Lathe", folder / "log", settings) as server:
            for number in range(rounds + 1):  # the first warms up
                for name, tokens in jobs.items():
                    one = uvloop.run(measure(server, shop, tokens, seconds, texts))
                    if number:
                        measured[name].append(one)
    result = {
        "machine": asdict(this_machine()),
        "rounds": rounds,
        "seconds": seconds,
        "texts": texts,
        "beside": {name: _summary(found) for name, found in measured.items()},
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    click.echo(json.dumps(result, indent=1))


async def measure(server: Server, shop: str, jobs: Sequence[str], seconds: float, texts: int) -> Round:
    """One round: the client asks until its time is over, and the jobs with it."""
    url, messages = f"{server.url}/v1/classify", short_messages()
    large = orjson.dumps({"model": "m", "inputs": list(islice(messages, texts))})
    answered, ends = 0, time.perf_counter() + seconds

    async def flood(token: str) -> None:
        nonlocal answered
        connection = await Connection.open(url, f"authorization: Bearer {token}\r\n")
        while time.perf_counter() < ends:
            status, _ = await connection.post(large)
            answered += texts if status == 200 else 0
        connection.close()

    async def ask() -> list[float]:
        connection = await Connection.open(url, f"authorization: Bearer {shop}\r\n")
        taken: list[float] = []
        while time.perf_counter() < ends:
            body = orjson.dumps({"model": "m", "inputs": messages[len(taken) % len(messages)]})
            start = time.perf_counter()
            status, answer = await connection.post(body)
            taken.append(time.perf_counter() - start)
            if status != 200:
                raise RuntimeError(f"the client is answered {status}: {answer[:200].decode()}")
            await asyncio.sleep(0.01)
        connection.close()
        return taken

    async with asyncio.TaskGroup() as group:
        asking = group.create_task(ask())
        for token in jobs:
            for _ in range(CONNECTIONS):
                group.create_task(flood(token))
    return Round(asking.result(), answered / seconds)


def _summary(rounds: Sequence[Round]) -> dict[str, float]:
    """Medians over the rounds."""
    p50, p99 = (
        statistics.median(float(np.quantile(one.seconds, quantile)) for one in rounds) for quantile in (0.5, 0.99)
    )
    texts = statistics.median(one.texts_per_s for one in rounds)
    return {"p50_ms": round(p50 * 1e3, 1), "p99_ms": round(p99 * 1e3, 1), "jobs_texts_per_s": round(texts, 1)}


if __name__ == "__main__":
    main()
