"""Admission, streams and answers: `submit` puts texts into the queue, each stream computes batch after batch."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Generic

import numpy as np

from service.batching.cost import CostModel
from service.batching.limits import BatchLimits
from service.batching.queue import FairQueue
from service.batching.requests import Logits, Request, T, Text
from service.batching.threads import Computed, EngineDied, Threads
from service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InternalError,
    NotANumber,
    NotReady,
    Overloaded,
    PayloadTooLarge,
)
from service.redaction import describe_exception
from service.telemetry import Telemetry

logger = logging.getLogger(__name__)

# Part of its time that a request may be expected to wait. The rest is for what an estimate cannot know: which texts
# will be overtaken by others of the window. In overload a shorter queue costs nothing, and late answers do.
_HEADROOM = 0.35
_AHEAD = 8  # batches that a thread may have before it at most


class Batcher(Generic[T]):
    """Collects items into batches and computes them on threads.

    Args:
        name: the model's name, for metrics and messages.
        infer: computes a batch, (items) -> (items, labels); called on a thread, at most `limits.streams` at once.
        clock: seconds, monotonic; the threads look at it, too.
        executor: where `infer` runs; one thread for each stream when left out.
        work_clock: seconds that this thread has worked; None where others work for it, as a GPU does, and the time that
            passes has to do.
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
        self._name = name
        self._limits = limits
        self._telemetry = telemetry
        self._clock = clock
        self._threads: Threads[T] = Threads(name, limits.streams, infer, clock, executor, work_clock)
        self._queue: FairQueue[T] = FairQueue(limits.queue_texts, limits.queue_tokens)
        self._cost = CostModel()
        self._unanswered: set[Request[T]] = set()
        self._idle: deque[asyncio.Future[None]] = deque()  # of each stream without work, what wakes it
        self._streams: list[asyncio.Task[None]] = []
        self._refusal: str | None = None  # why nothing is taken any more

    def rehearse(self, batches: Iterable[Sequence[T]]) -> None:
        """Computes batches on this thread, before `start`, and learns what they cost: from the first request on, an
        estimate decides what is refused."""
        for batch in batches:
            lengths = [len(item) for item in batch]
            self._cost.observe(sum(lengths), max(lengths) * len(lengths), *self._threads.rehearse(batch))

    def start(self) -> None:
        """Starts the streams; call it inside the event loop."""
        self._streams = [asyncio.create_task(self._stream()) for _ in range(_AHEAD * self._limits.streams)]
        for stream in self._streams:
            stream.add_done_callback(self._stream_ended)
        self.rename(self._name)

    @property
    def name(self) -> str:
        """Under which metrics and messages know it."""
        return self._name

    def rename(self, name: str) -> None:
        """Measures under this name from now on, and shows the queue under it in place of whichever did."""
        self._name = name
        self._telemetry.queue(
            self._name,
            texts=lambda: self._queue.texts,
            tokens=lambda: self._queue.tokens,
            seconds=lambda: self._seconds(self._queue.texts, self._queue.tokens),
            batch_tokens=self._batch_tokens,
        )

    @property
    def alive(self) -> bool:
        """Whether it takes texts, and no batch hangs: it was started, is not closing, and no stream has died.

        A batch that is done after all, say on a machine that was paused, makes it alive again.
        """
        takes_texts = bool(self._streams) and self._refusal is None
        return takes_texts and self._threads.oldest_s() <= self._limits.hang_s

    async def submit(self, items: Sequence[T], tenant: str = "", deadline: float = math.inf) -> Logits:
        """Queues items and waits for their logits, (items, labels), in their order.

        When the caller is cancelled, the deadline passes or one item fails, those of its items that still wait are
        given up at once.

        Args:
            items: at least one.
            tenant: who asks; tenants share the queue fairly.
            deadline: on the batcher's clock; nothing is computed after it.

        Raises:
            Overloaded: the queue has no room for all of them, or they would not be answered in time, and nothing was
                queued; or they had to give way to others, who held less of a full queue.
            PayloadTooLarge: they would not fit into an empty queue either.
            DeadlineExceeded: there was no answer in time.
            NotReady: the batcher is closing or has died.
            InferenceFailed, NotANumber: the model could not compute one of them.
        """
        request = self._admit(items, tenant, deadline)
        timer = None
        if deadline < math.inf:
            timer = asyncio.get_running_loop().call_later(deadline - request.since, self._expire, request)
        try:
            return await request.future
        except asyncio.CancelledError:
            self._telemetry.shed(self._name, request.left(), request.waiting)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            self._unanswered.discard(request)
            self._queue.discard(request)
            request.texts.clear()  # each refers to its request: without the cycle, memory is free at once

    async def close(self) -> None:
        """Takes nothing new, computes what waits, and ends the streams; what is cut short is answered with NotReady."""
        self._refusal = self._refusal or "the service is stopping"
        try:
            if self._unanswered:
                await asyncio.wait([request.future for request in self._unanswered])
        finally:
            for stream in self._streams:
                stream.remove_done_callback(self._stream_ended)
                stream.cancel()
            self._end_all("the service stopped before this was computed")
            self._threads.shut_down()
        await asyncio.gather(*self._streams, return_exceptions=True)

    def has_room(self, tenant: str = "", deadline: float = math.inf) -> bool:
        """Whether it would take one text like those that wait, as far as room and time go; counts nothing."""
        in_time = self._in_time(1, self._mean_tokens(), tenant, deadline - self._clock())
        return in_time and self._has_place(1, 1, tenant)

    def require_room(self, texts: int, tenant: str = "", deadline: float = math.inf) -> None:
        """Refuses what `submit` would, of so many texts like those that wait: tokenising them would be in vain.

        Raises:
            Overloaded, DeadlineExceeded, NotReady: see `submit`.
        """
        self._require_time(texts, texts * self._mean_tokens(), tenant, deadline, self._clock())
        self._require_place(texts, texts, tenant)  # its tokens are not known, and its share must not be guessed

    def refusal(self, texts: int) -> Overloaded:
        """What so many texts are told that there is no room for; counts them."""
        self._telemetry.shed(self._name, "overloaded", texts)
        return self._overloaded()

    def _mean_tokens(self) -> int:
        return self._queue.tokens // self._queue.texts if self._queue else 1

    def _admit(self, items: Sequence[T], tenant: str, deadline: float) -> Request[T]:
        if not items:
            raise ValueError("there are no items to compute")
        now = self._clock()
        request = Request(items, tenant, deadline, now)
        texts, tokens = len(items), request.tokens
        limits, queue = self._limits, self._queue
        if texts > limits.queue_texts or tokens > limits.queue_tokens:
            raise PayloadTooLarge(
                f"the request has {texts} texts and {tokens} tokens; the queue of {self._name!r} never holds more "
                f"than {limits.queue_texts} and {limits.queue_tokens}: send fewer at a time"
            )
        self._require_time(texts, tokens, tenant, deadline, now)
        self._require_place(texts, tokens, tenant)
        while not queue.fits(texts, tokens):
            self._give_up(queue.gives_way(), self._overloaded(), "overloaded")
        queue.add(request)
        self._unanswered.add(request)
        self._wake_a_stream()
        return request

    def _require_time(self, texts: int, tokens: int, tenant: str, deadline: float, now: float) -> None:
        """Refuses what would not be answered in time, as far as that can be known."""
        if self._refusal is not None:
            raise NotReady(self._refusal)
        if deadline <= now:
            self._telemetry.shed(self._name, "deadline", texts)
            raise DeadlineExceeded("the request's time was over before it could be queued")
        if not self._in_time(texts, tokens, tenant, deadline - now):
            raise self.refusal(texts)

    def _require_place(self, texts: int, tokens: int, tenant: str) -> None:
        """Refuses what has no place in the queue, where the key holds its share of it."""
        if not self._has_place(texts, tokens, tenant):
            raise self.refusal(texts)

    def _has_place(self, texts: int, tokens: int, tenant: str) -> bool:
        return self._queue.fits(texts, tokens) or self._queue.within_share(tenant, texts, tokens)

    def _in_time(self, texts: int, tokens: int, tenant: str, seconds: float) -> bool:
        """Whether a request can be expected to be answered within so many seconds.

        An empty queue takes everything: were nothing computed any more, a wrong estimate could never be corrected.
        """
        if not self._queue or seconds == math.inf:
            return True
        return self._seconds(*self._queue.ahead_of(tenant, texts, tokens)) <= _HEADROOM * seconds

    def _seconds(self, texts: int, tokens: int) -> float:
        """Expected seconds until the streams have done what they are at and so much more."""
        padded = tokens * self._cost.padding
        batches = min(texts, max(padded / self._batch_tokens(), texts / self._limits.batch_texts))
        return (self._threads.expected_s + self._cost.seconds(padded, batches)) / self._limits.streams

    def _batch_tokens(self) -> float:
        """Padded tokens of a batch: as many as it may have, and as are expected to keep its time."""
        return max(1, min(self._limits.batch_tokens, self._cost.tokens_within(self._limits.batch_ms / 1e3)))

    def _overloaded(self) -> Overloaded:
        """The refusal; Retry-After, 1 to 60 seconds, says when what waits now is expected to be done."""
        queue = self._queue
        return Overloaded(
            f"{queue.texts} texts and {queue.tokens} tokens wait for {self._name!r}; try again later",
            min(60, max(1, math.ceil(self._seconds(queue.texts, queue.tokens)))),
        )

    def _expire(self, request: Request[T]) -> None:
        self._give_up(request, DeadlineExceeded("there was no answer within the request's time"), "deadline")

    def _give_up(self, request: Request[T], error: Exception, reason: str) -> None:
        self._telemetry.shed(self._name, reason, request.waiting)
        self._queue.discard(request)
        request.fail(error)

    def _may_take(self) -> bool:
        """Whether a thread is free, or will be before the event loop, which has other work, can learn of it."""
        threads = self._threads
        return bool(self._queue) and (threads.idle or threads.free_in() < threads.lag_s)

    def _wake_a_stream(self) -> None:
        while self._idle and self._may_take():
            sleeping = self._idle.popleft()
            if not sleeping.done():
                sleeping.set_result(None)
                return

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
        batch = self._queue.take(limits.batch_texts, self._batch_tokens(), fixed_tokens, limits.window)
        return [text for text in batch if self._is_wanted(text)]

    def _is_wanted(self, text: Text[T]) -> bool:
        request = text.request
        if request.deadline <= self._clock():  # its timer is late
            self._expire(request)
        if request.future.done():
            self._telemetry.shed(self._name, request.left())
            return False
        return True

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
                text.request.answer(text.position, row)
            else:
                self._fail(text, NotANumber(f"the model {self._name!r} gave no finite number for this text"))

    async def _after_failure(self, batch: list[Text[T]], error: Exception) -> None:
        """Finds the text at fault; the others get their answers."""
        if len(batch) > 1:
            for text in batch:
                if self._is_wanted(text):
                    await self._compute([text])
            return
        logger.error("model %s failed on a text of %d tokens: %s", self._name, batch[0].tokens,
                     describe_exception(error))  # fmt: skip
        self._fail(batch[0], InferenceFailed(f"the model {self._name!r} could not compute this text"))

    async def _on_thread(self, batch: list[Text[T]]) -> Computed[T]:
        """What a thread makes of a batch; learns what a batch costs."""
        now = self._clock()
        lengths = [text.tokens for text in batch]
        padded = max(lengths) * len(lengths)
        self._telemetry.batch(self._name, lengths, [now - text.request.since for text in batch])
        computing = self._threads.hand(batch, self._cost.seconds(padded))
        self._wake_a_stream()  # for what is left
        computed = await computing
        texts, logits = computed.texts, computed.logits
        if logits.ndim != 2 or len(logits) != len(texts):
            raise InternalError(f"the engine gave answers of shape {logits.shape} for {len(texts)} texts")
        if len(texts) == len(batch):
            seconds = computed.end - computed.start
            self._cost.observe(sum(lengths), padded, seconds, computed.work_s)
            self._telemetry.inferred(self._name, seconds)
        for text in set(batch).difference(texts):
            self._is_wanted(text)  # it is not; this counts why
        return computed

    def _fail(self, text: Text[T], error: InferenceFailed | NotANumber) -> None:
        self._telemetry.failed(self._name, error.code)
        self._queue.discard(text.request)
        text.request.fail(error)

    def _stream_ended(self, stream: "asyncio.Task[None]") -> None:
        """Nothing ends a stream but `close`; whatever else did, nobody is left waiting for it."""
        error = None if stream.cancelled() else stream.exception()
        reason = "cancelled" if error is None else describe_exception(error)
        logger.critical("model %s computes no more, a stream has died: %s", self._name, reason)
        self._refusal = f"the model {self._name!r} computes no more; the service must be restarted"
        self._end_all(self._refusal)

    def _end_all(self, message: str) -> None:
        for request in self._unanswered:
            self._queue.discard(request)
            request.fail(NotReady(message))
