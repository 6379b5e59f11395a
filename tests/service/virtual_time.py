"""An event loop and an engine in virtual time: whoever waits for something gets it at once, and in the same order."""

import asyncio
import selectors
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any


class Stuck(AssertionError):
    """Everything waits and nothing will ever happen."""


class _Selector(selectors.DefaultSelector):
    """Instead of sleeping it moves the clock on."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise Stuck("everything waits, and nothing will ever happen")
        self.now += max(timeout, 0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes as soon as there is nothing to do; deterministic."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        return self._virtual.now

    def settle(self) -> None:
        """Runs until nothing is left to do at this moment."""
        self.pass_time(0)

    def pass_time(self, seconds: float) -> None:
        """Runs for so long."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            for _ in range(50):  # what follows from what happens at this moment
                await asyncio.sleep(0)

        self.run_until_complete(wait())


class VirtualEngine(Executor):
    """Runs functions on one argument, a batch; each takes virtual time. At most `threads` at once.

    Args:
        seconds: what a batch takes.
        delay: how much later the event loop learns that it is done.
    """

    def __init__(
        self, loop: VirtualLoop, threads: int, seconds: Callable[[Sequence[Any]], float], delay: float = 0.0
    ) -> None:
        self._delay = delay
        self._loop = loop
        self._threads = threads
        self._seconds = seconds
        self.running = 0
        self.broken = False
        self._waiting: deque[Callable[[], None]] = deque()
        self._looks: list[float] = []

    def clock(self) -> float:
        """The loop's time, and that of its threads: a batch is computed at once, and all of its time passes between two
        looks at this."""
        return self._looks.pop(0) if self._looks else self._loop.time()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **_: Any) -> "Future[Any]":
        """Starts a batch as soon as a thread is free; what it gives is known after its time, and the delay."""
        if self.broken:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        self._waiting.append(lambda: self._start(function, arguments[0], future))
        self._next()
        return future

    def _next(self) -> None:
        while self._waiting and self.running < self._threads:
            self._waiting.popleft()()

    def _start(self, function: Callable[..., Any], batch: Sequence[Any], future: "Future[Any]") -> None:
        self.running += 1
        now, seconds = self._loop.time(), self._seconds([text.item for text in batch])
        self._looks = [now, now + seconds]
        try:
            result, error = function(batch), None
        except Exception as raised:
            result, error = None, raised
        self._looks = []

        def finish() -> None:
            self.running -= 1
            self._next()

        def tell() -> None:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self._loop.call_later(seconds, finish)
        self._loop.call_later(seconds + self._delay, tell)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.broken = True
