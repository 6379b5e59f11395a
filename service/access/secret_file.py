"""Files with secrets, which an operator names."""

import os
import stat
from pathlib import Path

from service.errors import ConfigurationError

_MOST_BYTES = 16 << 20  # some 90,000 keys
_LEAST_KEY_BYTES = 32


def read_pseudonym_key(path: Path) -> bytes:
    """The key of pseudonyms.

    Raises:
        ConfigurationError: it cannot be read, or is so short that it could be guessed.
    """
    try:
        key = read_secret_file(path, "a key of pseudonyms").strip()
    except OSError as error:
        raise ConfigurationError(f"{path}: the key of pseudonyms cannot be read: {error.strerror}") from None
    if len(key) < _LEAST_KEY_BYTES:
        raise ConfigurationError(
            f"{path}: the key of pseudonyms has {len(key)} bytes, and needs {_LEAST_KEY_BYTES}; make one with "
            "openssl rand -hex 32"
        )
    return key


def stamp_of(path: Path) -> tuple[int, ...] | None:
    """What changes with a file: with its content, and with who may read it; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def read_secret_file(path: Path, what: str) -> bytes:
    """What is in it. A pipe would be waited for, and a device may have no end: the service reads while it serves.

    Args:
        what: the file should be, with its article, for messages.

    Raises:
        ConfigurationError: it is no regular file, or too large.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigurationError(f"{path}: not {what}: it is no regular file")
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ConfigurationError(f"{path}: not {what}: it has more than {_MOST_BYTES} bytes")
    return content
