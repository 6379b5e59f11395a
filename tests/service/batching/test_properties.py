"""The batcher under anything that can happen, in any order and in virtual time, beside a list of what was submitted."""

import asyncio
import contextlib
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.batching import Batcher, BatchLimits, Logits
from service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    NotANumber,
    NotReady,
    Overloaded,
    PayloadTooLarge,
)
from service.telemetry import Telemetry
from service.tenant import Tenant
from tests.service.virtual_time import VirtualEngine, VirtualLoop

TENANTS = (Tenant("a"), Tenant("b"), Tenant("c", "batch"))
LIMITS = BatchLimits(
    streams=2, batch_texts=3, batch_tokens=64, batch_ms=20, window=3, queue_texts=16, queue_tokens=200
)  # fmt: skip
POISON, NAN = "poison", "nan"


@dataclass(frozen=True)
class Text:
    """A text of so many tokens; poison makes the model raise, nan makes its answer one."""

    number: int
    tokens: int
    kind: str

    def __len__(self) -> int:
        return self.tokens


@dataclass(eq=False)
class Sent:
    """A request as the test knows it."""

    tenant: Tenant
    texts: list[Text]
    deadline: float
    task: "asyncio.Task[Logits]"
    ended: float = math.nan
    cancelled: bool = False
    checked: bool = False


class BatcherMachine(RuleBasedStateMachine):
    """Sends, cancels, waits, breaks; after each step every promise is checked."""

    @initialize(streams=st.integers(1, 3), queue_texts=st.sampled_from((16, 60)))
    def start(self, streams: int, queue_texts: int) -> None:
        logging.getLogger("service").setLevel(logging.CRITICAL + 1)  # failures by the hundred
        self.limits = replace(LIMITS, streams=streams, queue_texts=queue_texts, queue_tokens=13 * queue_texts)
        self.loop = VirtualLoop()
        self.slowness = 1.0
        self.failing = 0  # of so many batches the model raises whatever is in them
        self.panicking = False
        self.dead = False
        self.numbers = 0
        self.broken_promises: list[AssertionError] = []
        self.sent: list[Sent] = []
        self.computed: set[int] = set()
        self.victims: set[int] = set()  # texts that were alone in a batch when the model raised
        self.skipped: Counter[int] = Counter()  # batches that went without a text that was the oldest of its key
        self.engine = VirtualEngine(
            self.loop, streams, lambda batch: self.slowness * (0.00213 + 0.000171 * self.padded(batch))
        )
        self.batcher: Batcher[Text] = Batcher("m", self.infer, self.limits, Telemetry(), self.engine.clock, self.engine)
        self.loop.run_until_complete(self.begin())

    async def begin(self) -> None:
        self.batcher.start()

    @staticmethod
    def padded(batch: Sequence[Text]) -> int:
        return max(map(len, batch)) * len(batch)

    def waiting(self, tenant: Tenant | None = None) -> Iterator[Text]:
        """Texts in the queue, oldest first: nobody has computed them, and somebody wants them."""
        for sent in self.sent:
            if tenant in (None, sent.tenant) and not sent.task.done() and sent.deadline > self.loop.time():
                yield from (text for text in sent.texts if text.number not in self.computed)

    def infer(self, batch: Sequence[Text]) -> Logits:
        try:
            self.check_batch(batch)
        except AssertionError as error:  # the batcher would take it for a failure of the model
            self.broken_promises.append(error)
        numbers = {text.number for text in batch}
        self.computed |= numbers
        if self.panicking:
            raise KeyboardInterrupt
        if self.failing or any(text.kind == POISON for text in batch):
            self.failing = max(0, self.failing - 1)
            if len(batch) == 1:
                self.victims |= numbers
            raise RuntimeError("the model fails")
        return np.array([[math.nan if text.kind == NAN else text.number, len(text)] for text in batch], np.float32)

    def check_batch(self, batch: Sequence[Text]) -> None:
        """A batch is within its bounds, wanted, new, and starves nobody."""
        assert len(batch) == 1 or self.padded(batch) <= self.limits.batch_tokens
        assert len(batch) <= self.limits.batch_texts
        numbers = {text.number for text in batch}
        for sent in self.sent:
            if numbers & {text.number for text in sent.texts}:
                assert sent.deadline > self.loop.time()  # what came too late is not computed
                assert not sent.task.done()
        if numbers <= self.computed:  # one of a batch that failed, again
            assert len(batch) == 1
        else:
            assert not numbers & self.computed
            for tenant in TENANTS:
                oldest = next(self.waiting(tenant), None)
                if oldest is not None and oldest not in batch and oldest.number not in self.doomed():
                    self.skipped[oldest.number] += 1
                    # Two interactive keys, and a batch between; or four batches of theirs.
                    assert self.skipped[oldest.number] <= (2 if tenant.priority == "interactive" else 4)

    def doomed(self) -> set[int]:
        """Texts of requests that have failed, or will when a batch that runs ends: nobody owes them a turn."""
        return {
            text.number
            for sent in self.sent
            if any(
                one.number in self.victims or (one.kind == NAN and one.number in self.computed) for one in sent.texts
            )
            for text in sent.texts
        }

    @rule(
        tenant=st.sampled_from(TENANTS),
        lengths=st.lists(st.integers(1, 30), min_size=1, max_size=10),
        odd=st.sampled_from(("ok", "ok", "ok", "ok", POISON, NAN)),
        seconds=st.sampled_from((None, None, 0.0117, 0.0723, 1.0019)),
        pause=st.sampled_from((0, 0, 0.007, 0.02)),
    )
    def submit(
        self, tenant: Tenant, lengths: list[int], odd: str, seconds: float | None, pause: float
    ) -> None:  # fmt: skip
        """A request, and a pause after it."""
        before = {key: list(self.waiting(key)) for key in TENANTS}
        pending = [sent for sent in self.sent if not sent.task.done()]
        texts = [
            Text(self.numbers + position, length, odd if position == 2 else "ok")
            for position, length in enumerate(lengths)
        ]
        self.numbers += len(texts)
        deadline = math.inf if seconds is None else self.loop.time() + seconds
        early = self.early_refusal(len(texts), tenant, deadline)
        sent = Sent(tenant, texts, deadline, self.loop.create_task(self.batcher.submit(texts, tenant, deadline)))
        sent.task.add_done_callback(lambda _: setattr(sent, "ended", self.loop.time()))
        self.sent.append(sent)
        self.loop.settle()
        self.check_admission(sent, before, pending)
        if early is not None and not (isinstance(early, Overloaded) and seconds):  # that one is an estimate
            assert isinstance(sent.task.exception(), (type(early), PayloadTooLarge))
        self.loop.pass_time(pause)

    def early_refusal(self, texts: int, tenant: Tenant, deadline: float) -> Exception | None:
        """What so many texts are told before they are tokenised; a single one would be told what `has_room` says."""
        room = self.batcher.has_room(tenant, deadline)
        with contextlib.suppress(NotReady):
            try:
                self.batcher.require_room(1, tenant, deadline)
                assert room
            except Overloaded:
                assert not room
        try:
            self.batcher.require_room(texts, tenant, deadline)
        except (Overloaded, DeadlineExceeded, NotReady) as error:
            return error
        return None

    def check_admission(self, sent: Sent, before: dict[Tenant, list[Text]], pending: list[Sent]) -> None:
        """Who was refused or had to give way held more than the equal share of a queue that was too full."""
        if self.dead:
            return
        texts, tokens = [text for line in before.values() for text in line], sum(map(len, sent.texts))
        full = (
            len(texts) + len(sent.texts) > self.limits.queue_texts
            or sum(map(len, texts)) + tokens > self.limits.queue_tokens
        )
        keys = sum(bool(line) for key, line in before.items() if key != sent.tenant) + 1

        def above_share(line: list[Text]) -> bool:
            share = max(len(line) / self.limits.queue_texts, sum(map(len, line)) / self.limits.queue_tokens)
            return share * keys > 1 + 1e-9

        refused = sent.task.done() and isinstance(sent.task.exception(), Overloaded)
        if refused and sent.deadline == math.inf:
            assert full
            assert above_share(before[sent.tenant] + sent.texts)
        gave_way = [
            one
            for one in pending
            if one.task.done() and not one.task.cancelled() and isinstance(one.task.exception(), Overloaded)
        ]
        if gave_way:
            assert full
            assert not refused
            assert not above_share(before[sent.tenant] + sent.texts)
            assert all(above_share(before[one.tenant]) for one in gave_way)

    @rule(which=st.integers(0, 5))
    def cancel(self, which: int) -> None:
        pending = [sent for sent in self.sent if not sent.task.done()]
        if pending:
            sent = pending[which % len(pending)]
            sent.cancelled = True
            sent.task.cancel()
            self.loop.settle()

    @rule(seconds=st.sampled_from((0.001, 0.01, 0.05)))
    def wait(self, seconds: float) -> None:
        self.loop.pass_time(seconds)

    @rule(failing=st.sampled_from((0, 0, 1, 3)), slowness=st.sampled_from((0.2, 1.0, 5.0)))
    def change_the_model(self, failing: int, slowness: float) -> None:
        self.failing, self.slowness = failing, slowness

    @precondition(lambda self: len(self.sent) > 15 and any(True for _ in self.waiting()))
    @rule(panic=st.booleans())
    def die(self, panic: bool) -> None:
        """The model's thread ends, or there are none any more; the next batch notices."""
        self.panicking, self.engine.broken = panic, not panic
        self.loop.pass_time(10)
        if not self.batcher.alive:
            self.dead = True
            assert all(sent.task.done() for sent in self.sent)
        else:  # what waited was given up before there was a next batch
            self.panicking = self.engine.broken = False

    @invariant()
    def promises_are_kept(self) -> None:
        if not hasattr(self, "batcher"):
            return
        assert self.broken_promises == []
        assert self.loop.failures == []
        assert self.batcher.alive is not self.dead
        waiting = list(self.waiting())
        assert len(waiting) <= self.limits.queue_texts
        assert sum(map(len, waiting)) <= self.limits.queue_tokens
        assert not waiting or self.engine.running == self.limits.streams  # an idle stream never waits
        for sent in self.sent:
            if sent.task.done() and not sent.checked:
                self.check_end(sent)
                sent.checked = True

    def check_end(self, sent: Sent) -> None:
        numbers = {text.number for text in sent.texts}
        kinds = {text.kind for text in sent.texts}
        assert sent.ended <= sent.deadline + 1e-9
        if sent.task.cancelled():
            assert sent.cancelled
            return
        error = sent.task.exception()
        if error is None:
            assert kinds == {"ok"}
            assert sent.task.result().tolist() == [[text.number, len(text)] for text in sent.texts]
        elif isinstance(error, DeadlineExceeded):
            assert sent.ended >= sent.deadline - 1e-9
        elif isinstance(error, InferenceFailed):
            assert numbers & self.victims
        elif isinstance(error, NotANumber):
            assert NAN in kinds
        elif isinstance(error, NotReady):
            assert self.dead or self.panicking or self.engine.broken
        elif isinstance(error, PayloadTooLarge):
            too_many = sum(map(len, sent.texts)) > self.limits.queue_tokens
            assert too_many or (len(sent.texts) > 1 and sent.deadline < math.inf)  # or too many for their time
        else:
            assert isinstance(error, Overloaded)
            assert not numbers <= self.computed

    def teardown(self) -> None:
        if not hasattr(self, "batcher"):
            return
        try:
            self.loop.run_until_complete(self.batcher.close())
            self.loop.settle()
            assert all(sent.task.done() for sent in self.sent)
            self.dead = True
            for sent in self.sent:
                self.check_end(sent)
            state: Any = self.batcher
            assert (state._queue.texts, state._queue.tokens, any(state._queue._lines.values())) == (0, 0, False)
            assert (state._outstanding.submissions, state._threads._handed) == (set(), {})
            assert self.broken_promises == []
            assert self.loop.failures == []
        finally:
            logging.getLogger("service").setLevel(logging.NOTSET)
            self.loop.close()


BatcherMachine.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, derandomize=True, database=None
)
TestBatcher = pytest.mark.filterwarnings("ignore:.*was never awaited")(BatcherMachine.TestCase)
