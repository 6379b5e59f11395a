"""What the steps of a recipe hand on, and how it is kept between runs.

A key names the work that came before and the step: the same parent, text, tools and steps give the same key, so a run
that was killed goes on where it stopped, and a recipe that differs in its last step repeats only that one.
"""

import copy
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from compression.bundle.atomic_files import CACHE_REMEDY, replacing
from compression.cache import MAX_STEPS_BYTES, size_bytes
from compression.parent.checkpoint import Parent, weight_bytes
from compression.prune.encoder import encoder_layers, remove_layer, sublayers

_GRAPH = "model.onnx"
_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
_TOKENIZER_MARK = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class Work:
    """A model on its way.

    Attributes:
        model: in PyTorch, as the steps before `export` left it.
        graph: what `export` and the steps behind it made of it; None before.
    """

    model: Parent
    graph: onnx.ModelProto | None = None

    @property
    def size_bytes(self) -> int:
        """Of the weights in PyTorch, or of the graph."""
        return weight_bytes(self.model) if self.graph is None else self.graph.ByteSize()


def key_of(*parts: object) -> str:
    """A digest of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class WorkCache:
    """Finished steps in a directory; the longest unused go when it grows beyond `max_bytes`."""

    def __init__(self, folder: Path, max_bytes: int = MAX_STEPS_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def get(self, key: str, parent: Parent) -> Work | None:
        """What was kept under this key; None when there is nothing, or nothing that can be read."""
        path = self._folder / key
        if not (path / _TOKENIZER_MARK).is_file():
            return None
        try:
            work = _read(path, parent)
        except (
            Exception
        ):  # safetensors, protobuf and tokenizers have each their own; whatever it is, the step is done again
            shutil.rmtree(path, ignore_errors=True)
            return None
        os.utime(path)
        return work

    def put(self, key: str, work: Work) -> None:
        """Keeps it, and forgets what was unfinished.

        Raises:
            StorageError: there is no room for it.
        """
        with replacing(self._folder / key, CACHE_REMEDY) as staging:
            staging.mkdir()
            _write(staging, work)
        self.unfinished(key).unlink(missing_ok=True)
        self._shrink(key)

    def unfinished(self, key: str) -> Path:
        """Where a step may keep a file to go on from when it is killed."""
        return self._folder / f"{key}.unfinished"

    def _shrink(self, newest: str) -> None:
        entries = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
        sizes = {path: size_bytes(path) for path in entries}
        for path in entries:
            if sum(sizes.values()) <= self._max_bytes:
                break
            if path.name != newest:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
                del sizes[path]


def _write(folder: Path, work: Work) -> None:
    work.model.tokenizer.save_pretrained(folder)
    if work.graph is not None:
        onnx.save(work.graph, folder / _GRAPH)
    else:
        state = {name: tensor.detach().clone().contiguous() for name, tensor in work.model.model.state_dict().items()}
        save_file(state, folder / _WEIGHTS)
        work.model.model.config.to_json_file(folder / _CONFIG, use_diff=False)


def _read(folder: Path, parent: Parent) -> Work:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if (folder / _GRAPH).is_file():
        return Work(dataclasses.replace(parent, tokenizer=tokenizer), onnx.load(folder / _GRAPH))
    state = load_file(folder / _WEIGHTS)
    model = copy.deepcopy(parent.model)
    model.config = type(parent.model.config).from_json_file(folder / _CONFIG)
    model.config._attn_implementation = parent.model.config._attn_implementation  # which no file holds
    fit_to(model, state)
    model.load_state_dict(state)
    return Work(dataclasses.replace(parent, model=model, tokenizer=tokenizer))


def fit_to(model: PreTrainedModel, state: Mapping[str, torch.Tensor]) -> None:
    """Gives a model the vocabulary, layers and widths of a pruned one's weights, in place."""
    names = {module: name for name, module in model.named_modules()}
    table = model.get_input_embeddings()
    rows = len(state[f"{names[table]}.weight"])
    if rows != table.num_embeddings:
        table.weight = torch.nn.Parameter(table.weight[:rows].detach().clone())
        table.num_embeddings = rows
    if {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in state.items()
    }:
        return
    while f"{names[sublayers(model)[-1].output]}.weight" not in state:
        remove_layer(model, len(encoder_layers(model)) - 1)
    for part in sublayers(model):
        name = names[part.output]
        part.resize(state[f"{name}.weight"].shape[1] // part.unit, f"{name}.bias" in state)
