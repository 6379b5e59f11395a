"""API keys, as an administrator makes, rotates and revokes them.

A key is `lathe_<id>_<secret>` with 256 random bits of secret. Because the secret is random and long, one sha256 is
enough: nothing is gained by slowing down guesses that can never succeed.
"""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service.access.caller import Limits, Scope
from service.access.keys_file import DEFAULT_SCOPES, Key, change_keys, hash_of, read_keys
from service.errors import ConfigurationError
from service.tenant import Priority


def add_key(
    path: Path,
    name: str,
    scopes: Sequence[Scope] = DEFAULT_SCOPES,
    models: Sequence[str] = (),
    expires: datetime | None = None,
    limits: Limits | None = None,
    priority: Priority = "interactive",
) -> str:
    """Adds a key and returns it; it cannot be had a second time.

    Args:
        models: which it may ask; empty: all.
        expires: from when on it is refused, with a time zone; None: never.
        limits: None: it has none.
        priority: its place in the queue.

    Raises:
        ConfigurationError: the name is empty or taken, or the file is no keys file, or cannot be written.
    """
    if not name.strip():
        raise ConfigurationError("the name of a key is empty; name whom it is for")
    key, token = _make(name, scopes, models, expires, limits, priority)

    def add(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        if any(key.name == name for key in keys):
            raise ConfigurationError(f"{path}: there is a key named {name!r}; revoke it first or choose another name")
        return *keys, key

    change_keys(path, add)
    return token


def rotate_key(path: Path, identity: str, keep: timedelta) -> str:
    """Adds a key that may do what the one with this id or name may, and returns it.

    Args:
        keep: how long the old one is still let in.

    Raises:
        ConfigurationError: there is no valid one, or the file is no keys file, or cannot be written.
    """
    token = ""

    def replace(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        nonlocal token
        now = datetime.now(UTC)
        old = [key for key in _named(path, keys, identity) if key.is_valid(now)]
        if not old:
            raise ConfigurationError(f"{path}: the key {identity!r} has expired; make one with lathe keys add")
        last = old[-1]
        new, token = _make(last.name, last.scopes, last.models, last.expires, last.limits, last.priority)
        ends = [key.model_copy(update={"expires": min(key.expires or now + keep, now + keep)}) for key in old]
        return *(key for key in keys if key not in old), *ends, new

    read_keys(path)  # where there is no file, there is nothing to make one for
    change_keys(path, replace)
    return token


def revoke_key(path: Path, identity: str) -> tuple[Key, ...]:
    """Removes the key with this id, or those of this name; running services notice within a second.

    Raises:
        ConfigurationError: there is none, or the file is no keys file, or cannot be written.
    """
    revoked: tuple[Key, ...] = ()

    def remove(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        nonlocal revoked
        revoked = _named(path, keys, identity)
        return tuple(key for key in keys if key not in revoked)

    read_keys(path)  # where there is no file, there is nothing to make one for
    change_keys(path, remove)
    return revoked


def _make(
    name: str,
    scopes: Sequence[Scope],
    models: Sequence[str],
    expires: datetime | None,
    limits: Limits | None,
    priority: Priority,
) -> tuple[Key, str]:
    identity, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    token = f"lathe_{identity}_{secret}"
    key = Key(
        id=identity, name=name, sha256=hash_of(token), created=datetime.now(UTC), scopes=tuple(dict.fromkeys(scopes)),
        models=tuple(dict.fromkeys(models)), expires=expires, limits=limits,
        priority=priority,
    )  # fmt: skip
    return key, token


def _named(path: Path, keys: Sequence[Key], identity: str) -> tuple[Key, ...]:
    found = tuple(key for key in keys if identity in (key.id, key.name))
    if not found:
        raise ConfigurationError(f"{path}: no key with id or name {identity!r}; lathe keys list shows them")
    return found
