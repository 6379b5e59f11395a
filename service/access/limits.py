"""Limits of keys: how much each may ask for, counted here or, for several replicas together, in Redis.

    headers ──▶ enter: a request more, one more at a time, tokens left? ──▶ answer ──▶ leave: its tokens are taken
                  └──▶ RateLimited

Tokens are known when a text has been read, so a request is let in while any are left, and what it takes is counted
afterwards. Requests and tokens are counted over sliding windows (a window's count and a share of the one before; see
limits.readthedocs.io, "Sliding Window Counter"), those of a month over 30 days from the first. How many requests are
answered at the same time is counted by each replica for itself.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerMonth, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter, RateLimiter, SlidingWindowCounterRateLimiter
from limits.errors import StorageError

from service.access.caller import Caller, Limits
from service.errors import LimitsUnavailable, RateLimited

logger = logging.getLogger(__name__)

_WINDOWS: Mapping[str, type[RateLimitItem]] = {
    "requests_per_s": RateLimitItemPerSecond,
    "tokens_per_min": RateLimitItemPerMinute,
    "tokens_per_month": RateLimitItemPerMonth,
}
_STORE_TIMEOUT_S = 0.25
_REST_S = 1.0  # after the store has failed, before it is asked again


class Limit(NamedTuple):
    """One of a key's, as it stands.

    Attributes:
        resets_in_s: until what was used is forgotten.
    """

    name: str
    limit: int
    remaining: int
    resets_in_s: float


class Limiter:
    """One for all keys.

    Args:
        store: `memory`, or the URL of a Redis.
        without_store: whether requests are let in or rejected while Redis cannot be asked.
        gone: is called for each request that it could not be asked for.
    """

    def __init__(
        self,
        store: str = "memory",
        without_store: Literal["open", "closed"] = "open",
        gone: Callable[[], None] = lambda: None,
    ) -> None:
        self._url = store
        self._open = without_store == "open"
        self._gone = gone
        self._gone_until = 0.0
        self._under_way: Counter[str] = Counter()
        self._sliding: RateLimiter | None = None  # made in the event loop, which the memory's own clock runs in
        self._fixed: RateLimiter

    async def enter(self, caller: Caller) -> None:
        """Lets a request in; `leave` must follow.

        Raises:
            RateLimited: a limit of its key is reached.
            LimitsUnavailable: the store cannot be asked, and then nobody is let in.
        """
        limits = caller.limits
        if limits is None:
            return
        if limits.concurrent is not None and self._under_way[caller.name] >= limits.concurrent:
            raise RateLimited(
                f"this {caller.credential} has {limits.concurrent} requests under way, as many as it may; wait for an "
                "answer",
                "concurrent", limits.concurrent, 1,
            )  # fmt: skip
        self._under_way[caller.name] += 1  # before it waits for the store, as others do
        try:
            for name, item in _windows(limits):
                await self._require(caller, name, item)
        except BaseException:
            self._ended(caller)
            raise

    async def leave(self, caller: Caller, tokens: int) -> None:
        """Its request is answered, or is not any more.

        Args:
            tokens: that it had for the models.
        """
        limits = caller.limits
        if limits is None:
            return
        self._ended(caller)
        for name, item in _windows(limits):
            if tokens and name != "requests_per_s":
                await self._take(caller, item, tokens)

    async def usage(self, caller: Caller) -> list[Limit]:
        """Every limit of a key that has a window.

        Raises:
            LimitsUnavailable: the store cannot be asked.
        """
        if caller.limits is None:
            return []
        found = []
        for name, item in _windows(caller.limits):
            try:
                reset, remaining = await self._strategy(item).get_window_stats(item, caller.name)
            except StorageError as error:
                raise LimitsUnavailable("the store of the limits cannot be asked now") from error
            found.append(Limit(name, item.amount, remaining, round(_resets_in(item, reset), 3)))
        return found

    async def close(self) -> None:
        """Ends the connections to the store; nothing may enter any more."""
        if self._sliding is not None and isinstance(self._sliding.storage, RedisStorage):
            await self._sliding.storage.bridge.storage.aclose()  # type: ignore[attr-defined]  # redis-py's

    def _ended(self, caller: Caller) -> None:
        self._under_way[caller.name] -= 1
        if not self._under_way[caller.name]:
            del self._under_way[caller.name]

    async def _require(self, caller: Caller, name: str, item: RateLimitItem) -> None:
        if time.monotonic() < self._gone_until:
            self._without_store()
            return
        strategy = self._strategy(item)
        try:
            hit = strategy.hit if name == "requests_per_s" else strategy.test
            if await hit(item, caller.name):
                return
            reset, _ = await strategy.get_window_stats(item, caller.name)
        except StorageError as error:
            self._failed(error)
            return
        seconds = math.ceil(_resets_in(item, reset))
        raise RateLimited(
            f"this {caller.credential} may have {item.amount} {name.replace('_', ' ')}; ask again in {seconds} s",
            name, item.amount, seconds, item.get_expiry(),
        )  # fmt: skip

    async def _take(self, caller: Caller, item: RateLimitItem, tokens: int) -> None:
        """What is more than was left takes all of it."""
        if time.monotonic() < self._gone_until:
            return
        strategy = self._strategy(item)
        try:
            while tokens > 0 and not await strategy.hit(item, caller.name, cost=tokens):
                tokens = min(tokens - 1, (await strategy.get_window_stats(item, caller.name)).remaining)
        except StorageError as error:
            self._failed(error, let_in=True)

    def _failed(self, error: StorageError, let_in: bool = False) -> None:
        logger.error("the store of the limits cannot be asked: %s", type(error.storage_error).__name__)
        self._gone_until = time.monotonic() + _REST_S
        if not let_in:
            self._without_store()

    def _without_store(self) -> None:
        self._gone()
        if not self._open:
            raise LimitsUnavailable("the limits of this key cannot be looked up now; ask again in a second")

    def _strategy(self, item: RateLimitItem) -> RateLimiter:
        if self._sliding is None:
            storage = self._storage()
            self._sliding = SlidingWindowCounterRateLimiter(storage)
            self._fixed = FixedWindowRateLimiter(storage)
        return self._fixed if isinstance(item, RateLimitItemPerMonth) else self._sliding

    def _storage(self) -> Storage:
        if self._url == "memory":
            return MemoryStorage()
        return RedisStorage(
            f"async+{self._url}", wrap_exceptions=True, implementation="redispy", key_prefix="lathe",
            socket_timeout=_STORE_TIMEOUT_S, socket_connect_timeout=_STORE_TIMEOUT_S,
        )  # fmt: skip


def _resets_in(item: RateLimitItem, reset: float) -> float:
    """Seconds from now; a window that has just begun has a whole one to go, and not none, as the library says."""
    seconds = reset - time.time()
    return seconds if seconds > 0 else float(item.get_expiry())


def _windows(limits: Limits) -> list[tuple[str, RateLimitItem]]:
    amounts = ((name, kind, getattr(limits, name)) for name, kind in _WINDOWS.items())
    return [(name, kind(amount)) for name, kind, amount in amounts if amount is not None]
