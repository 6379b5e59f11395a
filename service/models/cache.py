"""Answers kept by what the model read: an optional cache in front of the batchers, bounded in bytes.

    texts ──known──────────────▶ answer                                     hit
      │ ────being computed─────▶ that answer, when it is there              shared
      └─────else: leads────────▶ batcher ──▶ kept, and given to who shares  miss

The key is the bundle's version and the tokens of the text, so that texts which the model cannot tell apart share one
answer, and a new bundle begins with nothing. Only answers are kept, never errors: whoever shared a computation that
failed, was cancelled or was given up asks again for itself, within its own time. API keys share the cache.
"""

import asyncio
import hashlib
import math
import time
from array import array
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from cachetools import LRUCache

from compression.bundle import Encoded
from service.batching import Batcher, Cancellation, Logits
from service.errors import DeadlineExceeded
from service.tenant import ANYONE, Tenant

# Of an entry besides the answer's numbers: key, places in the cache's dicts and order, the array around the answer.
_ENTRY_BYTES = 500


class ResultCache:
    """The answers of every model; the least recently used ones leave first.

    Args:
        max_bytes: of keys and answers as Python holds them.
    """

    def __init__(self, max_bytes: int) -> None:
        self._rows: LRUCache[bytes, Logits] = LRUCache(max_bytes, getsizeof=_size)

    @property
    def size_bytes(self) -> float:
        """What it holds."""
        return self._rows.currsize

    def get(self, key: bytes) -> Logits | None:
        """The answer, (labels,), or None; it is now the most recently used."""
        return self._rows.get(key)

    def put(self, key: bytes, row: Logits) -> None:
        """Keeps an answer, (labels,), that is not kept yet; one that does not fit at all is not."""
        if key not in self._rows and _size(row) <= self._rows.maxsize:
            self._rows[key] = row.copy()  # a view would keep the whole batch


class CachedBatcher:
    """A predictor in front of a batcher: computes only what is neither known nor being computed.

    Args:
        version: of the bundle, as in its manifest.
        batcher: computes the rest, and has the metrics.
        clock: the batcher's.
    """

    def __init__(
        self,
        cache: ResultCache,
        version: str,
        batcher: Batcher[Encoded],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._version = version.encode()
        self._batcher = batcher
        self._metrics = batcher.metrics
        self._clock = clock
        self._flights: dict[bytes, asyncio.Future[Logits | None]] = {}  # None: nothing came of it, ask again

    def has_room(self, tenant: Tenant = ANYONE, deadline: float = math.inf) -> bool:
        """As `require_room`."""
        return True

    def require_room(self, texts: int, tenant: Tenant = ANYONE, deadline: float = math.inf) -> None:
        """Rejects nothing: what is known needs no room, and what is not is rejected by the batcher."""

    async def submit(
        self,
        items: Sequence[Encoded],
        tenant: Tenant = ANYONE,
        deadline: float = math.inf,
        cancellation: Cancellation | None = None,
    ) -> Logits:
        """As the batcher's, with the same answers and errors."""
        keys = [self._key(item) for item in items]
        wanted = dict(zip(keys, items, strict=True))
        rows: dict[bytes, Logits] = {}
        while missing := [key for key in wanted if key not in rows]:
            hits = {key: row for key in missing if (row := self._cache.get(key)) is not None}
            shared = {key: flight for key in missing if (flight := self._flights.get(key)) is not None}
            leads = [key for key in missing if key not in hits and key not in shared]
            if leads:
                rows |= await self._lead({key: wanted[key] for key in leads}, tenant, deadline, cancellation)
            if shared:
                await self._follow(shared.values(), deadline)
            answers = {key: row for key, flight in shared.items() if (row := flight.result()) is not None}
            rows |= hits | answers
            self._metrics.cached(hits=len(hits), shared=len(answers), misses=len(leads))
        self._metrics.cached(shared=len(keys) - len(wanted))  # equal texts of one request
        return np.stack([rows[key] for key in keys])

    async def _lead(
        self, items: dict[bytes, Encoded], tenant: Tenant, deadline: float, cancellation: Cancellation | None
    ) -> dict[bytes, Logits]:
        """Computes; whoever asks for one of them meanwhile follows."""
        loop = asyncio.get_running_loop()
        flights: dict[bytes, asyncio.Future[Logits | None]] = {key: loop.create_future() for key in items}
        self._flights |= flights
        try:
            computed = await self._batcher.submit(list(items.values()), tenant, deadline, cancellation)
            rows = dict(zip(items, computed, strict=True))
            for key, row in rows.items():
                self._cache.put(key, row)
                flights[key].set_result(row)
            return rows
        finally:
            for key, flight in flights.items():
                del self._flights[key]
                if not flight.done():
                    flight.set_result(None)

    async def _follow(self, flights: Iterable["asyncio.Future[Logits | None]"], deadline: float) -> None:
        """Waits, within its own time; neither its end nor its being cancelled touches the others."""
        seconds = None if deadline == math.inf else max(0, deadline - self._clock())
        _, late = await asyncio.wait(flights, timeout=seconds)
        if late:
            self._metrics.shed("deadline", len(late))
            raise DeadlineExceeded("there was no answer within the request's time")

    def _key(self, item: Encoded) -> bytes:
        tokens = array("q", item.ids).tobytes() + array("q", item.type_ids).tobytes()
        return hashlib.sha256(self._version + tokens).digest()


def _size(row: Logits) -> int:
    return row.nbytes + _ENTRY_BYTES
