"""Adapters of peft: what is read of one, its labels, and how it is merged into its base."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from compression.errors import CheckpointError
from compression.parent.files import safetensors_files
from compression.parent.quiet import quiet
from compression.parent.settings import load_config
from compression.progress import warn

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]  # by the name of a weight

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


def whole_weights(files: list[Path]) -> Shapes:
    """The weights that an adapter holds, those that it holds whole (`modules_to_save`) by the names that the model has.

    Raises:
        CheckpointError: a file is damaged.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        try:
            with safe_open(path, framework="np") as file:
                for name in file.keys():  # noqa: SIM118  (not a dict)
                    shapes[name.removeprefix("base_model.model.")] = tuple(file.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: cannot be read: {error}; save or copy the adapter again") from error
    return shapes


def adapter_base(folder: Path) -> str:
    """What an adapter's config names as its base; of that config no field may be lost.

    Raises:
        CheckpointError: it names none, or peft has no adapters of this kind.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft import __version__ as version

    written: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    base, kind = written.get("base_model_name_or_path"), written.get("peft_type")
    if not isinstance(base, str) or not base:
        raise CheckpointError(f"{folder}: its adapter_config.json has no name of its base in base_model_name_or_path")
    config = PEFT_TYPE_TO_CONFIG_MAPPING.get(kind)
    if config is None:
        raise CheckpointError(f"{folder}: peft {version} has no adapters of peft_type {kind!r}, as its config says")
    known = {field.name for field in fields(config)}
    unread = sorted(name for name, value in written.items() if value and name not in known and name != "peft_version")
    if unread:
        warn(
            f"{folder}: peft {version} does not read {', '.join(unread)} in its adapter_config.json; if one of them "
            "decides what the adapter computes, the answers are wrong"
        )
    return base


def fit_vocabulary(model: PreTrainedModel, whole: Shapes) -> None:
    """Gives a base the rows that its adapter has: one trained with more tokens holds the whole table of embeddings."""
    table = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is table)
    rows = whole.get(f"{name}.weight", (len(table.weight),))[0]
    if rows != len(table.weight):
        model.resize_token_embeddings(rows, mean_resizing=False)


def adapter_labels(folder: Path, whole: Shapes) -> dict[str, Any]:
    """Labels from the config.json beside the adapter, else numbered ones, as many as its head has rows."""
    if (folder / "config.json").is_file():
        config = load_config(folder)
        return {"id2label": config.id2label, "label2id": config.label2id, "problem_type": config.problem_type}
    for name, shape in whole.items():
        if name.endswith(("classifier.weight", "classifier.out_proj.weight", "score.weight")):
            return {"num_labels": shape[0]}
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
        why = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise CheckpointError(
            f"{folder}: its adapter does not fit {encoder}: {why}; name the base that it was trained on in its "
            "adapter_config.json, or save it again"
        ) from error
    assert isinstance(merged, PreTrainedModel)
    return merged.eval()
