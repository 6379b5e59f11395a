"""Large bodies take turns.

To unpack and parse a megabyte holds up the event loop for some 10 ms. Clients that send such at the same time, each on
a connection of its own, would have it to themselves; so they get a part of its time, and whoever sends a little is
between them. A body's turn comes when those before it have been paid for.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from service.errors import Overloaded

LARGE_BYTES = 65536  # what has less takes no turn
_SECONDS_PER_BYTE = 40e-9  # some four times what it takes to read it
_WAITING = 32  # bodies; each may hold a megabyte


class Turns:
    """One for all connections."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._free_at = 0.0
        self._waiting = 0

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Callable[[int], None]]:
        """Waits for a turn; what it gives is called with the bytes that were read.

        Raises:
            Overloaded: too many wait already.
        """
        if self._waiting >= _WAITING:
            raise Overloaded("too many large bodies wait to be read; send fewer texts in one request", 1)
        self._waiting += 1
        try:
            async with self._lock:
                await asyncio.sleep(max(0.0, self._free_at - asyncio.get_running_loop().time()))
                yield self._spend
        finally:
            self._waiting -= 1

    def _spend(self, size: int) -> None:
        self._free_at = asyncio.get_running_loop().time() + size * _SECONDS_PER_BYTE
