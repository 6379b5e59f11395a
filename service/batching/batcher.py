"""What users of the wing hold: `submit` admits texts, waits for their answers, and leaves nothing behind."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Generic

from service.batching.admission import Admission
from service.batching.cost import CostModel
from service.batching.dispatcher import Dispatcher
from service.batching.estimate import Estimate
from service.batching.limits import BatchLimits
from service.batching.outstanding import Outstanding
from service.batching.queue import FairQueue
from service.batching.submissions import Cancellation, Logits, Submission, T
from service.batching.threads import Threads
from service.telemetry import Telemetry
from service.tenant import ANYONE, Tenant


class Batcher(Generic[T]):
    """Collects items into batches and computes them on threads.

    Args:
        name: the model's name, for metrics and messages.
        infer: computes a batch, (items) -> (items, labels); called on a thread, at most `limits.streams` at once.
        clock: seconds, monotonic; the threads look at it, too.
        executor: where `infer` runs; one thread for each stream when left out.
        work_clock: seconds that this thread has worked; None where others work for it, as a GPU does, and the time that
            passes has to do.

    Attributes:
        metrics: where it measures.
    """

    def __init__(
        self,
        name: str,
        infer: Callable[[Sequence[T]], Logits],
        limits: BatchLimits,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.monotonic,
        executor: Executor | None = None,
        work_clock: Callable[[], float] | None = None,
    ) -> None:
        self.metrics = telemetry.version(name)
        self._limits = limits
        self._clock = clock
        self._cost = CostModel()
        self._threads: Threads[T] = Threads(name, limits.streams, infer, clock, executor, work_clock)
        self._queue: FairQueue[T] = FairQueue(limits.queue_texts, limits.queue_tokens)
        self._estimate = Estimate(limits, self._cost, self._threads)
        self._outstanding = Outstanding(self._queue, self.metrics, clock)
        self._admission = Admission(limits, self._outstanding, self._estimate, clock)
        self._dispatcher = Dispatcher(
            limits,
            self._outstanding,
            self._threads,
            self._cost,
            self._estimate,
            self.metrics,
            clock,
            self._admission.die,
        )

    def rehearse(self, batches: Iterable[Sequence[T]]) -> None:
        """Computes batches on this thread, before `start`, and learns what they cost: from the first request on, an
        estimate decides what is rejected."""
        for batch in batches:
            lengths = [len(item) for item in batch]
            self._cost.observe(sum(lengths), max(lengths) * len(lengths), *self._threads.rehearse(batch))

    def start(self) -> None:
        """Starts the streams; call it inside the event loop."""
        self._dispatcher.start()
        queue, estimate = self._queue, self._estimate
        self.metrics.show(
            texts=lambda: queue.texts,
            tokens=lambda: queue.tokens,
            seconds=lambda: estimate.seconds(queue.texts, queue.tokens),
            batch_tokens=estimate.batch_tokens,
        )

    @property
    def alive(self) -> bool:
        """Whether it takes texts, and no batch hangs: it was started, is not closing, and no stream has died.

        A batch that is done after all, say on a machine that was paused, makes it alive again.
        """
        takes_texts = self._dispatcher.started and self._admission.closed is None
        return takes_texts and self._threads.oldest_s() <= self._limits.hang_s

    def has_room(self, tenant: Tenant = ANYONE, deadline: float = math.inf) -> bool:
        """Whether it would take one text like those that wait; see `Admission.has_room`."""
        return self._admission.has_room(tenant, deadline)

    def require_room(self, texts: int, tenant: Tenant = ANYONE, deadline: float = math.inf) -> None:
        """Rejects so many texts where `submit` would; see `Admission.require_room`."""
        self._admission.require_room(texts, tenant, deadline)

    async def submit(
        self,
        items: Sequence[T],
        tenant: Tenant = ANYONE,
        deadline: float = math.inf,
        cancellation: Cancellation | None = None,
    ) -> Logits:
        """Queues items and waits for their logits, (items, labels), in their order.

        When the caller is cancelled, the deadline passes or one item fails, those of its items that still wait are
        given up at once.

        Args:
            items: at least one.
            tenant: who asks; tenants share the queue fairly, and interactive ones come first.
            deadline: on the batcher's clock; nothing is computed after it.
            cancellation: says why, when the caller is cancelled; its client has gone where this is left out.

        Raises:
            Overloaded: the queue has no room for all of them, or they would not be answered in time, and nothing was
                queued; or they had to give way to others, who held less of a full queue.
            PayloadTooLarge: they would not fit into an empty queue either, or be computed in time by an idle engine.
            DeadlineExceeded: there was no answer in time.
            NotReady: the batcher is closing or has died.
            InferenceFailed, NotANumber: the model could not compute one of them.
        """
        if not items:
            raise ValueError("there are no items to compute")
        outstanding = self._outstanding
        submission = Submission(items, tenant, deadline, self._clock(), cancellation)
        self._admission.admit(submission)
        self._dispatcher.wake()
        timer = None
        if deadline < math.inf:
            timer = asyncio.get_running_loop().call_later(deadline - submission.since, outstanding.expire, submission)
        try:
            return await submission.future
        except asyncio.CancelledError:
            outstanding.shed(submission.left(), submission.waiting)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            outstanding.remove(submission)

    async def close(self) -> None:
        """Takes nothing new, computes what waits, and ends the streams; what is cut short is answered with NotReady."""
        self._admission.closed = self._admission.closed or "the service is stopping"
        outstanding = self._outstanding
        try:
            if outstanding.submissions:
                await asyncio.wait([submission.future for submission in outstanding.submissions])
        finally:
            self._dispatcher.cancel()
            outstanding.end_all("the service stopped before this was computed")
            self._threads.shut_down()
        await self._dispatcher.ended()
