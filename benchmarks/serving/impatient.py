"""Clients that ask again at once when they are rejected, whatever Retry-After says: what is left for the answers?

    python -m benchmarks.serving.impatient bundles/sentiment-balanced

Long texts, each request with a second to be answered in. In turn: 8 clients that wait as they are told, which is as
much as the service can do, and the same beside 64 that do not wait. Goodput is answers per second, to whomever. Server
and clients have a core each, so that clients take no time from the server but by asking.
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click
import orjson
import uvloop

from benchmarks.serving.client import Connection
from benchmarks.serving.servers import Server, served
from benchmarks.serving.texts import short_messages
from compression.measure.machine import this_machine

RESULTS = Path(__file__).resolve().parent / "results" / "impatient.json"
PATIENT, IMPATIENT = 8, 64
MESSAGES = 12  # that make one long text
HEADERS = "x-request-timeout-ms: 1000\r\n"


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=8.0, show_default=True, help="Of each half of a round.")
def main(bundle: Path, rounds: int, seconds: float) -> None:
    """Writes results/impatient.json."""
    messages = short_messages()
    texts = [" ".join(messages[start : start + MESSAGES]) for start in range(0, len(messages) - MESSAGES, 3)]
    bodies = [orjson.dumps({"model": "sentiment", "inputs": text}) for text in texts]
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        os.sched_setaffinity(0, cores[-1:])  # which the server inherits
        environment = {"LATHE_MODELS": f"sentiment={bundle.absolute()}", "LATHE_STREAMS": "1"}
        with served("service.app:Lathe", Path(folder) / "log", environment) as server:
            os.sched_setaffinity(0, cores[:1])
            uvloop.run(phase(server, bodies, PATIENT, 0, seconds))
            halves = [
                [uvloop.run(phase(server, bodies, PATIENT, impatient, seconds)) for impatient in (0, IMPATIENT)]
                for _ in range(rounds)
            ]
    result = {
        "machine": asdict(this_machine()),
        "alone": [half for half, _ in halves],
        "beside_impatient": [half for _, half in halves],
        "goodput_ratio": round(
            statistics.median(beside["answered_per_s"] / alone["answered_per_s"] for alone, beside in halves), 3
        ),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    click.echo(json.dumps(result, indent=1))


async def phase(server: Server, bodies: list[bytes], patient: int, impatient: int, seconds: float) -> dict[str, float]:
    """Answers and refusals per second, and of that what those got who wait; the server's share of its core."""
    statuses: Counter[tuple[bool, int]] = Counter()
    begin, cpu = time.perf_counter(), server.cpu_seconds()

    async def client(number: int, waits: bool) -> None:
        connection = await Connection.open(f"{server.url}/v1/classify", HEADERS)
        while time.perf_counter() - begin < seconds:
            status, _ = await connection.post(bodies[(number + statuses.total()) % len(bodies)])
            statuses[waits, status] += 1
            if waits and status == 429:
                await asyncio.sleep(1)  # as Retry-After says
        connection.close()

    await asyncio.gather(
        *(client(number, True) for number in range(patient)), *(client(number, False) for number in range(impatient))
    )
    passed = time.perf_counter() - begin
    return {
        "answered_per_s": round((statuses[True, 200] + statuses[False, 200]) / passed, 1),
        "of_those_who_wait_per_s": round(statuses[True, 200] / passed, 1),
        "rejected_per_s": round(sum(count for (_, status), count in statuses.items() if status != 200) / passed, 1),
        "server_cpu": round((server.cpu_seconds() - cpu) / passed, 3),
    }


if __name__ == "__main__":
    main()
