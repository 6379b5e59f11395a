"""Notices that a client has left, so that nobody computes its answer."""

import asyncio
from types import TracebackType

from service.http.body import ClientGone
from service.http.messages import Gone


class WhileThere:
    """`async with`: cancels the block when the client leaves, and raises ClientGone in its place.

    Only for the task that serves the request.

    Args:
        gone: done when the client leaves; None where the server cannot tell.
    """

    def __init__(self, gone: Gone | None) -> None:
        self._gone = gone
        self._has_left = self._is_over = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        if self._gone is not None:
            self._gone.add_done_callback(self._leave)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over = True
        if self._gone is not None:
            self._gone.remove_done_callback(self._leave)
        # Of two who cancel it, the client and a server that stops, the other one's wish is kept.
        if self._has_left and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientGone from error

    def _leave(self, _: Gone) -> None:
        if not self._is_over:  # it may be, between the client's leaving and this
            self._has_left = True
            self._task.cancel()
