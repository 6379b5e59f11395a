"""The streams: each takes a batch from the queue, has a thread compute it, and answers its texts, again and again."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Generic

import numpy as np

from service.batching.cost import CostModel
from service.batching.estimate import Estimate
from service.batching.limits import BatchLimits
from service.batching.outstanding import Outstanding
from service.batching.submissions import T, Text
from service.batching.threads import Computed, EngineDied, Threads
from service.errors import InferenceFailed, InternalError, NotANumber
from service.redaction import describe_exception
from service.telemetry import VersionMetrics

logger = logging.getLogger(__name__)

_AHEAD = 8  # batches that a thread may have before it at most


class Dispatcher(Generic[T]):
    """Keeps the threads busy with what waits.

    Args:
        on_death: called with the reason when a stream has died: nothing will be computed any more.
    """

    def __init__(
        self,
        limits: BatchLimits,
        outstanding: Outstanding[T],
        threads: Threads[T],
        cost: CostModel,
        estimate: Estimate[T],
        metrics: VersionMetrics,
        clock: Callable[[], float],
        on_death: Callable[[str], None],
    ) -> None:
        self._limits = limits
        self._outstanding = outstanding
        self._queue = outstanding.queue
        self._threads = threads
        self._cost = cost
        self._estimate = estimate
        self._metrics = metrics
        self._clock = clock
        self._on_death = on_death
        self._idle: deque[asyncio.Future[None]] = deque()  # of each stream without work, what wakes it
        self._streams: list[asyncio.Task[None]] = []

    @property
    def started(self) -> bool:
        return bool(self._streams)

    def start(self) -> None:
        """Starts the streams; call it inside the event loop."""
        self._streams = [asyncio.create_task(self._stream()) for _ in range(_AHEAD * self._limits.streams)]
        for stream in self._streams:
            stream.add_done_callback(self._stream_ended)

    def cancel(self) -> None:
        """Ends the streams, whatever they are at."""
        for stream in self._streams:
            stream.remove_done_callback(self._stream_ended)
            stream.cancel()

    async def ended(self) -> None:
        """Waits until every stream has ended."""
        await asyncio.gather(*self._streams, return_exceptions=True)
        self._streams.clear()  # each knows this object, by where it was cancelled: the engine would stay
        self._idle.clear()

    def wake(self) -> None:
        """Has an idle stream take what waits, where a thread can have it."""
        while self._idle and self._may_take():
            sleeping = self._idle.popleft()
            if not sleeping.done():
                sleeping.set_result(None)
                return

    def _may_take(self) -> bool:
        """Whether a thread is free, or will be before the event loop, which has other work, can learn of it."""
        threads = self._threads
        return bool(self._queue) and (threads.idle or threads.free_in() < threads.lag_s)

    async def _stream(self) -> None:
        while True:
            while not self._may_take():
                self._idle.append(asyncio.get_running_loop().create_future())
                await self._idle[-1]
            batch = self._take()
            if batch:
                await self._compute(batch)

    def _take(self) -> list[Text[T]]:
        """The next batch, without those that nobody waits for any more."""
        limits = self._limits
        fixed_tokens = self._cost.fixed_tokens if limits.fixed_tokens is None else limits.fixed_tokens
        batch = self._queue.take(limits.batch_texts, self._estimate.batch_tokens(), fixed_tokens, limits.window)
        return [text for text in batch if self._outstanding.wants(text)]

    async def _compute(self, batch: list[Text[T]]) -> None:
        try:
            computed = await self._on_thread(batch)
        except EngineDied:
            raise
        except Exception as error:
            await self._after_failure(batch, error)
            return
        rows = computed.logits
        finite_rows = np.logical_and.reduce(np.isfinite(rows), axis=1)
        for text, row, finite in zip(computed.texts, rows, finite_rows, strict=True):
            if finite:
                text.submission.answer(text.position, row)
            else:
                message = f"the model {self._outstanding.name!r} gave no finite number for this text"
                self._outstanding.fail(text, NotANumber(message))

    async def _after_failure(self, batch: list[Text[T]], error: Exception) -> None:
        """Finds the text at fault; the others get their answers."""
        if len(batch) > 1:
            for text in batch:
                if self._outstanding.wants(text):
                    await self._compute([text])
            return
        name = self._outstanding.name
        logger.error("model %s failed on a text of %d tokens: %s", name, batch[0].tokens, describe_exception(error))
        self._outstanding.fail(batch[0], InferenceFailed(f"the model {name!r} could not compute this text"))

    async def _on_thread(self, batch: list[Text[T]]) -> Computed[T]:
        """What a thread makes of a batch; learns what a batch costs."""
        now = self._clock()
        lengths = [text.tokens for text in batch]
        padded = max(lengths) * len(lengths)
        self._metrics.batch(lengths, [now - text.submission.since for text in batch])
        computing = self._threads.hand(batch, self._cost.seconds(padded))
        self.wake()  # for what is left
        computed = await computing
        texts, logits = computed.texts, computed.logits
        if logits.ndim != 2 or len(logits) != len(texts):
            raise InternalError(f"the engine gave answers of shape {logits.shape} for {len(texts)} texts")
        if len(texts) == len(batch):
            seconds = computed.end - computed.start
            self._cost.observe(sum(lengths), padded, seconds, computed.work_s)
            self._metrics.inferred(seconds)
        for text in set(batch).difference(texts):
            self._outstanding.wants(text)  # nobody does; this counts why
        return computed

    def _stream_ended(self, stream: "asyncio.Task[None]") -> None:
        """Nothing ends a stream but `cancel`; whatever else did, nobody is left waiting for it."""
        error = None if stream.cancelled() else stream.exception()
        reason = "cancelled" if error is None else describe_exception(error)
        name = self._outstanding.name
        logger.critical("model %s: its worker died: %s", name, reason)
        self._on_death(f"the worker of the model {name!r} died; the service must be restarted")
