"""A text that fails, an engine that dies, and the end: nobody is left waiting."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from service.batching import Batcher, Logits
from service.errors import (
    InferenceFailed,
    NotANumber,
    NotReady,
)
from service.telemetry import Telemetry
from tests.service.fake_model import LIMITS, NAN, POISON, FakeModel, hold_the_stream, run, sums


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
            batcher._dispatcher._streams[0].cancel()
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
    assert "its worker died" in caplog.text


def test_a_batch_that_hangs_is_told_from_one_that_takes_its_time() -> None:
    async def scenario(batcher: Batcher[list[int]], model: FakeModel) -> None:
        held = await hold_the_stream(batcher, model)
        assert batcher.alive
        await asyncio.sleep(0.25)
        assert not batcher.alive
        model.gate.set()  # it was slow and no more
        assert (await held)[0, 0] == 1
        assert batcher.alive

    run(scenario, replace(LIMITS, hang_s=0.2))


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
