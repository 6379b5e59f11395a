"""Admission, streams and answers: `submit` puts texts into the queue, each stream computes batch after batch."""

import asyncio
import heapq
import logging
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, NamedTuple

import numpy as np

from service.batching.cost import CostModel
from service.batching.limits import BatchLimits
from service.batching.queue import FairQueue
from service.batching.requests import Logits, Request, T, Text
from service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InternalError,
    NotANumber,
    NotReady,
    Overloaded,
    PayloadTooLarge,
)
from service.privacy import describe_exception
from service.telemetry import Telemetry

logger = logging.getLogger(__name__)

# Part of its time that a request may be expected to wait. The rest is for what an estimate cannot know: which texts
# will be overtaken by others of the window. In overload a shorter queue costs nothing, and late answers do.
_HEADROOM = 0.35
_AHEAD = 8  # batches that a thread may have before it at most
_LEARNING = 0.2  # weight of the newest in a running mean
# How much less of a core a thread that computes gets than the event loop does, where there is not enough for both; 0 to
# 19, as nice(2) takes it. In overload a loop with a mere fair share cannot refuse as fast as requests come.
_NICENESS = 8


def _give_way() -> None:
    if sys.platform == "linux":  # where niceness is a thread's own
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS))


class _EngineDied(Exception):
    """What happened is no failure of a batch: nothing that is sent to this engine will be answered."""


class _Handed(NamedTuple):
    """A batch that the threads have: since when, and how many seconds it is expected to take one."""

    at: float
    expected_s: float


@dataclass(frozen=True, slots=True)
class _Computed(Generic[T]):
    """What a thread made of a batch: which texts it computed, their logits, (texts, labels), from when to when, and how
    much of that it worked."""

    texts: list[Text[T]]
    logits: Logits
    start: float
    end: float
    work_s: float


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
        self._infer = infer
        self._limits = limits
        self._telemetry = telemetry
        self._clock = clock
        self._work_clock = work_clock
        self._executor = executor or ThreadPoolExecutor(limits.streams, f"infer-{name}", _give_way)
        self._queue: FairQueue[T] = FairQueue(limits.queue_texts, limits.queue_tokens)
        self._cost = CostModel()
        self._handed: dict[int, _Handed] = {}  # batches by id, oldest first
        self._lag_s = 0.0  # how late the event loop learns that a thread is done
        self._unanswered: set[Request[T]] = set()
        self._idle: deque[asyncio.Future[None]] = deque()  # of each stream without work, what wakes it
        self._streams: list[asyncio.Task[None]] = []
        self._refusal: str | None = None  # why nothing is taken any more

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
        oldest = next(iter(self._handed.values()), None)
        return takes_texts and (oldest is None or self._clock() - oldest.at <= self._limits.hang_s)

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
            self._executor.shutdown(wait=False)
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
            self._telemetry.shed(self._name, "overloaded", texts)
            raise self._overloaded()

    def _require_place(self, texts: int, tokens: int, tenant: str) -> None:
        """Refuses what has no place in the queue, where the key holds its share of it."""
        if not self._has_place(texts, tokens, tenant):
            self._telemetry.shed(self._name, "overloaded", texts)
            raise self._overloaded()

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
        handed_s = sum(handed.expected_s for handed in self._handed.values())
        return (handed_s + self._cost.seconds(padded, batches)) / self._limits.streams

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
        idle = len(self._handed) < self._limits.streams
        return bool(self._queue) and (idle or self._free_in() < self._lag_s)

    def _free_in(self) -> float:
        """Expected seconds until a thread has nothing to do: each batch goes to the one that is done first."""
        now = self._clock()
        done: list[float] = []  # when each thread will be, a heap
        for handed in self._handed.values():
            if len(done) < self._limits.streams:
                heapq.heappush(done, max(now, handed.at + handed.expected_s))
            else:
                heapq.heapreplace(done, done[0] + handed.expected_s)
        return done[0] - now

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
        except _EngineDied:
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

    async def _on_thread(self, batch: list[Text[T]]) -> "_Computed[T]":
        """What a thread makes of a batch; learns what a batch costs."""
        now = self._clock()
        lengths = [text.tokens for text in batch]
        padded = max(lengths) * len(lengths)
        self._telemetry.batch(self._name, lengths, [now - text.request.since for text in batch])
        self._handed[id(batch)] = _Handed(now, self._cost.seconds(padded))
        self._wake_a_stream()  # for what is left
        try:
            computed = await self._schedule(batch)
        finally:
            del self._handed[id(batch)]
        texts, logits = computed.texts, computed.logits
        if logits.ndim != 2 or len(logits) != len(texts):
            raise InternalError(f"the engine gave answers of shape {logits.shape} for {len(texts)} texts")
        self._lag_s += _LEARNING * (max(0.0, self._clock() - computed.end) - self._lag_s)
        if len(texts) == len(batch):
            seconds = computed.end - computed.start
            self._cost.observe(sum(lengths), padded, seconds, computed.work_s)
            self._telemetry.inferred(self._name, seconds)
        for text in set(batch).difference(texts):
            self._is_wanted(text)  # it is not; this counts why
        return computed

    def _schedule(self, batch: list[Text[T]]) -> "asyncio.Future[_Computed[T]]":
        try:
            return asyncio.get_running_loop().run_in_executor(self._executor, self._run, batch)
        except RuntimeError as error:  # the executor's threads are gone
            raise _EngineDied from error

    def _run(self, batch: list[Text[T]]) -> "_Computed[T]":
        """Computes, on a thread, those texts that somebody still waits for."""
        start = self._clock()
        worked = self._work_clock() if self._work_clock is not None else start
        texts = [text for text in batch if text.request.deadline > start and not text.request.future.done()]
        try:
            logits = self._infer([text.item for text in texts]) if texts else np.empty((0, 0), np.float32)
            end = self._clock()
            work_s = (self._work_clock() if self._work_clock is not None else end) - worked
            return _Computed(texts, logits, start, end, work_s)
        except Exception:
            raise
        except BaseException as error:  # a thread's own end, or a panic in native code
            raise _EngineDied from error

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
