"""What the batcher itself costs: CPU microseconds per text in front of a model that does nothing.

    python -m benchmarks.serving.batcher

Callers ask again as soon as they are answered, so that the queue is as deep as there are texts in flight. Lengths are
those of short messages (5 to 59 tokens). Each line is the median and the spread of interleaved rounds, in CPU time of
the whole process, threads included: a busy machine changes it little.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import click
import numpy as np

from service.batching import Batcher, BatchLimits, Logits
from service.telemetry import Telemetry

_NOTHING = np.zeros((4096, 2), np.float32)


@dataclass(frozen=True)
class Load:
    """`callers` at once, each with `texts` in a request."""

    callers: int
    texts: int


LOADS = (Load(1, 1), Load(32, 1), Load(1000, 1), Load(1, 32), Load(32, 32))


def nothing(batch: Sequence[Sequence[int]]) -> Logits:
    """A model without work."""
    return _NOTHING[: len(batch)]


async def cpu_us_per_text(load: Load, texts: int, seed: int) -> float:
    """CPU microseconds per text for at least that many texts."""
    choose = random.Random(seed)
    items = [[0] * choose.randint(5, 59) for _ in range(997)]
    limits = BatchLimits(
        streams=2, batch_texts=2048, batch_tokens=2048, batch_ms=25, window=256, queue_texts=4096, queue_tokens=1 << 20
    )
    batcher: Batcher[list[int]] = Batcher("m", nothing, limits, Telemetry())
    batcher.start()
    remaining = texts

    async def caller(position: int) -> None:
        nonlocal remaining
        while remaining > 0:
            remaining -= load.texts
            await batcher.submit([items[(position + offset) % len(items)] for offset in range(load.texts)])
            position += load.texts

    start = time.process_time()
    await asyncio.gather(*(caller(number * 31) for number in range(load.callers)))
    seconds = time.process_time() - start
    await batcher.close()
    return seconds / (texts - remaining) * 1e6


@click.command()
@click.option("--texts", default=20_000, show_default=True, help="Texts of a round.")
@click.option("--rounds", default=7, show_default=True)
def main(texts: int, rounds: int) -> None:
    """Prints CPU microseconds per text for each load."""
    measured: dict[Load, list[float]] = {load: [] for load in LOADS}
    for number in range(rounds):
        for load in LOADS:
            measured[load].append(asyncio.run(cpu_us_per_text(load, texts, number)))
    click.echo("| callers | texts in a request | CPU us per text | lowest | highest |\n| --- | --- | --- | --- | --- |")
    for load, values in measured.items():
        figures = f"{statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f}"
        click.echo(f"| {load.callers} | {load.texts} | {figures} |")


if __name__ == "__main__":
    main()
