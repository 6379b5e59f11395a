"""Checks keys, in constant time.

A key is found by its id, which is no secret, so that a check costs the same however many keys there are.
"""

import hmac
import logging
import math
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from service.access.caller import Caller
from service.access.keys_file import Key, hash_of, read_keys
from service.access.secret_file import stamp_of
from service.errors import ConfigurationError, Unauthorized

logger = logging.getLogger(__name__)

_RELOAD_S = 1.0
_GRACE_S = 3600.0
_NOBODY = "0" * 64  # compared where there is no such id: the time says nothing about which ids there are


class Authenticator:
    """Checks the Authorization header against a keys file, which is read again when it changes.

    A file that cannot be read any more, because it was removed, damaged or given to somebody else, is an error in the
    log, and `readable` says so; the keys that it had last stay in force for an hour, and then nobody's. At start there
    are none: a worker that is started anew beside a broken file refuses everybody until that is mended.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = partial(datetime.now, UTC),
    ) -> None:
        self._path = path
        self._clock = clock
        self._now = now
        self._keys: dict[str, Key] = {}
        self._names: frozenset[str] = frozenset()
        self._ends: list[float] = []  # of those that have one, in order
        self._seen: tuple[int, ...] | None = None
        self._looked_at = float("-inf")
        self._fault: str | None = None  # why the file cannot be read
        self._broken_at = 0.0
        self._reload()

    @property
    def readable(self) -> bool:
        """Whether the keys in force are those in the file."""
        self._reload()
        return self._fault is None

    @property
    def next_expiry(self) -> float:
        """When the first of the keys in force expires, in seconds since 1970; infinity where none does."""
        self._reload()
        later = bisect_right(self._ends, self._now().timestamp())
        return self._ends[later] if later < len(self._ends) else math.inf

    def has_name(self, name: str) -> bool:
        """Whether one of the keys in force has it."""
        self._reload()
        return name in self._names

    def authenticate(self, authorization: str | None) -> Caller:
        """Who has the key in the header.

        Raises:
            Unauthorized: see `find`.
        """
        return self.find(authorization).caller

    def find(self, authorization: str | None) -> Key:
        """The key in the header.

        Raises:
            Unauthorized: no header, another scheme, no such key, or one that has expired. Who does not have the secret
                learns nothing of which keys there are.
        """
        self._reload()
        token = bearer(authorization, "KEY")
        key = _match(self._keys, token)
        if key is None:
            raise Unauthorized("the key is unknown or revoked")
        if key.expires is not None and not key.is_valid(self._now()):
            raise Unauthorized(f"the key has expired, at {key.expires.astimezone(UTC):%Y-%m-%d %H:%M} UTC")
        return key

    def _reload(self) -> None:
        now = self._clock()
        if now - self._looked_at < _RELOAD_S:
            return
        self._looked_at = now
        stamp = stamp_of(self._path)
        if stamp is not None and stamp == self._seen and self._fault is None:
            return
        self._seen = stamp
        try:
            self._enforce(read_keys(self._path))
        except ConfigurationError as error:
            self._go_on_without(str(error), now)
        else:
            if self._fault is not None:
                logger.warning("%s can be read again", self._path)
            self._fault = None

    def _go_on_without(self, fault: str, now: float) -> None:
        if self._fault is None:
            self._broken_at = now
        if fault != self._fault:
            before = "the keys that it had before stay in force for an hour at most"
            logger.error("%s; %s", fault, before if self._keys else "no key is in force")
        self._fault = fault
        if self._keys and now - self._broken_at > _GRACE_S:
            logger.error("%s; the hour is over, and no key is in force", fault)
            self._enforce(())

    def _enforce(self, keys: Iterable[Key]) -> None:
        self._keys = {key.id: key for key in keys}
        self._names = frozenset(key.name for key in self._keys.values())
        self._ends = sorted(key.expires.timestamp() for key in self._keys.values() if key.expires is not None)


def bearer(authorization: str | None, what: str) -> str:
    """What an Authorization header holds.

    Args:
        what: it should, for messages.

    Raises:
        Unauthorized: there is no such header, or it has another scheme.
    """
    if authorization is None:
        raise Unauthorized(f"no {what.lower()}: send the header Authorization: Bearer {what}")
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized(f"the Authorization header must be: Bearer {what}")
    return token


def _match(keys: Mapping[str, Key], token: str) -> Key | None:
    """The key, in the same time whether there is one of that id or not."""
    _, _, rest = token.partition("_")
    key = keys.get(rest.partition("_")[0])
    matches = hmac.compare_digest(_NOBODY if key is None else key.sha256, hash_of(token))
    return key if matches else None
