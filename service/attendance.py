"""Notices that a client has left, so that nobody computes its answer."""

import asyncio
from types import TracebackType

from service.limits import ClientGone
from service.routing import Receive

# Most answers are there sooner. Watching costs a task, and who leaves at once costs the model one text at most.
_PATIENCE_S = 0.05


class WhileThere:
    """`async with`: cancels the block when the client leaves, and raises ClientGone in its place.

    Only for the task that serves the request, after its body was read.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None
        self._gone = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE_S, self._begin)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        # Of two who cancel it, the client and a server that stops, the other one's wish is kept.
        if self._gone and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientGone from error

    def _begin(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()
