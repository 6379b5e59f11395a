"""A load triples and falls again, and replicas follow: is a request lost, and how long are answers late?

    python -m benchmarks.elastic.run bundles/sentiment

Requests come when they are due, whether or not those before were answered, and their time counts from then. The
autoscaler is that of deploy/kubernetes/keda, from whose file its formula is read, asking a real Prometheus. Writes
results/elastic.json: the replicas over time; requests that were not answered with 200; the 99th percentile of each
phase, and how long after the rise it was back within the bound; replica-seconds, beside as many as the peak needs.
"""

import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import orjson
import uvloop

from benchmarks.elastic.autoscaler import Autoscaler
from benchmarks.elastic.replicas import Replicas, ask, load_balancer, prometheus
from benchmarks.serving.client import Connection
from benchmarks.serving.texts import short_messages
from compression.measure.machine import this_machine
from loadtests.run import free_port

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results" / "elastic.json"
SCALED_OBJECT = ROOT / "deploy" / "kubernetes" / "keda" / "scaled-object.yaml"
SECONDS_PER_TEXT = 0.016
SLOTS = 4  # replicas that this machine has room for
CALM, PEAK = 80.0, 240.0  # requests a second
BOUND_MS = 250.0
_SLICE_S = 5.0


@dataclass
class Load:
    """What a client sees.

    Attributes:
        seconds: of each answer, from when its request was due; with when that was.
        statuses: 0 where the connection ended in place of an answer.
    """

    seconds: list[tuple[float, float]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def p99_ms(self, begin: float, end: float) -> float:
        """Of the requests that were due within that time."""
        found = sorted(taken for due, taken in self.seconds if begin <= due < end)
        return round(found[int(0.99 * len(found))] * 1e3, 1) if found else float("nan")


async def send(url: str, phases: Sequence[tuple[float, float]], start: float, load: Load) -> None:
    """Sends so many requests a second for so long, one phase after another."""
    idle: list[Connection] = []
    bodies = [orjson.dumps({"model": "sentiment", "inputs": text}) for text in short_messages()]

    async def one(number: int, due: float) -> None:
        connection = idle.pop() if idle else None
        try:
            if connection is None or connection.closed:
                connection = await Connection.open(f"{url}/v1/classify")
            status, _ = await connection.post(bodies[number % len(bodies)])
            idle.append(connection)
        except OSError:
            status = 0
        load.statuses[status] += 1
        load.seconds.append((due - start, time.monotonic() - due))

    due, number = start, 0
    async with asyncio.TaskGroup() as tasks:
        for seconds, rate in phases:
            for _ in range(round(seconds * rate)):
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                tasks.create_task(one(number, due))
                due, number = due + 1 / rate, number + 1
    for connection in idle:
        connection.close()


async def follow(
    scaler: Autoscaler, replicas: Replicas, address: str, start: float, end: float
) -> list[tuple[float, int, list[float]]]:
    """Has as many replicas as the autoscaler wants; gives when it decided, how many, and on which values."""
    decisions: list[tuple[float, int, list[float]]] = []
    while (now := time.monotonic()) < end:
        values = [await asyncio.to_thread(ask, address, trigger.query) for trigger in scaler.triggers]
        wanted = scaler.decide(now, len(replicas), values)
        replicas.scale(wanted)
        decisions.append((round(now - start, 1), wanted, [round(value, 3) for value in values]))
        await asyncio.sleep(max(0.0, now + scaler.interval_s - time.monotonic()))
    return decisions


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--calm-s", default=60.0, show_default=True, help="Before the rise.")
@click.option("--peak-s", default=120.0, show_default=True)
@click.option("--after-s", default=480.0, show_default=True, help="After the fall.")
def main(bundle: Path, calm_s: float, peak_s: float, after_s: float) -> None:
    """Writes results/elastic.json."""
    phases = [(calm_s, CALM), (peak_s, PEAK), (after_s, CALM)]
    length = calm_s + peak_s + after_s
    ports, load = [free_port() for _ in range(SLOTS)], Load()
    scaler = Autoscaler.read(SCALED_OBJECT, SLOTS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        replicas = Replicas(folder, bundle, ports, SECONDS_PER_TEXT)
        try:
            replicas.scale(2)
            replicas.wait_until_ready()
            with load_balancer(folder, ports) as url, prometheus(folder, ports) as address:
                time.sleep(3)  # until both have seen them

                async def play() -> list[tuple[float, int, list[float]]]:
                    start = time.monotonic()
                    following = asyncio.create_task(follow(scaler, replicas, address, start, start + length))
                    await send(url, phases, start, load)
                    return await following

                decisions = uvloop.run(play())
        finally:
            replicas.stop()
    times = [*(when for when, _, _ in decisions), length]
    used = sum(wanted * (later - when) for (when, wanted, _), later in zip(decisions, times[1:], strict=True))
    slices = [calm_s + _SLICE_S * number for number in range(int(peak_s / _SLICE_S))]
    late = [begin for begin in slices if load.p99_ms(begin, begin + _SLICE_S) > BOUND_MS]
    rise, fall = calm_s, calm_s + peak_s
    result = {
        "machine": asdict(this_machine()),
        "requests_per_s": [CALM, PEAK, CALM],
        "seconds": [calm_s, peak_s, after_s],
        "statuses": dict(load.statuses),
        "p99_ms": {
            "calm": load.p99_ms(0, rise), "rise": load.p99_ms(rise, rise + 30),
            "peak": load.p99_ms(rise + 30, fall), "after": load.p99_ms(fall, length),
        },
        "bound_ms": BOUND_MS,
        "back_within_bound_after_s": (late[-1] + _SLICE_S - rise) if late else 0.0,
        "replica_seconds": round(used),
        "replica_seconds_of_the_peak": round(max(wanted for _, wanted, _ in decisions) * length),
        "decisions": decisions,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(result) + "\n", "utf-8")
    click.echo(json.dumps({name: value for name, value in result.items() if name != "decisions"}, indent=1))
    for when, wanted, values in decisions:
        click.echo(f"{when:6.1f} s  {wanted} replicas  {values}")


if __name__ == "__main__":
    main()
