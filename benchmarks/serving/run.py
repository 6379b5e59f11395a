"""Lathe beside LitServe, BentoML's batching, Infinity and FastAPI around a pipeline: one client, one table.

    lathe compress models/sentiment --data examples/customer_messages.csv --label-column sentiment \\
        --ignore-label neutral --recipe balanced --out bundles/sentiment-balanced
    python -m benchmarks.serving.run bundles/sentiment-balanced bundles/sentiment

The second bundle is what the parent is in int8 and nothing else; peers that serve ONNX serve both. Infinity and the
pipeline serve the parent in float32. Every server has uvloop where it runs on asyncio, as many processes or streams as
there are cores; one that takes CPU while nobody asks is stopped (SIGSTOP) while others are asked. The client shares the
cores: CPU seconds of the server's processes stand beside the rates. Rounds are interleaved, each figure is a median
over them. The first run makes an environment for each peer.
"""

import contextlib
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import orjson
import uvloop

from benchmarks.environments import PeerError, environment
from benchmarks.serving.client import closed_loop
from benchmarks.serving.servers import Server, launched, served
from benchmarks.serving.table import sections, write_table
from benchmarks.serving.texts import short_messages
from compression.bundle import Runtime, open_bundle
from compression.measure.machine import this_machine
from compression.parent.checkpoint import load_parent
from loadtests.run import CannotRun

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
PARENT = ROOT / "models" / "sentiment"


@dataclass(frozen=True)
class Load:
    """So many clients, each with so many texts in a request, asking again as soon as they are answered."""

    name: str
    clients: int
    texts: int


LOADS = (Load("32 clients, 1 text", 32, 1), Load("32 clients, 32 texts", 32, 32), Load("1 client, 1 text", 1, 1))
BUSY_WHEN_IDLE = 0.02  # share of a core
Texts = list[str]


@dataclass(frozen=True)
class Entry:
    """One server of the table.

    Attributes:
        start: starts it; the log is for that.
        body: a request of these texts.
    """

    name: str
    serves: str
    path: str
    body: Callable[[Texts], bytes]
    start: Callable[[Path, bytes], contextlib.AbstractContextManager[Server]]


@click.command()
@click.argument("small", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("plain", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=4.0, show_default=True, help="Of each load in each round.")
@click.option("--environments", default=ROOT / "runs" / "peers", show_default=False, type=click.Path(path_type=Path))
@click.option(
    "--only",
    multiple=True,
    help="Names of servers, whose table is printed; all when left out, and only then it is kept.",
)
def main(small: Path, plain: Path, rounds: int, seconds: float, environments: Path, only: tuple[str, ...]) -> None:
    """Measures; writes results/table.json and README.md."""
    texts = short_messages()
    rows: list[dict[str, Any]] = []
    absent: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        parent = load_parent(str(PARENT))
        for part in (parent.model, parent.tokenizer):
            part.save_pretrained(folder / "parent")
        running: list[tuple[Entry, Server]] = []
        for entry in entries(small.absolute(), plain.absolute(), folder / "parent", environments):
            if only and entry.name not in only:
                continue
            click.echo(f"start {entry.name}, {entry.serves}")
            try:
                log = folder / f"{len(running)}.log"
                running.append((entry, stack.enter_context(entry.start(log, entry.body(texts[:1])))))
            except (PeerError, CannotRun) as error:
                absent[f"{entry.name}, {entry.serves}"] = str(error)
                click.echo(str(error))
        idle = idle_cpu([server for _, server in running])
        for (_, server), share in zip(running, idle, strict=True):
            if share > BUSY_WHEN_IDLE:
                server.pause()
                stack.callback(server.resume)
        ceilings = [Ceiling("small", small), Ceiling("plain", plain)]
        for number in range(rounds + 1):  # the first warms up
            for load in LOADS:
                click.echo(f"round {number} of {rounds}: {load.name}")
                found = [row for ceiling in ceilings for row in ceiling.measure(load, texts, seconds)]
                for (entry, server), share in zip(running, idle, strict=True):
                    with server.resumed() if share > BUSY_WHEN_IDLE else contextlib.nullcontext():
                        row = measure(entry, server, load, texts, seconds)
                    found.append({"server": f"{entry.name}, {entry.serves}", **row})
                if number:
                    rows += [{"round": number, "load": load.name, **row} for row in found]
    click.echo("\n".join(sections(rows)))
    if only:
        return
    result = {
        "machine": asdict(this_machine()),
        "python": platform.python_version(),
        "idle_cpu": dict(zip((f"{entry.name}, {entry.serves}" for entry, _ in running), idle, strict=True)),
        "absent": absent,
        "rows": rows,
    }
    out = RESULTS / "table.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    write_table(out)


def entries(small: Path, plain: Path, parent: Path, environments: Path) -> Iterator[Entry]:
    """Every server, in the order of the table."""

    def lathe(bundle: Path) -> Callable[[Path, bytes], contextlib.AbstractContextManager[Server]]:
        return lambda log, _: served("service.app:Lathe", log, {"LATHE_MODELS": f"sentiment={bundle}"})

    def python(peer: str) -> str:
        return str(environment(environments / peer, REQUIREMENTS / f"{peer}.txt"))

    def litserve(bundle: Path) -> Callable[[Path, bytes], contextlib.AbstractContextManager[Server]]:
        return lambda log, body: launched(
            [python("litserve"), "-m", "benchmarks.serving.peers.litserve_server", "{port}"],
            log, {"BUNDLE": str(bundle)}, "/predict", body,
        )  # fmt: skip

    def batchable(bundle: Path) -> Callable[[Path, bytes], contextlib.AbstractContextManager[Server]]:
        target = "benchmarks.serving.peers.bentoml_batchable:Batchable"
        return lambda log, _: served(target, log, {"BUNDLE": str(bundle)})

    def inputs(texts: Texts) -> bytes:
        return orjson.dumps({"inputs": texts})

    def ours(texts: Texts) -> bytes:
        return orjson.dumps({"model": "sentiment", "inputs": texts})

    def infinity_body(texts: Texts) -> bytes:
        return orjson.dumps({"model": "parent", "input": texts})

    for serves, bundle in (("small", small), ("plain", plain)):
        yield Entry("Lathe", serves, "/v1/classify", ours, lathe(bundle))
        yield Entry("LitServe", serves, "/predict", inputs, litserve(bundle))
        yield Entry("BentoML batchable", serves, "/classify", inputs, batchable(bundle))
    yield Entry(
        "Infinity", "parent", "/classify", infinity_body,
        lambda log, body: launched(
            [python("infinity"), "-c", "from infinity_emb.cli import cli; cli()", "v2", "--model-id", str(parent),
             "--served-model-name", "parent", "--engine", "torch", "--device", "cpu", "--no-model-warmup",
             "--port", "{port}"],
            log, {"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1"}, "/classify", body,
        ),
    )  # fmt: skip
    yield Entry(
        "FastAPI + pipeline", "parent", "/classify", inputs,
        lambda log, body: launched(
            [python("pipeline"), "-m", "benchmarks.serving.peers.pipeline_server", "{port}"],
            log, {"PARENT": str(parent), "HF_HUB_OFFLINE": "1"}, "/classify", body,
        ),
    )  # fmt: skip


def measure(entry: Entry, server: Server, load: Load, texts: Texts, seconds: float) -> dict[str, Any]:
    """One load on one server; `refused` where it does not answer all of it with 200."""
    bodies = [entry.body([texts[(at + offset) % len(texts)] for offset in range(load.texts)])
              for at in range(0, len(texts), load.texts)]  # fmt: skip
    url = server.url + entry.path
    try:
        start = time.perf_counter()
        uvloop.run(closed_loop(url, bodies, load.clients, load.clients))
        requests = max(load.clients, int(load.clients / (time.perf_counter() - start) * seconds))
        cpu, start = server.cpu_seconds(), time.perf_counter()
        latencies = uvloop.run(closed_loop(url, bodies, requests, load.clients))
        passed = time.perf_counter() - start
    except RuntimeError as error:
        return {"refused": str(error)}
    return {
        "texts_per_s": round(requests * load.texts / passed, 1),
        "requests_per_s": round(requests / passed, 1),
        "cpu_s_per_1000_texts": round((server.cpu_seconds() - cpu) / requests / load.texts * 1000, 4),
        "p50_ms": round(statistics.median(latencies) * 1e3, 3),
        "p99_ms": round(sorted(latencies)[int(len(latencies) * 0.99)] * 1e3, 3),
    }


class Ceiling:
    """What tokenising and computing take, and nothing else: sorted batches in this process.

    On one thread, and on one for each core, as the server has them: where the cores share caches, or are one core's
    two hyperthreads, a text costs each more CPU seconds when the other is busy, too.
    """

    def __init__(self, name: str, bundle: Path) -> None:
        self._name = name
        self._runtime = Runtime.of(open_bundle(bundle))

    def measure(self, load: Load, texts: Texts, seconds: float) -> list[dict[str, Any]]:
        """A row for each number of threads: of the cheapest batch size for many texts; for the lone client, of one text
        at a time on one thread."""
        in_flight = load.clients * load.texts
        rows: list[dict[str, Any]] = []
        for threads in dict.fromkeys((1, os.cpu_count() or 1) if in_flight > 1 else (1,)):
            sizes = (4, 8) if in_flight > 1 else (1,)
            runs = [self._run(texts, size, in_flight, threads, seconds / 2) for size in sizes]
            cheapest = min(runs, key=lambda run: run["cpu_s_per_1000_texts"])
            rows.append({"server": f"ceiling, {self._name}, {threads} thread{'s'[: threads > 1]}", **cheapest})
        return rows

    def _run(self, texts: Texts, size: int, in_flight: int, threads: int, seconds: float) -> dict[str, float]:
        cpu, start = time.process_time(), time.perf_counter()
        with ThreadPoolExecutor(threads) as executor:
            work = [
                executor.submit(self._work, texts, size, in_flight // threads, start + seconds) for _ in range(threads)
            ]
        passed, cpu = time.perf_counter() - start, time.process_time() - cpu
        results = [done.result() for done in work]
        count = sum(len(latencies) for latencies in results) * in_flight // threads
        alone = {"p50_ms": round(statistics.median(results[0]) * 1e3, 3)} if in_flight == 1 else {}
        return {
            "texts_per_s": round(count / passed, 1),
            "cpu_s_per_1000_texts": round(cpu / count * 1000, 4),
            **alone,
        }

    def _work(self, texts: Texts, size: int, window: int, end: float) -> list[float]:
        """Until that time, so many texts again and again, in batches of `size` sorted by length; seconds of each."""
        latencies: list[float] = []
        upcoming = itertools.cycle(texts)
        while (begin := time.perf_counter()) < end:
            encoded = sorted(map(self._runtime.encode, itertools.islice(upcoming, window)), key=len)
            for first in range(0, window, size):
                self._runtime.logits(encoded[first : first + size])
            latencies.append(time.perf_counter() - begin)
        return latencies


def idle_cpu(servers: list[Server], seconds: float = 5.0) -> list[float]:
    """Share of a core that each server takes while nobody asks."""
    before = [server.cpu_seconds() for server in servers]
    time.sleep(seconds)
    return [round((server.cpu_seconds() - then) / seconds, 3) for server, then in zip(servers, before, strict=True)]


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
