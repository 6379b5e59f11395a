"""Adapters of peft: what is read of one, its labels, and how it is merged into its base."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from compression.errors import CheckpointError
from compression.parent.files import safetensors_files
from compression.parent.quiet import quiet
from compression.parent.settings import load_config

_WEIGHTS = "adapter_model.safetensors"


def adapter_weights(folder: Path) -> list[Path]:
    """The file that peft will read: it takes the pickle beside it where this one is missing.

    Raises:
        CheckpointError: it is not there.
    """
    found = safetensors_files(folder)
    if not (folder / _WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder}: has no {_WEIGHTS}, only {found[0].name}; an adapter's weights are read from that file alone: "
            "save the adapter again with safe_serialization=True"
        )
    return [folder / _WEIGHTS]


def whole_weights(files: list[Path]) -> frozenset[str]:
    """Names, as the model has them, of the weights that an adapter holds whole (`modules_to_save`)."""
    names: set[str] = set()
    for path in files:
        with safe_open(path, framework="np") as file:
            names.update(name.removeprefix("base_model.model.") for name in file.keys())  # noqa: SIM118  (not a dict)
    return frozenset(names)


def adapter_labels(folder: Path, weights: list[Path]) -> dict[str, Any]:
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


def merge_adapter(model: PreTrainedModel, folder: Path, encoder: str) -> PreTrainedModel:
    """The base with the adapter's changes in its weights.

    Args:
        encoder: the base's name, for the message.

    Raises:
        CheckpointError: the adapter was trained on another base.
    """
    from peft import PeftModel

    try:
        with quiet():
            merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{folder}: its adapter does not fit {encoder}: {why}; name the base that it was trained on in its "
            "adapter_config.json, or save it again"
        ) from error
    assert isinstance(merged, PreTrainedModel)
    return merged.eval()
