"""Open-loop overload in virtual time: the numbers do not depend on the machine that runs the test."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from service.batching import Batcher, BatchLimits, Logits
from service.errors import DeadlineExceeded, Overloaded
from service.telemetry import Telemetry
from service.tenant import Tenant
from tests.service.virtual_time import VirtualEngine, VirtualLoop

LIMITS = BatchLimits(
    streams=2, batch_texts=2048, batch_tokens=2048, batch_ms=25, window=256, queue_texts=2048, queue_tokens=1 << 18
)  # fmt: skip
CAPACITY = 1220  # texts/s of two streams at 1 ms + 45 us for each padded token, in full batches of short messages


SECONDS = 6.0


@dataclass
class Outcome:
    """What became of the texts of each tenant, and of the batches."""

    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    retry_after: list[int] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    batch_seconds: list[float] = field(default_factory=list)


def overload(
    rates: dict[str, float], timeout: float, texts: int = 1, seconds: float = SECONDS, limits: BatchLimits = LIMITS
) -> Outcome:
    """So many texts per second of each tenant, in requests of `texts`, at random moments; noisy batches, one in 300 of
    which stalls. What is answered after the end is not counted."""
    choose, loop, outcome = random.Random(0), VirtualLoop(), Outcome()
    asyncio.set_event_loop(loop)

    def cost(batch: Sequence[list[int]]) -> float:
        padded = max(map(len, batch)) * len(batch)
        outcome.batch_seconds.append((0.001 + padded * 45e-6) * choose.lognormvariate(0, 0.2))
        return outcome.batch_seconds[-1] * (10 if choose.random() < 1 / 300 else 1)

    def infer(batch: Sequence[list[int]]) -> Logits:
        return np.zeros((len(batch), 2), np.float32)

    engine = VirtualEngine(loop, limits.streams, cost)
    batcher: Batcher[list[int]] = Batcher("m", infer, limits, Telemetry(), engine.clock, engine)

    async def ask(tenant: str) -> None:
        start = loop.time()
        try:
            await batcher.submit([[0] * choose.randint(5, 59) for _ in range(texts)], Tenant(tenant), start + timeout)
        except Overloaded as error:
            outcome.refused[tenant] += texts
            outcome.retry_after.append(error.retry_after_s)
        except DeadlineExceeded:
            outcome.late[tenant] += texts
        else:
            outcome.waited.append(loop.time() - start)
            if loop.time() < seconds:
                outcome.answered[tenant] += texts

    async def send(tenant: str, rate: float) -> None:
        asking = []
        while loop.time() < seconds:
            await asyncio.sleep(choose.expovariate(rate / texts))
            asking.append(asyncio.create_task(ask(tenant)))
        await asyncio.gather(*asking)

    async def main() -> None:
        batcher.start()
        await asyncio.gather(*(send(tenant, rate) for tenant, rate in rates.items()))
        await batcher.close()

    loop.run_until_complete(main())
    loop.close()
    assert loop.failures == []
    return outcome


@pytest.mark.parametrize(("texts", "timeout"), [(1, 10), (1, 0.5), (32, 10), (32, 0.5)])
def test_three_times_the_load_keeps_nine_tenths_of_the_goodput(texts: int, timeout: float) -> None:
    outcome = overload({"a": 3 * CAPACITY}, timeout, texts)
    assert outcome.answered["a"] / SECONDS >= 0.9 * CAPACITY
    assert max(outcome.waited) <= timeout
    assert outcome.late["a"] < 0.03 * outcome.answered["a"]  # what cannot be in time is refused, not computed
    assert all(seconds >= 1 for seconds in outcome.retry_after)


def test_batches_keep_their_time() -> None:
    outcome = overload({"a": 3 * CAPACITY}, timeout=10)
    learnt = sorted(outcome.batch_seconds[20:])
    assert 0.015 < learnt[len(learnt) // 2] < 0.027
    assert learnt[len(learnt) * 95 // 100] < 0.025 * 1.5  # noise of 20 %


def test_retry_after_is_how_long_the_queue_takes() -> None:
    outcome = overload({"a": 3 * CAPACITY}, timeout=60)
    assert Counter(outcome.retry_after[-1000:]).most_common(1)[0][0] == 2  # 2048 texts at 1220 a second


@pytest.mark.parametrize("timeout", [0.5, 10])
def test_a_key_within_its_share_is_served_whatever_another_sends(timeout: float) -> None:
    outcome = overload({"greedy": 4 * CAPACITY, "modest": 0.25 * CAPACITY}, timeout)
    assert outcome.refused["modest"] + outcome.late["modest"] == 0
    assert outcome.answered["modest"] > 0.85 * 0.25 * CAPACITY * SECONDS  # the others come after the end
    assert sum(outcome.answered.values()) > 0.9 * CAPACITY * SECONDS


def test_two_greedy_keys_share_equally() -> None:
    outcome = overload({"a": 4 * CAPACITY, "b": CAPACITY}, timeout=10)
    assert outcome.answered["a"] == pytest.approx(outcome.answered["b"], rel=0.05)


def test_a_thread_finds_its_next_batch_ready_where_the_event_loop_is_late() -> None:
    """Clients that ask again when they are answered; the loop, which has other work, learns of each batch 4 ms late."""
    loop, spent = VirtualLoop(), []
    asyncio.set_event_loop(loop)

    def cost(batch: Sequence[list[int]]) -> float:
        spent.append(0.001 + max(map(len, batch)) * len(batch) * 80e-6)
        return spent[-1]

    engine = VirtualEngine(loop, LIMITS.streams, cost, delay=0.004)
    batcher: Batcher[list[int]] = Batcher(
        "m", lambda batch: np.zeros((len(batch), 2), np.float32), LIMITS, Telemetry(), engine.clock, engine
    )

    async def client(number: int) -> None:
        choose = random.Random(number)
        while loop.time() < SECONDS:
            await batcher.submit([[0] * choose.randint(5, 59)])

    async def main() -> None:
        batcher.start()
        await asyncio.gather(*map(client, range(32)))
        await batcher.close()

    loop.run_until_complete(main())
    loop.close()
    assert sum(spent) > 0.85 * LIMITS.streams * SECONDS


@pytest.mark.parametrize("rehearsed", [False, True])
def test_what_was_learnt_before_the_first_request_decides_whether_a_large_one_is_taken(rehearsed: bool) -> None:
    """A short text alone takes ten times what its tokens do: to who saw only that, 200 long ones look like 6 s."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)

    def seconds(batch: Sequence[list[int]]) -> float:
        return 0.009 + 1e-4 * max(map(len, batch)) * len(batch)

    def infer(batch: Sequence[list[int]]) -> Logits:
        if not loop.is_running():  # rehearsed
            loop.pass_time(seconds(batch))
        return np.zeros((len(batch), 2), np.float32)

    engine = VirtualEngine(loop, 1, seconds)
    batcher: Batcher[list[int]] = Batcher("m", infer, LIMITS, Telemetry(), engine.clock, engine)
    if rehearsed:
        batcher.rehearse([[[0] * tokens] for tokens in (10, 40, 160)] * 4)

    async def main() -> bool:
        batcher.start()
        await batcher.submit([[0] * 10], deadline=loop.time() + 10)
        short = []
        for _ in range(3):  # two are computed, and one waits
            short.append(asyncio.create_task(batcher.submit([[0] * 10], deadline=loop.time() + 10)))
            await asyncio.sleep(0.001)
        large = batcher.submit([[0] * 60 for _ in range(200)], deadline=loop.time() + 10)
        *_, answer = await asyncio.gather(*short, large, return_exceptions=True)
        await batcher.close()
        return not isinstance(answer, Overloaded)

    taken = loop.run_until_complete(main())
    loop.close()
    assert taken is rehearsed
