"""What goes together, and what is computed at the same time; with a fake model that says what it was given."""

import asyncio
import os
import sys
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from service.batching import Batcher, BatchLimits, Logits
from service.errors import (
    Overloaded,
)
from service.telemetry import Telemetry
from tests.service.fake_model import LIMITS, FakeModel, hold_the_stream, run


def test_a_lone_text_starts_at_once() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        model.gate.set()
        assert (await batcher.submit([[2, 3]]))[0, 0] == 5

    assert run(scenario).batches == [[[2, 3]]]


def test_answers_come_in_the_order_of_the_texts_whatever_their_length() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        model.gate.set()
        texts = [[number] * (1 + number * 7 % 13) for number in range(50)]
        assert (await batcher.submit(texts))[:, 0].tolist() == [sum(text) for text in texts]

    run(scenario)


def test_no_batch_has_more_tokens_than_allowed_padding_counted() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        held = await hold_the_stream(batcher, model)
        waiting = asyncio.create_task(batcher.submit([[1] * (1 + number % 17) for number in range(60)]))
        await asyncio.sleep(0.02)
        model.gate.set()
        await asyncio.gather(held, waiting)

    batches = run(scenario).batches
    assert all(max(map(len, batch)) * len(batch) <= LIMITS.batch_tokens for batch in batches)
    assert max(map(len, batches)) > 3  # it does batch


def test_a_text_longer_than_a_batch_goes_alone() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        model.gate.set()
        assert (await batcher.submit([[1] * 500]))[0, 0] == 500

    assert [len(batch) for batch in run(scenario).batches] == [1]


def test_similar_lengths_go_together_and_the_oldest_is_in_the_next_batch() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        held = await hold_the_stream(batcher, model)
        oldest = asyncio.create_task(batcher.submit([[9] * 16]))
        await asyncio.sleep(0.01)
        rest = asyncio.create_task(batcher.submit([[1], [2], [3] * 15, [4], [5] * 16, [6]]))
        await asyncio.sleep(0.01)
        model.gate.set()
        await asyncio.gather(held, oldest, rest)

    second = run(scenario).batches[1]
    assert [9] * 16 in second
    assert sorted(map(len, second)) == [1, 15, 16, 16]  # four of at most 16 tokens fill the 64


def test_streams_compute_at_the_same_time() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        tasks = [asyncio.create_task(batcher.submit([[number]])) for number in (1, 2)]
        while len(model.batches) < 2:  # both are in the model before either is let out
            await asyncio.sleep(0.001)
        model.gate.set()
        await asyncio.gather(*tasks)

    limits = BatchLimits(
        streams=2, batch_texts=1, batch_tokens=64, batch_ms=1e6, window=8, queue_texts=8, queue_tokens=64
    )
    run(scenario, limits)


def test_a_model_whose_answers_depend_on_the_batch_gets_one_text_at_a_time() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        model.gate.set()
        await batcher.submit([[1], [2], [3]])

    limits = BatchLimits(
        streams=1, batch_texts=1, batch_tokens=64, batch_ms=1e6, window=8, queue_texts=8, queue_tokens=64
    )
    assert [len(batch) for batch in run(scenario, limits).batches] == [1, 1, 1]


def test_one_request_of_many_texts_and_many_of_one_are_treated_alike() -> None:
    lengths = [1 + number * 7 % 13 for number in range(100)]

    async def together(batcher: Batcher[list[int]], model: FakeModel) -> None:
        held = await hold_the_stream(batcher, model)
        many = asyncio.create_task(batcher.submit([[0] * length for length in lengths]))
        await full(batcher, model, held, many)

    async def apart(batcher: Batcher[list[int]], model: FakeModel) -> None:
        held = await hold_the_stream(batcher, model)
        many = [asyncio.create_task(batcher.submit([[0] * length])) for length in lengths]
        await full(batcher, model, held, *many)

    async def full(batcher: Batcher[list[int]], model: FakeModel, *tasks: "asyncio.Task[Logits]") -> None:
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await batcher.submit([[1]])
        model.gate.set()
        await asyncio.gather(*tasks)

    assert run(together).batches == run(apart).batches


def test_texts_are_taken_while_the_model_computes() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        held = await hold_the_stream(batcher, model)
        next_batch = [asyncio.create_task(batcher.submit([[number]])) for number in range(8)]
        await asyncio.sleep(0.01)
        model.gate.set()
        await asyncio.gather(held, *next_batch)

    assert [len(batch) for batch in run(scenario).batches] == [1, 8]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere niceness is the whole process's")
def test_threads_that_compute_give_way_to_the_event_loop() -> None:
    nice: list[int] = []

    def infer(batch: Sequence[list[int]]) -> Logits:
        nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return np.zeros((len(batch), 2), np.float32)

    async def main() -> None:
        batcher = Batcher("m", infer, LIMITS, Telemetry())
        batcher.start()
        await batcher.submit([[1]])
        await batcher.close()

    asyncio.run(main())
    assert nice == [os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) + 8]
