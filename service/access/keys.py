"""API keys: made and revoked by an administrator; checked in constant time.

A key is `lathe_<id>_<secret>` with 256 random bits of secret. Because the secret is random and long, one sha256 is
enough: nothing is gained by slowing down guesses that can never succeed. It is found by its id, which is no secret, so
that a check costs the same however many keys there are.
"""

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from service.access.keys_file import Key, change_keys, read_keys
from service.errors import ConfigurationError, Forbidden, Unauthorized

logger = logging.getLogger(__name__)

_SCHEME = "bearer"
_RELOAD_S = 1.0
_GRACE_S = 3600.0
_NOBODY = "0" * 64  # compared where there is no such id: the time says nothing about which ids there are


def add_key(path: Path, name: str, admin: bool = False) -> str:
    """Adds a key and returns it; it cannot be had a second time.

    Args:
        admin: whether it may change which version of a model is served.

    Raises:
        ConfigurationError: the name is empty or taken, or the file is no keys file, or cannot be written.
    """
    identity, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    token = f"lathe_{identity}_{secret}"

    if not name.strip():
        raise ConfigurationError("the name of a key is empty; name whom it is for")

    def add(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        if any(key.name == name for key in keys):
            raise ConfigurationError(f"{path}: there is a key named {name!r}; revoke it first or choose another name")
        return *keys, Key(id=identity, name=name, sha256=_hash(token), created=datetime.now(UTC), admin=admin)

    change_keys(path, add)
    return token


def revoke_key(path: Path, identity: str) -> Key:
    """Removes the key with this id or name; running services notice within a second.

    Raises:
        ConfigurationError: there is none, or the file is no keys file, or cannot be written.
    """
    revoked: list[Key] = []

    def remove(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        revoked.extend([key for key in keys if identity in (key.id, key.name)][:1])
        if not revoked:
            raise ConfigurationError(f"{path}: no key with id or name {identity!r}; lathe keys list shows them")
        return tuple(key for key in keys if key not in revoked)

    read_keys(path)  # where there is no file, there is nothing to make one for
    change_keys(path, remove)
    return revoked[0]


class Authenticator:
    """Checks the Authorization header against a keys file, which is read again when it changes.

    A file that cannot be read any more, because it was removed, damaged or given to somebody else, is an error in the
    log, and `readable` says so; the keys that it had last stay in force for an hour, and then nobody's. At start there
    are none: a worker that is started anew beside a broken file refuses everybody until that is mended.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._keys: dict[str, Key] = {}
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

    def authenticate(self, authorization: str | None) -> str:
        """The name of the key in the header.

        Raises:
            Unauthorized: no header, another scheme, or no such key. The same message for each key that is refused.
        """
        return self._find(authorization).name

    def require_admin(self, authorization: str | None) -> None:
        """Refuses every key that was not made for changing what is served.

        Raises:
            Unauthorized: see `authenticate`.
            Forbidden: the key is another.
        """
        if not self._find(authorization).admin:
            raise Forbidden("this key may not change what is served; make one with lathe keys add NAME --admin")

    def _find(self, authorization: str | None) -> Key:
        self._reload()
        if authorization is None:
            raise Unauthorized("no key: send the header Authorization: Bearer KEY")
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != _SCHEME or not token:
            raise Unauthorized("the Authorization header must be: Bearer KEY")
        _, _, rest = token.partition("_")
        key = self._keys.get(rest.partition("_")[0])
        matches = hmac.compare_digest(_NOBODY if key is None else key.sha256, _hash(token))
        if key is None or not matches:
            raise Unauthorized("the key is unknown or revoked")
        return key

    def _reload(self) -> None:
        now = self._clock()
        if now - self._looked_at < _RELOAD_S:
            return
        self._looked_at = now
        stamp = self._stamp()
        if stamp is not None and stamp == self._seen and self._fault is None:
            return
        self._seen = stamp
        try:
            self._keys = {key.id: key for key in read_keys(self._path)}
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
            self._keys = {}

    def _stamp(self) -> tuple[int, ...] | None:
        """What changes with the file: with its content, and with who may read it."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
