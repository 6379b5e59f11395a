"""The batcher, with a fake model that says what it was given."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest

from service.batching import Batcher, BatchLimits
from service.errors import InferenceFailed, NotANumber, NotReady, Overloaded, PayloadTooLarge, ServiceError
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


def test_one_poisoned_text_fails_alone() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        held = await hold_the_stream(batcher, model)
        good = [asyncio.create_task(batcher.submit([[number]])) for number in range(31)]
        bad = asyncio.create_task(batcher.submit([[POISON]]))
        await asyncio.sleep(0.02)
        model.gate.set()
        assert [(await task)[0, 0] for task in good] == list(range(31))
        with pytest.raises(InferenceFailed):
            await bad
        await held
        assert batcher.alive

    run(scenario)


def test_an_answer_that_is_not_a_number_fails_alone() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        model.gate.set()
        results = await asyncio.gather(batcher.submit([[NAN]]), batcher.submit([[7]]), return_exceptions=True)
        assert isinstance(results[0], NotANumber)
        assert not isinstance(results[1], BaseException)
        assert results[1][0, 0] == 7

    run(scenario)


def test_a_cancelled_request_never_reaches_the_model_and_leaves_its_place() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        held = await hold_the_stream(batcher, model)
        gone = asyncio.create_task(batcher.submit([[50]] * 99))
        stays = asyncio.create_task(batcher.submit([[60]]))
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await batcher.submit([[1]])
        gone.cancel()
        await asyncio.sleep(0.01)
        again = asyncio.create_task(batcher.submit([[70]]))
        await asyncio.sleep(0.01)
        model.gate.set()
        assert [(await task)[0, 0] for task in (held, stays, again)] == [1, 60, 70]

    texts = [text for batch in run(scenario).batches for text in batch]
    assert [50] not in texts


def test_cancelling_a_batch_mate_in_flight_leaves_the_others_alone() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        held = await hold_the_stream(batcher, model)
        model.batches.clear()
        held.cancel()  # its text is being computed
        other = asyncio.create_task(batcher.submit([[3]]))
        await asyncio.sleep(0.01)
        model.gate.set()
        assert (await other)[0, 0] == 3

    run(scenario)


@pytest.mark.parametrize("texts", [[[1]] * 101, [[1] * 11] * 92])
def test_what_never_fits_is_refused_for_good(texts: list[list[int]]) -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        with pytest.raises(PayloadTooLarge):
            await batcher.submit(texts)

    run(scenario)


@pytest.mark.parametrize("texts", [[[1]] * 60, [[1] * 30] * 20])
def test_a_full_queue_refuses_at_once_in_texts_and_in_tokens(texts: list[list[int]]) -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        held = await hold_the_stream(batcher, model)
        first = asyncio.create_task(batcher.submit(texts))
        await asyncio.sleep(0.01)
        start = time.monotonic()
        with pytest.raises(Overloaded) as refusal:
            await batcher.submit(texts)
        assert time.monotonic() - start < 1
        assert 1 <= refusal.value.retry_after_s <= 60
        model.gate.set()
        await asyncio.gather(held, first)

    run(scenario)


def test_closing_answers_what_waits_and_takes_nothing_new() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        held = await hold_the_stream(batcher, model)
        waiting = asyncio.create_task(batcher.submit([[8]]))
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.01)
        with pytest.raises(NotReady):
            await batcher.submit([[1]])
        model.gate.set()
        assert (await waiting)[0, 0] == 8
        await asyncio.gather(held, closing)

    run(scenario)


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


def test_errors_know_their_status() -> None:
    assert {error.code for error in ServiceError.__subclasses__()} >= {"overloaded", "deadline_exceeded"}
    assert Overloaded("full", 3).headers == {"Retry-After": "3"}
