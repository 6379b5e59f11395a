"""What the batcher refuses or gives up: for place, for time, for a client that has gone."""

import asyncio
import time

import pytest

from service.batching import Batcher
from service.errors import (
    DeadlineExceeded,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    ServiceError,
)
from service.telemetry import Telemetry
from service.tenant import Tenant
from tests.service.fake_model import LIMITS, FakeModel, hold_the_stream, run, sums
from tests.service.virtual_time import VirtualEngine, VirtualLoop


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


def test_in_a_full_queue_the_key_that_holds_most_gives_way() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        held = await hold_the_stream(batcher, model)
        greedy = [asyncio.create_task(batcher.submit([[number]] * 10, Tenant("greedy"))) for number in range(10)]
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await batcher.submit([[10]], Tenant("greedy"))
        modest = asyncio.create_task(batcher.submit([[20]] * 15, Tenant("modest")))
        for newest in greedy[:-3:-1]:
            with pytest.raises(Overloaded):
                await newest
        model.gate.set()
        assert (await modest)[:, 0].tolist() == [20] * 15
        await asyncio.gather(held, *greedy[:8])

    run(scenario)


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
        others_turn = await batcher.submit([[5]], Tenant("another"), loop.time() + 20)  # keys take turns
        assert others_turn[0, 0] == 5
        await asyncio.gather(waiting, in_time)
        with pytest.raises(DeadlineExceeded):  # it was tried
            await batcher.submit([[6]], deadline=loop.time() + 0.01)
        await batcher.close()

    loop.run_until_complete(main())
    loop.close()


def test_more_texts_than_can_be_computed_in_their_time_are_refused_for_good_and_a_single_one_is_tried() -> None:
    loop = VirtualLoop()
    engine = VirtualEngine(loop, 1, lambda batch: 0.1 * len(batch))
    batcher: Batcher[list[int]] = Batcher("m", sums, LIMITS, Telemetry(), engine.clock, engine)

    async def main() -> None:
        batcher.start()
        with pytest.raises(DeadlineExceeded):  # nothing is known yet
            await batcher.submit([[1]] * 20, deadline=loop.time() + 1)
        await batcher.submit([[1]] * 20)
        before = loop.time()
        with pytest.raises(PayloadTooLarge, match=r"at most 1[0-9] like these") as refusal:
            await batcher.submit([[1]] * 48, deadline=before + 1.5)
        assert not refusal.value.retryable
        assert loop.time() == before
        await batcher.submit([[1]] * 10, deadline=loop.time() + 1.5)
        await batcher.submit([[1]] * 48)
        with pytest.raises(DeadlineExceeded):
            await batcher.submit([[1]], deadline=loop.time() + 0.05)
        await batcher.close()
        with pytest.raises(NotReady):
            await batcher.submit([[1]] * 48, deadline=loop.time() + 1.5)

    loop.run_until_complete(main())
    loop.close()


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
