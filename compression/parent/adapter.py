"""Adapters of peft: what is read of one, its labels, and how it is merged into its base."""

import copy
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from compression.errors import CheckpointError
from compression.parent.files import safetensors_files
from compression.parent.quiet import quiet
from compression.parent.settings import load_config
from compression.progress import warn

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]  # by the name of a weight

_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # of names in that file


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
                    shapes[name.removeprefix(_PREFIX)] = tuple(file.get_slice(name).get_shape())
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


def adapter_labels(folder: Path, base: Path, whole: Shapes) -> dict[str, Any]:
    """Labels from the config.json beside the adapter, else numbered ones, as many as its head has rows."""
    if (folder / "config.json").is_file():
        config = load_config(folder)
        return {"id2label": config.id2label, "label2id": config.label2id, "problem_type": config.problem_type}
    for name in _heads(load_config(base)):
        if name in whole:
            return {"num_labels": whole[name][0]}
    raise CheckpointError(f"{folder}: the adapter holds no classification head; save it with modules_to_save")


def _heads(config: PreTrainedConfig) -> list[str]:
    """Names of the weights of a classifier with a row for each label, whatever its architecture calls them."""
    shapes = []
    for labels in (2, 3):
        other = copy.deepcopy(config)
        other.num_labels = labels
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(other)
        shapes.append({name: weight.shape for name, weight in model.named_parameters()})
    return [name for name, shape in shapes[0].items() if shape != shapes[1][name]]


def merge_adapter(model: PreTrainedModel, folder: Path, encoder: str, whole: Shapes) -> PreTrainedModel:
    """The base with the adapter's changes in its weights.

    Args:
        encoder: the base's name, for the message.
        whole: what the adapter's file holds; see `whole_weights`.

    Raises:
        CheckpointError: the adapter was trained on another base.
    """
    from peft import PeftModel, get_peft_model_state_dict

    try:
        with quiet():
            adapted = PeftModel.from_pretrained(model, str(folder))
            own, known = (
                {name.removeprefix(_PREFIX) for name in state}
                for state in (get_peft_model_state_dict(adapted, save_embedding_layers=False), adapted.state_dict())
            )
            merged = adapted.merge_and_unload()
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise _does_not_fit(folder, encoder, why) from error
    for names, what in (
        (own - whole.keys(), "are not in its file"),
        (whole.keys() - own - known, "have no place in it"),
    ):
        if names:
            raise _does_not_fit(folder, encoder, f"{len(names)} weights {what}, {min(names)} among them")
    assert isinstance(merged, PreTrainedModel)
    return merged.eval()


def _does_not_fit(folder: Path, encoder: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"{folder}: its adapter does not fit {encoder}: {why}; name the base that it was trained on in its "
        "adapter_config.json, or save it again"
    )
