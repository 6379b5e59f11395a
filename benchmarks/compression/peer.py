"""The tools to compare with: each in a virtual environment of its own, run as a process of its own.

A script under peers/ is called as `python SCRIPT PARENT TEXTS OUT`:
  PARENT  Hugging Face directory of the fine-tuned model, any adapter merged
  TEXTS   JSON: {"calibration": [text, ...], "validation": [{"text", "label"}, ...]}
  OUT     empty directory, where it leaves model.onnx and tokenizer.json
"""

import hashlib
import json
import os
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent
_SECONDS = 1800


@dataclass(frozen=True)
class Peer:
    """One tool.

    Attributes:
        name: of its script and its requirements.
        undeclared: packages whose own requirements cannot be met, installed without them.
    """

    name: str
    title: str
    undeclared: tuple[str, ...] = ()

    @property
    def script(self) -> Path:
        return _FOLDER / "peers" / f"{self.name}.py"

    @property
    def requirements(self) -> Path:
        return _FOLDER / "requirements" / f"{self.name}.txt"


PEERS = (
    Peer("optimum_dynamic", "optimum, dynamic int8"),
    Peer("nncf_static", "NNCF, static int8"),
    Peer("olive_recipe", "Olive, BERT recipe"),
    # Its setup.py compares versions as strings ("3.11" < "3.8") and asks for a numpy that no such Python has.
    Peer("textpruner_pipeline", "TextPruner", undeclared=("textpruner==1.1.post2",)),
)


class PeerError(Exception):
    """A tool could not be installed or did not finish; the message is the end of its own output."""


def environment(peer: Peer, root: Path) -> Path:
    """The tool's Python; its environment is made where it is not there yet or its requirements changed.

    Raises:
        PeerError: pip could not install it.
    """
    folder = (root / peer.name).absolute()
    python = folder / "bin" / "python"
    wanted = hashlib.sha256(peer.requirements.read_bytes() + repr(peer.undeclared).encode()).hexdigest()
    marker = folder / "installed"
    if marker.is_file() and marker.read_text() == wanted:
        return python
    venv.create(folder, clear=True, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*install, "--requirement", str(peer.requirements)])
    if peer.undeclared:
        _run([*install, "--no-deps", *peer.undeclared])
    marker.write_text(wanted)
    return python


def produce(peer: Peer, python: Path, parent: Path, texts: Path, out: Path) -> float:
    """Runs the tool's script; returns the seconds it took.

    Raises:
        PeerError: it failed, took longer than half an hour, or left no model.
    """
    out.mkdir(parents=True)
    start = time.perf_counter()
    _run([str(python), str(peer.script), str(parent), str(texts), str(out)])
    seconds = time.perf_counter() - start
    if not (out / "model.onnx").is_file() or not (out / "tokenizer.json").is_file():
        raise PeerError("it left no model")
    return round(seconds, 1)


def versions(peer: Peer, python: Path) -> dict[str, str]:
    """Releases of what the requirements name, as installed; and of the Python."""
    names = {line.split("==")[0].split("[")[0] for line in peer.requirements.read_text("utf-8").splitlines()
             if line and not line.startswith("#")} | {name.split("==")[0] for name in peer.undeclared}  # fmt: skip
    listed = json.loads(_run([str(python), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]))
    return {"python": ".".join(map(str, sys.version_info[:3]))} | {
        package["name"]: package["version"] for package in listed if package["name"] in names
    }


def _run(command: list[str]) -> str:
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OLIVE_DISABLE_TELEMETRY": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False, env=os.environ | offline
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"not done after {_SECONDS} s") from error
    if done.returncode:
        raise PeerError("\n".join((done.stderr or done.stdout).strip().splitlines()[-5:]))
    return done.stdout
