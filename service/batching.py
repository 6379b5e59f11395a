"""The queue before an engine: bounded, token-budgeted, length-aware, honours cancellation. Knows asyncio alone.

    submit ──admission──▶ queue ──a stream is idle──▶ batch ──engine, on a thread──▶ futures
      │ full: Overloaded    │ cancelled: leaves at once        │ fails: each text again, alone
      ▼                     ▼                                  ▼
     429                 not computed                    neighbours keep their answers

- A batch is bounded by tokens as they will be computed: longest times count.
- An idle stream never waits: a lone text starts at once. Batches grow only because all streams are busy.
- The oldest waiting text is in the next batch, so nothing starves; texts of similar length join it.
- One request of 64 texts and 64 requests of one text are treated alike: the queue holds texts.
- Whoever awaits `submit` bounds it in time; when the await is cancelled, what still waits leaves the queue at once.
"""

import asyncio
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from service.errors import InferenceFailed, InternalError, NotANumber, NotReady, Overloaded, PayloadTooLarge
from service.privacy import describe_exception
from service.telemetry import Telemetry

logger = logging.getLogger(__name__)

Logits = npt.NDArray[np.float32]
_DRAIN_SAMPLES = 32  # batches over which the drain rate is measured


class Item(Protocol):
    """A tokenised text; its length is in tokens."""

    def __len__(self) -> int: ...


T = TypeVar("T", bound=Item)


@dataclass(frozen=True)
class BatchLimits:
    """Bounds of one batcher.

    Attributes:
        streams: batches computed at the same time.
        batch_texts: texts in a batch; 1 serves a model whose answers depend on their batch.
        batch_tokens: tokens in a batch, padding counted; a single longer text still goes, alone.
        window: waiting texts among which similar lengths are looked for.
        queue_texts: texts that may wait.
        queue_tokens: tokens that may wait.
    """

    streams: int
    batch_texts: int
    batch_tokens: int
    window: int
    queue_texts: int
    queue_tokens: int


@dataclass(slots=True, eq=False)
class _Waiting(Generic[T]):
    item: T
    future: "asyncio.Future[Logits]"
    since: float


class Batcher(Generic[T]):
    """Collects items into batches and computes them on threads.

    Args:
        name: the model's name, for metrics and messages.
        infer: computes a batch, (items) -> (items, labels); called on a thread, at most `limits.streams` at once.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        name: str,
        infer: Callable[[Sequence[T]], Logits],
        limits: BatchLimits,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._infer = infer
        self._limits = limits
        self._telemetry = telemetry
        self._clock = clock
        self._queue: dict[int, _Waiting[T]] = {}  # in order of arrival; a dict, so that anyone can leave in O(1)
        self._queued_tokens = 0
        self._numbers = itertools.count()
        self._arrival = asyncio.Event()
        self._unsettled: set[asyncio.Future[Logits]] = set()
        self._finished: deque[tuple[float, int]] = deque(maxlen=_DRAIN_SAMPLES)  # when, how many texts
        self._threads = ThreadPoolExecutor(limits.streams, thread_name_prefix=f"infer-{name}")
        self._streams: list[asyncio.Task[None]] = []
        self._closing = False

    def start(self) -> None:
        """Starts the streams; call it inside the event loop."""
        self._streams = [asyncio.create_task(self._stream()) for _ in range(self._limits.streams)]

    @property
    def alive(self) -> bool:
        """Whether every stream is running; a dead one would leave texts waiting for ever."""
        return bool(self._streams) and not any(stream.done() for stream in self._streams)

    async def submit(self, items: Sequence[T]) -> Logits:
        """Queues items and waits for their logits, (items, labels), in their order.

        When the caller is cancelled, or one item fails, those of its items that still wait are given up.

        Raises:
            Overloaded: the queue has no room for all of them; nothing was queued.
            PayloadTooLarge: they would not fit into an empty queue either.
            NotReady: the batcher is closing.
            InferenceFailed, NotANumber: the model could not compute one of them.
        """
        self._admit(items)
        waiting = [self._enqueue(item) for item in items]
        self._arrival.set()
        try:
            return np.stack(await asyncio.gather(*(one.future for one in waiting)))
        finally:
            for one in waiting:
                one.future.cancel()

    async def close(self) -> None:
        """Takes nothing new, computes what waits, and ends the streams."""
        self._closing = True
        if self._unsettled:
            await asyncio.wait(self._unsettled)
        for stream in self._streams:
            stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)
        self._threads.shutdown(wait=False)

    def _admit(self, items: Sequence[T]) -> None:
        tokens = sum(map(len, items))
        limits = self._limits
        if self._closing:
            raise NotReady("the service is stopping")
        if len(items) > limits.queue_texts or tokens > limits.queue_tokens:
            raise PayloadTooLarge(
                f"the request has {len(items)} texts and {tokens} tokens; the queue of {self._name!r} never holds more "
                f"than {limits.queue_texts} and {limits.queue_tokens}: send fewer at a time"
            )
        if len(self._queue) + len(items) > limits.queue_texts or self._queued_tokens + tokens > limits.queue_tokens:
            self._telemetry.shed(self._name, "overloaded", len(items))
            raise Overloaded(
                f"{len(self._queue)} texts and {self._queued_tokens} tokens wait for {self._name!r}; try again later",
                self._retry_after_s(),
            )

    def _retry_after_s(self) -> int:
        """Seconds until half of the queue is gone, at the rate of the last batches; 1 to 60."""
        if len(self._finished) < 2:
            return 1
        seconds = self._clock() - self._finished[0][0]
        texts = sum(count for _, count in itertools.islice(self._finished, 1, None))
        return min(60, max(1, math.ceil(len(self._queue) / 2 * seconds / texts)))

    def _enqueue(self, item: T) -> _Waiting[T]:
        number = next(self._numbers)
        waiting = _Waiting(item, asyncio.get_running_loop().create_future(), self._clock())
        self._queue[number] = waiting
        self._queued_tokens += len(item)
        self._unsettled.add(waiting.future)
        waiting.future.add_done_callback(self._unsettled.discard)
        waiting.future.add_done_callback(lambda _: self._leave(number))
        self._telemetry.queued(self._name, len(self._queue), self._queued_tokens)
        return waiting

    def _leave(self, number: int) -> None:
        waiting = self._queue.pop(number, None)
        if waiting is not None:
            self._queued_tokens -= len(waiting.item)
            self._telemetry.queued(self._name, len(self._queue), self._queued_tokens)

    async def _stream(self) -> None:
        while True:
            while not self._queue:
                self._arrival.clear()
                await self._arrival.wait()
            batch = self._take()
            await self._compute(batch)
            self._finished.append((self._clock(), len(batch)))

    def _take(self) -> list[_Waiting[T]]:
        """The oldest item and those of the window closest to it in length, within the batch's bounds."""
        numbers = sorted(
            itertools.islice(self._queue, self._limits.window), key=lambda number: len(self._queue[number].item)
        )
        low = numbers.index(next(iter(self._queue)))
        high = low + 1

        def length(position: int) -> int:
            return len(self._queue[numbers[position]].item)

        while high - low < self._limits.batch_texts:
            padded = length(high - 1) * (high - low + 1)  # with one shorter item more
            shorter_fits = low > 0 and padded <= self._limits.batch_tokens
            longer_fits = high < len(numbers) and length(high) * (high - low + 1) <= self._limits.batch_tokens
            if not shorter_fits and not longer_fits:
                break
            if not longer_fits or (
                shorter_fits and length(high - 1) - length(low - 1) <= length(high) - length(high - 1)
            ):
                low -= 1
            else:
                high += 1
        batch = []
        for number in numbers[low:high]:
            batch.append(self._queue[number])
            self._leave(number)
        return batch

    async def _compute(self, batch: list[_Waiting[T]]) -> None:
        now = self._clock()
        for one in batch:
            self._telemetry.waited(self._name, now - one.since)
        self._telemetry.batch(self._name, [len(one.item) for one in batch])
        try:
            rows = await self._on_thread(batch)
        except Exception as error:
            if len(batch) > 1:  # find the one at fault; the others get their answers
                for one in batch:
                    if not one.future.done():
                        await self._compute([one])
                return
            logger.error("model %s failed on a text of %d tokens: %s", self._name, len(batch[0].item),
                         describe_exception(error))  # fmt: skip
            self._settle(batch[0], InferenceFailed(f"the model {self._name!r} could not compute this text"))
            return
        for one, row in zip(batch, rows, strict=True):
            if np.isfinite(row).all():
                self._settle(one, row)
            else:
                self._settle(one, NotANumber(f"the model {self._name!r} gave no finite number for this text"))

    async def _on_thread(self, batch: list[_Waiting[T]]) -> Logits:
        items = [one.item for one in batch]
        with self._telemetry.stage(self._name, "infer"):
            rows = await asyncio.get_running_loop().run_in_executor(self._threads, self._infer, items)
        if len(rows) != len(items):
            raise InternalError(f"the engine gave {len(rows)} answers for {len(items)} texts")
        return rows

    def _settle(self, one: _Waiting[T], result: Logits | InferenceFailed | NotANumber) -> None:
        if isinstance(result, Exception):
            self._telemetry.failed(self._name, result.code)
        if one.future.done():  # its client has gone meanwhile
            return
        if isinstance(result, Exception):
            one.future.set_exception(result)
        else:
            one.future.set_result(result)
