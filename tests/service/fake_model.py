"""A model for the batcher that says what it was given, and holds it until it may go on."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from service.batching import Batcher, BatchLimits, Logits
from service.telemetry import Telemetry

POISON, NAN = 666, 777


@dataclass
class FakeModel:
    """Answers each text (a list of numbers) with its sum. Holds every batch until `gate` is open."""

    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[list[list[int]]] = field(default_factory=list)

    def __call__(self, batch: Sequence[list[int]]) -> npt.NDArray[np.float32]:
        self.batches.append([list(text) for text in batch])
        assert self.gate.wait(10)
        if any(POISON in text for text in batch):
            raise RuntimeError("poisoned")
        return np.array([[np.nan if NAN in text else sum(text), 0] for text in batch], np.float32)


def sums(batch: Sequence[list[int]]) -> Logits:
    """A model that answers each text with its sum."""
    return np.array([[sum(text), 0] for text in batch], np.float32)


LIMITS = BatchLimits(
    streams=1, batch_texts=64, batch_tokens=64, batch_ms=1e6, window=256, queue_texts=100, queue_tokens=1000
)


def run(
    scenario: Callable[[Batcher[list[int]], FakeModel], Awaitable[None]], limits: BatchLimits = LIMITS
) -> FakeModel:
    """Runs a scenario against a started batcher, then closes it."""
    model = FakeModel()

    async def main() -> None:
        batcher = Batcher("m", model, limits, Telemetry())
        batcher.start()
        try:
            await asyncio.wait_for(scenario(batcher, model), 20)
        finally:
            model.gate.set()
            await asyncio.wait_for(batcher.close(), 20)

    asyncio.run(main())
    return model


async def hold_the_stream(batcher: Batcher[list[int]], model: FakeModel) -> "asyncio.Task[npt.NDArray[np.float32]]":
    """Keeps the one stream busy with a text of its own until the model's gate opens."""
    task = asyncio.create_task(batcher.submit([[1]]))
    while not model.batches:
        await asyncio.sleep(0.001)
    return task
