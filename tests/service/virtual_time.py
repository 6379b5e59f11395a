"""An event loop and an engine in virtual time: whoever waits for something gets it at once, and in the same order."""

import asyncio
import selectors
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
    """

    def __init__(self, loop: VirtualLoop, threads: int, seconds: Callable[[Sequence[Any]], float]) -> None:
        self._loop = loop
        self._threads = threads
        self._seconds = seconds
        self.running = 0
        self.broken = False
        self._passed = 0.0  # of the batch that is being computed

    def clock(self) -> float:
        """Its threads' clock: a batch is computed at once, and all of its time passes between two looks at this."""
        passed, self._passed = self._passed, 0.0
        return self._loop.time() - passed

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **_: Any) -> "Future[Any]":
        """Starts a batch; what it gives is known after its time."""
        if self.broken:
            raise RuntimeError("cannot schedule new futures after shutdown")
        self.running += 1
        assert self.running <= self._threads
        future: Future[Any] = Future()
        self._passed = seconds = self._seconds(arguments[0])
        started: Future[Any] = Future()
        try:
            started.set_result(function(*arguments))
        except Exception as error:
            started.set_exception(error)

        def finish() -> None:
            self.running -= 1
            if (error := started.exception()) is not None:
                future.set_exception(error)
            else:
                future.set_result(started.result())

        self._loop.call_later(seconds, finish)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.broken = True
