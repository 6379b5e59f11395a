"""Virtual environments for the tools to compare with: each has one of its own, made once."""

import hashlib
import os
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

_SECONDS = 1800
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OLIVE_DISABLE_TELEMETRY": "1"}


class PeerError(Exception):
    """A tool could not be installed or did not finish; the message is the end of its own output."""


def environment(folder: Path, requirements: Path, undeclared: Sequence[str] = ()) -> Path:
    """The Python of an environment; it is made where it is not there yet or its requirements changed.

    Args:
        undeclared: packages whose own requirements cannot be met, installed without them.

    Raises:
        PeerError: pip could not install it.
    """
    folder = folder.absolute()
    python = folder / "bin" / "python"
    wanted = hashlib.sha256(requirements.read_bytes() + repr(tuple(undeclared)).encode()).hexdigest()
    marker = folder / "installed"
    if marker.is_file() and marker.read_text() == wanted:
        return python
    venv.create(folder, clear=True, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*install, "--requirement", str(requirements)])
    if undeclared:
        run([*install, "--no-deps", *undeclared])
    marker.write_text(wanted)
    return python


def run(command: Sequence[str]) -> str:
    """What a tool prints.

    Raises:
        PeerError: it failed, or took longer than half an hour.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False, env=os.environ | _OFFLINE
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"not done after {_SECONDS} s") from error
    if done.returncode:
        raise PeerError("\n".join((done.stderr or done.stdout).strip().splitlines()[-5:]))
    return done.stdout
