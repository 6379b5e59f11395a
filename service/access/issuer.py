"""The keys of the issuer of tokens that are in force, kept up to date on a thread of their own.

                    ┌── every 5 minutes (a file: every second)
    reading ◀───────┼── 30 s after it has failed
                    └── a token names a key that is not there: at most once in 30 s

Requests never wait for the issuer. While it cannot be asked, the keys that it had last stay in force for an hour, and
then none.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from service.access.jwks import KeySet, parse_jwks, read_jwks
from service.errors import ConfigurationError

logger = logging.getLogger(__name__)

_FILE_S = 1.0
_ISSUER_S = 300.0
_AGAIN_S = 30.0
_LATE_S = 900.0  # an answer that has begun, and does not go on, holds the thread up
_GRACE_S = 3600.0
_NONE: KeySet = {}


class Issuer:
    """Reads the keys once when it is made; `start` has them kept up to date.

    Args:
        source: a file or a URL.
    """

    def __init__(self, source: Path | str, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._every_s = _FILE_S if isinstance(source, Path) else _ISSUER_S
        self._keys = _NONE
        self._content: bytes | None = None
        self._fault: str | None = None  # why they cannot be read
        self._read_at = self._asked_at = float("-inf")
        self._wanted = threading.Event()
        self._closed = False
        self.read()

    @property
    def keys(self) -> KeySet:
        """Those in force: the same object until they change."""
        return self._keys if self._clock() - self._read_at <= _GRACE_S else _NONE

    @property
    def readable(self) -> bool:
        """Whether the keys in force are the issuer's, read not long ago."""
        return self._fault is None and self._clock() - self._read_at < _LATE_S

    def start(self) -> None:
        """Begins to read them anew, until `close`."""
        threading.Thread(target=self._run, name="issuer", daemon=True).start()

    def close(self) -> None:
        """Ends that."""
        self._closed = True
        self._wanted.set()

    def ask_again(self) -> None:
        """A token names a key that is not there: there may be new ones. However often, the issuer is not bothered."""
        now = self._clock()
        if now - self._asked_at >= _AGAIN_S:
            self._asked_at = now
            self._wanted.set()

    def read(self) -> None:
        """Takes the keys that there are now; raises nothing."""
        try:
            content = read_jwks(self._source)
            if content != self._content:
                self._keys, self._content = parse_jwks(content, self._source), content
        except ConfigurationError as error:
            self._go_on_without(str(error))
            return
        self._read_at = self._clock()
        if self._fault is not None:
            logger.warning("%s can be read again", self._source)
        self._fault = None

    def _go_on_without(self, fault: str) -> None:
        if fault != self._fault:
            before = "the keys that it had before stay in force for an hour at most"
            logger.error("%s; %s", fault, before if self.keys else "no token is let in")
        self._fault = fault
        if self._keys and not self.keys:
            logger.error("%s; the hour is over, and no token is let in", fault)
            self._keys, self._content = _NONE, None

    def _run(self) -> None:
        while not self._closed:
            self._wanted.wait(self._every_s if self._fault is None else min(self._every_s, _AGAIN_S))
            self._wanted.clear()
            if not self._closed:
                self.read()
