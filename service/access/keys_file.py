"""The keys file: hashes of API keys, read whole and replaced whole.

A change keeps the file's owner, group and mode, so that the service can still read what root has changed; goes to the
file that a link points to, and leaves the link; and waits for whoever is changing it now, so that none is lost.
"""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from compression.bundle.atomic_files import take_after
from service.access.caller import SCOPES, Caller, Limits, Scope
from service.access.secret_file import read_secret_file
from service.errors import ConfigurationError
from service.tenant import Priority

DEFAULT_SCOPES: tuple[Scope, ...] = ("predict", "metrics")


class Key(BaseModel):
    """One key as the file keeps it.

    Attributes:
        models: which it may ask; empty: all.
        expires: from when on it is refused; None: never.
        limits: None: it has none.
        priority: its place in the queue.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: datetime
    scopes: tuple[Scope, ...] = DEFAULT_SCOPES
    models: tuple[str, ...] = ()
    expires: AwareDatetime | None = None
    limits: Limits | None = None
    priority: Priority = "interactive"

    @model_validator(mode="before")
    @classmethod
    def _from_before_scopes(cls, given: Any) -> Any:
        """Reads files that have `admin`, true or false, in place of scopes."""
        if not isinstance(given, dict) or "admin" not in given:
            return given
        admin = given["admin"] is True
        rest = {name: value for name, value in given.items() if name != "admin"}
        return {"scopes": SCOPES if admin else DEFAULT_SCOPES, **rest}

    @property
    def caller(self) -> Caller:
        """Who has it, to the routes."""
        return Caller(self.name, self.scopes, self.models or None, self.limits, priority=self.priority)

    def is_valid(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return self.expires is None or now < self.expires


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...] = ()


def hash_of(token: str) -> str:
    """As the file keeps it."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys in a file. A byte order mark, which some editors write, is no fault.

    Raises:
        ConfigurationError: it is not there or not a keys file.
    """
    try:
        keys = _File.model_validate_json(read_secret_file(path, "a keys file").removeprefix(b"\xef\xbb\xbf")).keys
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path}: no such keys file; make one with lathe keys add NAME --file {path}"
        ) from None
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]  # without what stands there: hashes
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise ConfigurationError(f"{path}: not a keys file: {where}: {fault['msg']}") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    if len({key.id for key in keys}) < len(keys):
        raise ConfigurationError(f"{path}: not a keys file: two keys have the same id")
    return keys


def change_keys(path: Path, change: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> None:
    """Replaces the keys in a file, which is made where there is none, in one step.

    Raises:
        ConfigurationError: it is not a keys file, cannot be written, or only with another owner.
    """
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            _replace(path, change(read_keys(path) if path.exists() else ()))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from error


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Alone among writers. The lock is the directory's: a file's would go with the file, and one more would be left."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, keys: tuple[Key, ...]) -> None:
    descriptor, temporary = tempfile.mkstemp(
        prefix=f".{path.name}.", dir=path.parent
    )  # only for its owner, as it stays
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if path.exists():
                _take_after(path, descriptor)
            file.write(_File(keys=keys).model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _take_after(path: Path, descriptor: int) -> None:
    try:
        take_after(descriptor, path)
    except PermissionError:
        old = path.stat()
        raise ConfigurationError(
            f"{path}: belongs to user {old.st_uid} and group {old.st_gid}, who would lose it; "
            "run this as root, or as that user"
        ) from None
