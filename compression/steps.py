"""The steps of a recipe: each takes the work so far and gives the next. The one place that knows them all."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from compression import quantize
from compression.bundle import Input
from compression.data import Splits
from compression.errors import RecipeError
from compression.graph.edit import each_weight_once
from compression.graph.export import export
from compression.graph.fuse import fuse
from compression.parent.batches import encode, rows
from compression.parent.checkpoint import Parent
from compression.prune.cost import machine_cost
from compression.prune.layers import drop_layers
from compression.prune.sparsity import sparsify
from compression.prune.structure import prune_structure
from compression.prune.vocabulary import prune_parent_vocabulary
from compression.recipe import (
    DropLayersStep,
    ExportStep,
    Float16Step,
    PruneStructureStep,
    PruneVocabularyStep,
    QuantizeDynamicStep,
    QuantizeStep,
    QuantizeWeightsStep,
    RecoverStep,
    SparsifyStep,
    Step,
)
from compression.step_cache import Work
from compression.train.distill import recover


def run_step(step: Step, work: Work, parent: Parent, splits: Splits, cache: Path, unfinished: Path) -> Work:
    """Does one step.

    Args:
        parent: the model that everything is compared with.
        splits: texts to learn from, and those that say when to stop; labels are not used.
        cache: directory where costs that were measured on this machine are kept.
        unfinished: file where a long step keeps how far it is; a run that was killed goes on from there.

    Raises:
        LatheError: the step cannot be done on this model.
    """
    model, texts, selection = work.model, splits.calibration.texts, splits.selection.texts
    if isinstance(step, ExportStep):
        return Work(model, each_weight_once(fuse(export(model, step.opset))))
    if isinstance(step, QuantizeStep | QuantizeDynamicStep | QuantizeWeightsStep | Float16Step):
        assert work.graph is not None  # the recipe puts them behind export
        return Work(model, each_weight_once(_on_graph(step, work.graph, model, texts, selection)))
    match step:
        case PruneVocabularyStep():
            model = prune_parent_vocabulary(model, texts, step.keep_most_frequent)
        case DropLayersStep():
            model = drop_layers(model, texts, step.count)
        case PruneStructureStep():
            model = prune_structure(model, texts[: step.texts], step.keep, partial(machine_cost, cache))
        case RecoverStep():
            activations = _int8_activations(model, texts) if step.quantization_aware else None
            model = recover(parent, model, texts, selection, step, unfinished, activations)
        case SparsifyStep():
            model = sparsify(parent, model, texts, step)
    return Work(model)


def _on_graph(
    step: QuantizeStep | QuantizeDynamicStep | QuantizeWeightsStep | Float16Step,
    graph: onnx.ModelProto,
    model: Parent,
    texts: Sequence[Input],
    selection: Sequence[Input],
) -> onnx.ModelProto:
    match step:
        case Float16Step():
            return quantize.to_float16(graph, step.keep_float32)
        case QuantizeStep():
            result = _quantize(graph, model, step, texts, selection)
            if step.embedding_entropy is not None:
                return quantize.quantize_embeddings(result, entropy=_row_entropy(model, texts, step.embedding_entropy))
        case QuantizeDynamicStep():
            result = quantize.quantize_dynamic(graph)
        case QuantizeWeightsStep():
            result = quantize.quantize_weights(graph, step.bits, step.block_size)
    return result if step.embedding_bits is None else quantize.quantize_embeddings(result, step.embedding_bits)


def _quantize(
    graph: onnx.ModelProto, model: Parent, step: QuantizeStep, texts: Sequence[Input], selection: Sequence[Input]
) -> onnx.ModelProto:
    layers = quantize.linears(graph)
    for pattern in step.float_layers:
        if not any(pattern in layer.name for layer in layers):
            names = [layer.name for layer in layers]
            some = ", ".join(names if len(names) <= 6 else [*names[:3], "...", *names[-3:]])
            raise RecipeError(f"float_layers: {pattern!r} is in the name of no layer; they are {some}")
    chosen = [layer for layer in layers if not any(pattern in layer.name for pattern in step.float_layers)]
    feeds = feeds_of(graph, model, texts[: step.calibration_texts])
    entropy = step.linear_entropy
    activations = quantize.calibrate(graph, chosen, feeds, entropy=entropy)
    if step.min_agreement is None:
        return quantize.quantize_linears(graph, activations, entropy)
    judges = feeds_of(graph, model, selection)
    return quantize.quantize_within(graph, activations, judges, step.min_agreement, model.task, entropy)


def _row_entropy(model: Parent, texts: Sequence[Input], mean: float) -> quantize.RowEntropy:
    ids = np.concatenate([np.array(row.ids) for row in encode(model, texts)])
    return quantize.RowEntropy(mean, np.bincount(ids, minlength=model.model.get_input_embeddings().num_embeddings))


def _int8_activations(model: Parent, texts: Sequence[Input]) -> dict[str, quantize.Activation]:
    """What the step `quantize` with its defaults would choose, were it the next one."""
    graph = export(model, ExportStep(step="export").opset)  # not fused: that scales the queries
    feeds = feeds_of(graph, model, texts[: QuantizeStep(step="quantize").calibration_texts])
    return quantize.calibrate(graph, quantize.linears(graph), feeds)


def feeds_of(graph: onnx.ModelProto, model: Parent, texts: Sequence[Input]) -> list[quantize.Feed]:
    """A row of each text or pair alone, as the exported model takes it."""
    wanted = {value.name for value in graph.graph.input}
    feeds = []
    for encoded in rows(model, texts):
        arrays = {
            "input_ids": np.array([encoded.ids]),
            "attention_mask": np.ones((1, len(encoded)), np.int64),
            "token_type_ids": np.array([encoded.type_ids]),
        }
        feeds.append({name: array for name, array in arrays.items() if name in wanted})
    return feeds
