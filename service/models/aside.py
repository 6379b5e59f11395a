"""Work that may never end, on a thread of its own: whoever waits for it can stop waiting, and the process can exit."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

R = TypeVar("R")


class Aside:
    """One piece of work at a time.

    Attributes:
        busy: whether there is work that has not ended, with somebody waiting for it or not.
    """

    def __init__(self) -> None:
        self.busy = False

    async def run(self, work: Callable[[], R]) -> R:
        """Waits for what it gives or raises; when the caller is cancelled, the work goes on, for nobody."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self.busy = True
        threading.Thread(target=self._work, args=(work, future), name="aside", daemon=True).start()
        try:
            return await future
        finally:
            del future  # an error knows this frame, by its traceback: both would stay

    def _work(self, work: Callable[[], R], future: "asyncio.Future[R]") -> None:
        try:
            result = work()
        except BaseException as error:
            self._tell(future, future.set_exception, error)
        else:
            self._tell(future, future.set_result, result)
        finally:
            del future  # see `run`

    def _tell(self, future: "asyncio.Future[Any]", settle: Callable[[Any], None], outcome: Any) -> None:
        with suppress(RuntimeError):  # the event loop has ended
            future.get_loop().call_soon_threadsafe(self._ended, future, settle, outcome)

    def _ended(self, future: "asyncio.Future[Any]", settle: Callable[[Any], None], outcome: Any) -> None:
        self.busy = False
        if not future.done():
            settle(outcome)
