"""The tools to compare with: each in a virtual environment of its own, run as a process of its own.

A script under peers/ is called as `python SCRIPT PARENT TEXTS OUT`:
  PARENT  Hugging Face directory of the fine-tuned model, any adapter merged
  TEXTS   JSON: {"calibration": [text, ...], "validation": [{"text", "label"}, ...]}
  OUT     empty directory, where it leaves model.onnx and tokenizer.json
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import PeerError, environment, run

_FOLDER = Path(__file__).resolve().parent


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

    def python(self, root: Path) -> Path:
        """Its Python; see `environment`."""
        return environment(root / self.name, self.requirements, self.undeclared)


PEERS = (
    Peer("optimum_dynamic", "optimum, dynamic int8"),
    Peer("nncf_static", "NNCF, static int8"),
    Peer("olive_recipe", "Olive, BERT recipe"),
    # Its setup.py compares versions as strings ("3.11" < "3.8") and asks for a numpy that no such Python has.
    Peer("textpruner_pipeline", "TextPruner", undeclared=("textpruner==1.1.post2",)),
)


def produce(peer: Peer, python: Path, parent: Path, texts: Path, out: Path) -> float:
    """Runs the tool's script; returns the seconds it took.

    Raises:
        PeerError: it failed, took longer than half an hour, or left no model.
    """
    out.mkdir(parents=True)
    start = time.perf_counter()
    run([str(python), str(peer.script), str(parent), str(texts), str(out)])
    seconds = time.perf_counter() - start
    if not (out / "model.onnx").is_file() or not (out / "tokenizer.json").is_file():
        raise PeerError("it left no model")
    return round(seconds, 1)


def versions(peer: Peer, python: Path) -> dict[str, str]:
    """Releases of what the requirements name, as installed; and of the Python."""
    names = {line.split("==")[0].split("[")[0] for line in peer.requirements.read_text("utf-8").splitlines()
             if line and not line.startswith("#")} | {name.split("==")[0] for name in peer.undeclared}  # fmt: skip
    listed = json.loads(run([str(python), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]))
    return {"python": ".".join(map(str, sys.version_info[:3]))} | {
        package["name"]: package["version"] for package in listed if package["name"] in names
    }
