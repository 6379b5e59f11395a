"""Half an hour of mixed requests: does memory grow, does anything fail?

    python -m benchmarks.serving.soak bundles/sentiment-balanced

Eight clients that pause between requests: one text, lists, the other protocols, bad bodies, and some that leave without
waiting for their answer. Writes results/soak.json: what was answered, and the slope of the server's memory over all but
the first fifth, by least squares.
"""

import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
import orjson
import uvloop

from benchmarks.serving.client import Connection
from benchmarks.serving.servers import Server, served
from benchmarks.serving.texts import short_messages
from compression.measure.machine import this_machine

RESULTS = Path(__file__).resolve().parent / "results" / "soak.json"
CLIENTS = 8
PAUSE_S = 0.05  # at most
SAMPLE_S = 5.0
TEXTS = short_messages()


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--minutes", default=30.0, show_default=True)
def main(bundle: Path, minutes: float) -> None:
    """Writes results/soak.json."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"LATHE_MODELS": f"sentiment={bundle.absolute()}"}
        with served("service.app:Lathe", Path(folder) / "log", environment) as server:
            answers, memory = uvloop.run(soak(server, 60 * minutes))
        errors = sum(" [ERROR] " in line for line in (Path(folder) / "log").read_text("utf-8").splitlines())
    rss = np.array(memory)[len(memory) // 5 :]
    hours = np.arange(len(rss)) * SAMPLE_S / 3600
    result = {
        "machine": asdict(this_machine()),
        "minutes": minutes,
        "answers": {f"{kind} {status}": count for (kind, status), count in sorted(answers.items())},
        "unexpected": sum(count for (kind, status), count in answers.items() if status not in EXPECTED[kind]),
        "errors_logged": errors,
        "rss_mb": {"first": round(rss[0] / 1e6, 1), "last": round(rss[-1] / 1e6, 1), "most": round(rss.max() / 1e6, 1)},
        "rss_mb_per_hour": round(float(np.polyfit(hours, rss / 1e6, 1)[0]), 2),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    click.echo(json.dumps(result, indent=1))


def _one(choose: random.Random) -> tuple[str, object]:
    return "/v1/classify", {"model": "sentiment", "inputs": choose.choice(TEXTS)}


def _list(choose: random.Random) -> tuple[str, object]:
    return "/v1/classify", {"model": "sentiment", "inputs": choose.choices(TEXTS, k=choose.randint(2, 64)), "top_k": 2}


def _predict(choose: random.Random) -> tuple[str, object]:
    return "/predict", {"inputs": choose.choice(TEXTS)}


def _infer(choose: random.Random) -> tuple[str, object]:
    data = choose.choices(TEXTS, k=choose.randint(1, 8))
    return "/v2/models/sentiment/infer", {
        "inputs": [{"name": "TEXT", "shape": [len(data)], "datatype": "BYTES", "data": data}]
    }


def _bad(choose: random.Random) -> tuple[str, object]:
    return "/v1/classify", {"model": "sentiment", "inputs": choose.choice(["", 5, [], ["fine", " "]])}


def _unknown(choose: random.Random) -> tuple[str, object]:
    return "/v1/classify", {"model": f"model-{choose.random()}", "inputs": "good"}


KINDS = {"one": _one, "list": _list, "predict": _predict, "infer": _infer, "bad": _bad, "unknown": _unknown}
WEIGHTS = (8, 2, 2, 2, 1, 1)
LEAVES = 0.02  # of the requests
EXPECTED = {"one": {200}, "list": {200}, "predict": {200}, "infer": {200}, "bad": {400}, "unknown": {404}, "left": {0}}


async def soak(server: Server, seconds: float) -> tuple[Counter[tuple[str, int]], list[int]]:
    """Answers by kind and status, and samples of the server's memory in bytes."""
    answers: Counter[tuple[str, int]] = Counter()
    memory: list[int] = []
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        choose = random.Random(number)
        connections: dict[str, Connection] = {}
        while time.monotonic() < end:
            (kind,) = choose.choices(list(KINDS), WEIGHTS)
            path, body = KINDS[kind](choose)
            connection = connections.pop(path, None)
            if connection is None or connection.closed:
                connection = await Connection.open(server.url + path)
            if choose.random() < LEAVES:
                asking = asyncio.ensure_future(connection.post(orjson.dumps(body)))
                await asyncio.sleep(choose.uniform(0, 0.02))
                asking.cancel()
                await asyncio.wait([asking])
                connection.close()
                answers["left", 0] += 1
            else:
                status, _ = await connection.post(orjson.dumps(body))
                answers[kind, status] += 1
                connections[path] = connection
            await asyncio.sleep(choose.uniform(0, PAUSE_S))
        for connection in connections.values():
            connection.close()

    async def sample() -> None:
        while time.monotonic() < end:
            memory.append(server.rss_bytes())
            await asyncio.sleep(SAMPLE_S)

    await asyncio.gather(sample(), *map(client, range(CLIENTS)))
    return answers, memory


if __name__ == "__main__":
    main()
