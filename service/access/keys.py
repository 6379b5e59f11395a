"""API keys: made, listed and revoked in a file that holds only their hashes; checked in constant time.

A key is `lathe_<id>_<secret>` with 256 random bits of secret. Because the secret is random and long, one sha256 is
enough: nothing is gained by slowing down guesses that can never succeed.
"""

import hashlib
import hmac
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from service.errors import ConfigurationError, Forbidden, Unauthorized

_SCHEME = "bearer"
_RELOAD_SECONDS = 1.0


class Key(BaseModel):
    """One key as the file keeps it; `admin` keys may change which version of a model is served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str
    sha256: str
    created: datetime
    admin: bool = False


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...] = ()


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys in a file.

    Raises:
        ConfigurationError: it is not there or not a keys file.
    """
    try:
        return _File.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path}: no such keys file; make one with lathe keys add NAME --file {path}"
        ) from None
    except (OSError, ValidationError) as error:
        raise ConfigurationError(f"{path}: not a keys file: {error}") from error


def add_key(path: Path, name: str, admin: bool = False) -> str:
    """Adds a key and returns it; it cannot be had a second time.

    Args:
        admin: whether it may change which version of a model is served.

    Raises:
        ConfigurationError: the name is taken, or the file is no keys file.
    """
    keys = read_keys(path) if path.exists() else ()
    if any(key.name == name for key in keys):
        raise ConfigurationError(f"{path}: there is a key named {name!r}; revoke it first or choose another name")
    identity, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    token = f"lathe_{identity}_{secret}"
    _write(path, (*keys, Key(id=identity, name=name, sha256=_hash(token), created=datetime.now(UTC), admin=admin)))
    return token


def revoke_key(path: Path, identity: str) -> Key:
    """Removes the key with this id or name; running services notice within a second.

    Raises:
        ConfigurationError: there is none.
    """
    keys = read_keys(path)
    for key in keys:
        if identity in (key.id, key.name):
            _write(path, tuple(other for other in keys if other is not key))
            return key
    raise ConfigurationError(f"{path}: no key with id or name {identity!r}; lathe keys list shows them")


class Authenticator:
    """Checks the Authorization header against a keys file, which is read again when it changes.

    Raises:
        ConfigurationError: the file cannot be read at start. Later, a file that has become unreadable lets nobody in.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._keys = read_keys(path)
        self._seen = self._stamp()
        self._looked_at = clock()

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
        if scheme.lower() != _SCHEME or not token:
            raise Unauthorized("the Authorization header must be: Bearer KEY")
        found = None
        presented = _hash(token.strip())
        for key in self._keys:  # all of them, so that the time says nothing about which one matched
            if hmac.compare_digest(key.sha256, presented):
                found = key
        if found is None:
            raise Unauthorized("the key is unknown or revoked")
        return found

    def _reload(self) -> None:
        now = self._clock()
        if now - self._looked_at < _RELOAD_SECONDS:
            return
        self._looked_at = now
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._keys = read_keys(self._path)
        except ConfigurationError:
            self._keys = ()

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    """Replaces the file in one step; only its owner may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(_File(keys=keys).model_dump_json(indent=2) + "\n")
    os.replace(temporary, path)
