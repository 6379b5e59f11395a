"""The threads that compute batches: what they have been given, and when one of them will be free."""

import asyncio
import heapq
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, NamedTuple

import numpy as np

from service.batching.submissions import Logits, T, Text

_LEARNING = 0.2  # weight of the newest in a running mean
# How much less of a core a thread that computes gets than the event loop does, where there is not enough for both; 0 to
# 19, as nice(2) takes it. In overload a loop with a mere fair share cannot refuse as fast as requests come.
_NICENESS = 8


class EngineDied(Exception):
    """What happened is no failure of a batch: nothing that is sent to this engine will be answered."""


class _Handed(NamedTuple):
    """A batch that the threads have: since when, and how many seconds it is expected to take one."""

    at: float
    expected_s: float


@dataclass(frozen=True, slots=True)
class Computed(Generic[T]):
    """What a thread made of a batch: which texts it computed, their logits, (texts, labels), from when to when, and how
    much of that it worked."""

    texts: list[Text[T]]
    logits: Logits
    start: float
    end: float
    work_s: float


class Threads(Generic[T]):
    """Computes batches, `count` at the same time.

    Args:
        executor, infer, clock, work_clock: see `Batcher`.

    Attributes:
        lag_s: how late the event loop learns that a batch is done, a running mean.
    """

    def __init__(
        self,
        name: str,
        count: int,
        infer: Callable[[Sequence[T]], Logits],
        clock: Callable[[], float],
        executor: Executor | None,
        work_clock: Callable[[], float] | None,
    ) -> None:
        self._count = count
        self._infer = infer
        self._clock = clock
        self._work_clock = work_clock or clock
        self._executor = executor or ThreadPoolExecutor(count, f"infer-{name}", give_way)
        self._handed: dict[asyncio.Future[Computed[T]], _Handed] = {}  # oldest first
        self.lag_s = 0.0

    @property
    def idle(self) -> bool:
        """Whether one of them has nothing to do."""
        return len(self._handed) < self._count

    @property
    def expected_s(self) -> float:
        """Seconds that what they have is expected to take one of them."""
        return sum(handed.expected_s for handed in self._handed.values())

    def oldest_s(self) -> float:
        """For how long they have had the oldest batch; 0 where there is none."""
        oldest = next(iter(self._handed.values()), None)
        return 0.0 if oldest is None else self._clock() - oldest.at

    def free_in(self) -> float:
        """Expected seconds until one has nothing to do: each batch goes to the one that is done first."""
        now = self._clock()
        done: list[float] = []  # when each thread will be, a heap
        for handed in self._handed.values():
            if len(done) < self._count:
                heapq.heappush(done, max(now, handed.at + handed.expected_s))
            else:
                heapq.heapreplace(done, done[0] + handed.expected_s)
        return done[0] - now

    def hand(self, batch: list[Text[T]], expected_s: float) -> "asyncio.Future[Computed[T]]":
        """Gives them a batch; the future is what becomes of it.

        Raises:
            EngineDied: there are no threads any more; of the future, also what is no failure of the batch.
        """
        try:
            future = asyncio.get_running_loop().run_in_executor(self._executor, self._run, batch)
        except RuntimeError as error:
            raise EngineDied from error
        self._handed[future] = _Handed(self._clock(), expected_s)
        future.add_done_callback(self._done)
        return future

    def rehearse(self, items: Sequence[T]) -> tuple[float, float]:
        """Seconds that a batch takes this thread, and how much of that it worked."""
        start = self._clock()
        _, end, work_s = self._measured(items, start)
        return end - start, work_s

    def shut_down(self) -> None:
        """Takes nothing more, and waits for nobody."""
        self._executor.shutdown(wait=False)

    def _done(self, future: "asyncio.Future[Computed[T]]") -> None:
        del self._handed[future]
        if not future.cancelled() and future.exception() is None:
            self.lag_s += _LEARNING * (max(0.0, self._clock() - future.result().end) - self.lag_s)

    def _run(self, batch: list[Text[T]]) -> Computed[T]:
        """Computes, on a thread, those texts that somebody still waits for."""
        start = self._clock()
        texts = [text for text in batch if text.submission.deadline > start and not text.submission.future.done()]
        try:
            logits, end, work_s = self._measured([text.item for text in texts], start)
            return Computed(texts, logits, start, end, work_s)
        except Exception:
            raise
        except BaseException as error:  # a thread's own end, or a panic in native code
            raise EngineDied from error

    def _measured(self, items: Sequence[T], start: float) -> tuple[Logits, float, float]:
        """Logits of what is computed from now, `start`, on; when that ends, and how much of it this thread worked."""
        worked = self._work_clock() if self._work_clock is not self._clock else start
        logits = self._infer(items) if items else np.empty((0, 0), np.float32)
        end = self._clock()
        return logits, end, (self._work_clock() if self._work_clock is not self._clock else end) - worked


def give_way(niceness: int = _NICENESS) -> None:
    """Gives this thread so much less of a core than others get."""
    if sys.platform == "linux":  # where niceness is a thread's own
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + niceness))
