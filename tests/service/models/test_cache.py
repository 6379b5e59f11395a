"""The cache: its bounds, one computation for equal texts, and nobody who suffers from another's end."""

import asyncio
import random
import tracemalloc
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.bundle import Encoded
from service.batching import Batcher, BatchLimits, Logits
from service.errors import DeadlineExceeded, NotANumber, Overloaded, PayloadTooLarge
from service.models.cache import CachedBatcher, ResultCache
from service.telemetry import Telemetry
from service.tenant import Tenant
from tests.service.virtual_time import VirtualEngine, VirtualLoop

POISON = 9
LIMITS = BatchLimits(
    streams=1, batch_texts=64, batch_tokens=64, batch_ms=1e6, window=256, queue_texts=100, queue_tokens=1000
)


def text(number: int) -> Encoded:
    return Encoded([number, 1], [0, 0], False)


class World:
    """A batcher behind a cache, in virtual time: a batch takes a second. Counts how often each text is computed."""

    def __init__(self, max_bytes: int = 10_000) -> None:
        self.loop = VirtualLoop()
        self.computed: Counter[int] = Counter()
        self.cache = ResultCache(max_bytes)
        self.telemetry = Telemetry()
        engine = VirtualEngine(self.loop, 1, lambda batch: 1.0)
        self.batcher = Batcher("m", self.infer, LIMITS, self.telemetry, engine.clock, engine)
        self.cached = self.of_version("v1")
        self.loop.run_until_complete(self._start())

    def of_version(self, version: str) -> CachedBatcher:
        return CachedBatcher(self.cache, version, self.batcher, self.loop.time)

    async def _start(self) -> None:
        self.batcher.start()

    def infer(self, batch: Sequence[Encoded]) -> Logits:
        self.computed.update(item.ids[0] for item in batch)
        return np.array([[np.nan if item.ids[0] == POISON else item.ids[0], 0] for item in batch], np.float32)

    def ask(self, *numbers: int, seconds: float = float("inf")) -> "asyncio.Task[Logits]":
        deadline = self.loop.time() + seconds
        task = self.loop.create_task(self.cached.submit([text(number) for number in numbers], Tenant("key"), deadline))
        self.loop.settle()
        return task

    def end(self) -> None:
        self.loop.run_until_complete(self.batcher.close())
        self.loop.close()
        assert self.loop.failures == []
        assert self.cached._flights == {}

    def outcomes(self) -> dict[str, float]:
        (metric,) = [metric for metric in self.telemetry.collect() if metric.name == "lathe_cache_texts"]
        return {sample.labels["outcome"]: sample.value for sample in metric.samples if sample.name.endswith("_total")}


def answers(task: "asyncio.Task[Logits]") -> list[float]:
    column: list[float] = task.result()[:, 0].tolist()
    return column


def test_a_text_that_comes_again_is_not_computed_again_and_order_is_kept() -> None:
    world = World()
    first = world.ask(3, 4, 3)
    world.loop.pass_time(2)
    again = world.ask(4, 5, 4, 3)
    world.loop.pass_time(2)
    assert answers(first) == [3, 4, 3]
    assert answers(again) == [4, 5, 4, 3]
    assert world.computed == {3: 1, 4: 1, 5: 1}
    assert world.outcomes() == {"hit": 2, "shared": 2, "miss": 3}
    world.end()


def test_equal_texts_at_one_time_are_computed_once() -> None:
    world = World()
    tasks = [world.ask(1, number) for number in (2, 2, 3)]
    world.loop.pass_time(5)
    assert [answers(task) for task in tasks] == [[1, 2], [1, 2], [1, 3]]
    assert world.computed == {1: 1, 2: 1, 3: 1}
    world.end()


@pytest.mark.parametrize("waits", [True, False])
def test_a_leader_who_goes_takes_no_follower_along(waits: bool) -> None:
    world = World()
    if waits:
        world.ask(8)  # keeps the only stream busy
    leader = world.ask(1, 2)
    followers = [world.ask(1), world.ask(2, 1)]
    leader.cancel()
    world.loop.pass_time(9)
    assert leader.cancelled()
    assert [answers(task) for task in followers] == [[1], [2, 1]]
    assert world.computed[1] <= (1 if waits else 2)  # what was in the model is computed once more, not for each
    world.end()


def test_a_follower_who_goes_touches_nobody() -> None:
    world = World()
    leader, gone, stays = world.ask(1), world.ask(1), world.ask(1)
    gone.cancel()
    world.loop.pass_time(5)
    assert (answers(leader), answers(stays), world.computed[1]) == ([1], [1], 1)
    world.end()


def test_everyone_keeps_to_a_deadline_of_their_own() -> None:
    world = World()
    world.ask(8)
    leader, follower, hurried = world.ask(1, seconds=1.5), world.ask(1, seconds=30), world.ask(1, seconds=0.5)
    world.loop.pass_time(0.6)
    assert isinstance(hurried.exception(), DeadlineExceeded)
    world.loop.pass_time(9)
    assert isinstance(leader.exception(), DeadlineExceeded)
    assert answers(follower) == [1]
    world.end()


def test_an_error_is_neither_kept_nor_given_to_others() -> None:
    world = World()
    poisoned, follower = world.ask(1, POISON), world.ask(1)
    world.loop.pass_time(9)
    assert isinstance(poisoned.exception(), NotANumber)
    assert answers(follower) == [1]
    again = world.ask(POISON)
    world.loop.pass_time(9)
    assert isinstance(again.exception(), NotANumber)
    assert world.computed[POISON] == 2
    world.end()


def test_a_full_queue_keeps_nobody_from_what_is_known() -> None:
    world = World()
    known = world.ask(1)
    world.loop.pass_time(2)
    waiting = [world.ask(8), world.ask(*range(100, 200))]  # one is computed, a hundred fill the queue
    assert not world.batcher.has_room(Tenant("key"))
    assert world.cached.has_room(Tenant("key"))
    world.cached.require_room(1, Tenant("key"))
    again, unknown = world.ask(1), world.ask(2)
    assert answers(again) == answers(known) == [1]
    assert isinstance(unknown.exception(), Overloaded)
    world.loop.pass_time(30)
    assert all(task.done() and task.exception() is None for task in waiting)
    world.end()


def test_another_version_begins_with_nothing() -> None:
    world = World()
    world.ask(1)
    world.loop.pass_time(2)
    other = world.of_version("v2")
    world.loop.run_until_complete(other.submit([text(1)]))
    assert world.computed[1] == 2
    world.end()


ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("ask"), st.lists(st.integers(0, POISON), min_size=1, max_size=4), st.sampled_from([0.5, 2, 99])
        ),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("pass"), st.sampled_from([0.0, 0.4, 1.0])),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(ACTIONS, st.integers(0, 3000))
def test_whatever_happens_every_answer_is_right_and_ends_and_bounds_hold(
    actions: list[tuple[Any, ...]], max_bytes: int
) -> None:
    world = World(max_bytes)
    asked: list[tuple[list[int], asyncio.Task[Logits]]] = []
    for action, *arguments in actions:
        if action == "ask":
            numbers, seconds = arguments
            asked.append((numbers, world.ask(*numbers, seconds=seconds)))
        elif action == "cancel" and asked:
            asked[arguments[0] % len(asked)][1].cancel()
        elif action == "pass":
            world.loop.pass_time(arguments[0])
        assert world.cache.size_bytes <= max_bytes
    world.loop.pass_time(500)
    for numbers, task in asked:
        assert task.done()
        if task.cancelled():
            continue
        if (error := task.exception()) is None:
            assert answers(task) == numbers
        else:
            refused = isinstance(error, DeadlineExceeded | Overloaded | PayloadTooLarge)
            assert refused or (isinstance(error, NotANumber) and POISON in numbers)
    world.end()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=60), st.integers(0, 3000))
def test_the_least_recently_used_leaves_first(calls: list[tuple[bool, int]], max_bytes: int) -> None:
    cache = ResultCache(max_bytes)
    model: OrderedDict[int, int] = OrderedDict()  # sizes, in order of use
    for put, number in calls:
        key, row = number.to_bytes(32), np.full(1 + number, number, np.float32)
        if put:
            before = cache.size_bytes
            cache.put(key, row)
            size = row.nbytes + 500
            if number not in model and size <= max_bytes:
                model[number] = size
                while sum(model.values()) > max_bytes:
                    model.popitem(last=False)
            else:
                assert cache.size_bytes == before
        else:
            found = cache.get(key)
            assert (found is not None) == (number in model)
            if found is not None:
                assert found.tolist() == row.tolist()
                model.move_to_end(number)
        assert cache.size_bytes == sum(model.values()) <= max_bytes


@pytest.mark.parametrize("labels", [2, 77])
def test_the_bound_is_of_memory_as_it_is(labels: int) -> None:
    cache = ResultCache(1_000_000)
    batch = np.zeros((64, labels), np.float32)
    tracemalloc.start()
    try:
        for number in range(20_000):
            cache.put(random.Random(number).randbytes(32), batch[number % 64])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.5 * cache.size_bytes < held <= 1.1 * 1_000_000
