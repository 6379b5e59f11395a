"""The batcher, with a fake model that says what it was given."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pytest

from service.batching import Batcher, BatchLimits, Logits
from service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    NotANumber,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    ServiceError,
)
from service.telemetry import Telemetry
from tests.service.virtual_time import VirtualEngine, VirtualLoop

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


def test_a_text_whose_time_is_over_never_reaches_the_model_and_says_so_at_once() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        held = await hold_the_stream(batcher, model)
        late = asyncio.create_task(batcher.submit([[50]] * 99, deadline=time.monotonic() + 0.05))
        with pytest.raises(DeadlineExceeded):  # while the model still holds the only stream
            await late
        stays = asyncio.create_task(batcher.submit([[60]] * 100))  # there is room again
        await asyncio.sleep(0.01)
        model.gate.set()
        await asyncio.gather(held, stays)
        with pytest.raises(DeadlineExceeded):
            await batcher.submit([[50]], deadline=time.monotonic())

    texts = [text for batch in run(scenario).batches for text in batch]
    assert [60] in texts
    assert [50] not in texts


def test_a_late_timer_does_not_let_a_text_through() -> None:
    now = [0.0]
    model = FakeModel()

    async def main() -> None:
        batcher = Batcher("m", model, LIMITS, Telemetry(), clock=lambda: now[0])
        batcher.start()
        held = await hold_the_stream(batcher, model)
        late = asyncio.create_task(batcher.submit([[50], [51]], deadline=100))
        await asyncio.sleep(0.01)
        now[0] = 100  # the timer would come 100 s later
        model.gate.set()
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(late, 10)
        await held
        await batcher.close()

    asyncio.run(main())
    assert model.batches == [[[1]]]


def test_what_waits_too_long_for_its_deadline_is_refused_at_once_and_an_empty_queue_refuses_nothing() -> None:
    loop = VirtualLoop()
    engine = VirtualEngine(loop, 1, lambda batch: 0.1 * len(batch))
    batcher: Batcher[list[int]] = Batcher("m", sums, LIMITS, Telemetry(), engine.clock, engine)

    async def main() -> None:
        batcher.start()
        await batcher.submit([[1]] * 5)
        waiting = asyncio.create_task(batcher.submit([[2]] * 64 + [[3]] * 30))  # some ten seconds of work
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refusal:
            await batcher.submit([[4]], deadline=loop.time() + 3)
        assert refusal.value.retry_after_s == 10
        in_time = asyncio.create_task(batcher.submit([[4]], deadline=loop.time() + 30))
        others_turn = await batcher.submit([[5]], "another", loop.time() + 20)  # keys take turns
        assert others_turn[0, 0] == 5
        await asyncio.gather(waiting, in_time)
        with pytest.raises(DeadlineExceeded):  # it was tried
            await batcher.submit([[6]], deadline=loop.time() + 0.01)
        await batcher.close()

    loop.run_until_complete(main())
    loop.close()


def test_in_a_full_queue_the_key_that_holds_most_gives_way() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        held = await hold_the_stream(batcher, model)
        greedy = [asyncio.create_task(batcher.submit([[number]] * 10, "greedy")) for number in range(10)]
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await batcher.submit([[10]], "greedy")
        modest = asyncio.create_task(batcher.submit([[20]] * 15, "modest"))
        for newest in greedy[:-3:-1]:
            with pytest.raises(Overloaded):
                await newest
        model.gate.set()
        assert (await modest)[:, 0].tolist() == [20] * 15
        await asyncio.gather(held, *greedy[:8])

    run(scenario)


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


class Panic(BaseException):
    """What native code raises when it cannot go on."""


@pytest.mark.parametrize("death", ["engine", "stream", "threads"])
def test_when_a_stream_dies_all_that_waits_is_answered_at_once(death: str, caplog: pytest.LogCaptureFixture) -> None:
    gate, started = threading.Event(), threading.Event()

    def die(batch: Sequence[list[int]]) -> Logits:
        started.set()
        assert gate.wait(10)
        if death == "engine":
            raise Panic
        return sums(batch)

    async def main() -> None:
        threads = ThreadPoolExecutor(2)
        batcher: Batcher[list[int]] = Batcher("m", die, replace(LIMITS, streams=2), Telemetry(), executor=threads)
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit([[number] * 60])) for number in range(10)]
        while not started.is_set():
            await asyncio.sleep(0.001)
        assert batcher.alive
        if death == "stream":
            batcher._streams[0].cancel()
        elif death == "threads":
            threads.shutdown(wait=False)
        if death != "stream":
            gate.set()
        answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert sum(isinstance(answer, NotReady) for answer in answers) >= 8
        assert not batcher.alive
        with pytest.raises(NotReady, match="restarted"):
            await batcher.submit([[1]])
        gate.set()
        await batcher.close()

    asyncio.run(main())
    assert "a stream has died" in caplog.text


def test_a_close_that_is_cut_short_leaves_nobody_waiting() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        held = await hold_the_stream(batcher, model)
        waiting = asyncio.create_task(batcher.submit([[8]]))
        await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.close(), 0.05)
        for task in (held, waiting):
            with pytest.raises(NotReady):
                await task

    run(scenario)


def test_metrics_say_what_waits_and_what_was_given_up() -> None:
    telemetry = Telemetry()
    model = FakeModel()

    async def main() -> None:
        batcher = Batcher("m", model, LIMITS, telemetry)
        batcher.start()
        held = await hold_the_stream(batcher, model)
        gone = asyncio.create_task(batcher.submit([[1, 2], [3]]))
        late = asyncio.create_task(batcher.submit([[4]], deadline=time.monotonic() + 0.02))
        await asyncio.sleep(0.01)
        assert value("lathe_queue_texts") == 3
        assert value("lathe_queue_tokens") == 4
        assert value("lathe_batch_limit_tokens") == 64
        gone.cancel()
        with pytest.raises(DeadlineExceeded):
            await late
        assert value("lathe_queue_texts") == 0
        model.gate.set()
        await held
        await batcher.close()

    def value(name: str, **labels: str) -> float:
        return next(
            sample.value
            for metric in telemetry.collect()
            for sample in metric.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    asyncio.run(main())
    assert value("lathe_shed_texts_total", reason="client_gone") == 2
    assert value("lathe_shed_texts_total", reason="deadline") == 1


def test_errors_know_their_status() -> None:
    assert {error.code for error in ServiceError.__subclasses__()} >= {"overloaded", "deadline_exceeded"}
    assert Overloaded("full", 3).headers == {"Retry-After": "3"}
