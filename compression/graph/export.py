"""Exports a parent to ONNX by torch's exporter, and holds the graph against the parent before anything else is done.

    torch.export ─▶ ONNX ─▶ cleaned by passes of onnxscript and onnx-ir ─▶ held against the parent ─▶ fused, quantized

The exporter traces what the model does with one padded batch; that the graph does the same with any other is not to be
taken on trust, so it is tried at other sizes.
"""

import ast
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import onnx
import onnx_ir
import torch
from onnx_ir.passes import InPlacePass, PassResult, Sequential
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, NameFixPass
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.pattern import RewriteRule, RewriteRuleSet
from transformers import PreTrainedModel

from compression.errors import CheckpointError
from compression.graph.exact import made_up_batch, require_exact
from compression.parent.checkpoint import Parent, weight_bytes

_EXAMPLE = (3, 7)  # texts and tokens: two numbers that nothing in a model is likely to have
_MAX_BYTES = 2**31 - 2**24  # of weights: protobuf's limit, and room for the graph itself
_SCOPES = "pkg.torch.onnx.name_scopes"


def export(parent: Parent, opset: int) -> onnx.ModelProto:
    """Exports in float32, with any number of texts of any length.

    Inputs are those that the model and its tokenizer share, the output is `logits`; a node is named by the path of its
    module.

    Raises:
        CheckpointError: the architecture cannot be exported, or its graph answers otherwise than the parent.
    """
    kind = parent.model.config.model_type
    require_room(parent)
    example = made_up_batch(parent, *_EXAMPLE)
    with _eager(parent.model), _steady(parent.model), _quiet():
        try:
            program = torch.onnx.export(
                _Logits(parent.model, example),
                tuple(example.values()),
                dynamic_shapes=[tuple({0: "batch", 1: "tokens"} for _ in example)],
                input_names=list(example),
                output_names=["logits"],
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise CheckpointError(
                f"{parent.name}: torch cannot export {kind} models to ONNX, which a bundle is made of; fine-tune "
                "another encoder, such as BERT, RoBERTa, DeBERTa or ModernBERT: lathe finetune"
            ) from error
    assert program is not None  # it is None for the older exporter alone
    model = onnx_ir.to_proto(_CLEAN(program.model).model)
    del model.graph.value_info[:]  # shapes between nodes, by the thousand
    require_exact(parent, model)
    return model


def require_room(parent: Parent) -> None:
    """Refuses a model that is larger than an ONNX file can be.

    Raises:
        CheckpointError: names both sizes.
    """
    if not has_room(parent):
        raise CheckpointError(
            f"{parent.name}: its weights take {weight_bytes(parent) / 1e9:.2f} GB in float32, and an ONNX file "
            f"{_MAX_BYTES / 1e9:.2f} GB at most; put prune_vocabulary before export in the recipe, or fine-tune a "
            "smaller encoder"
        )


def has_room(parent: Parent) -> bool:
    """Whether an ONNX file can hold the model in float32."""
    return weight_bytes(parent) <= _MAX_BYTES


class _Logits(torch.nn.Module):
    """A model whose one output is the logits; some give what they remember of the tokens too."""

    def __init__(self, model: PreTrainedModel, names: Iterable[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits  # type: ignore[no-any-return]


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """Attention written out in products and a softmax, which is what the rewrites look for."""
    configs = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    before = [config._attn_implementation for config in configs]
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation


@contextmanager
def _steady(model: PreTrainedModel) -> Iterator[None]:
    """Rotary positions without what changes them in longer texts than the window has, which cannot be traced."""
    changing = [
        module
        for module in model.modules()
        if isinstance(kind := getattr(module, "rope_type", None), str) and ("dynamic" in kind or kind == "longrope")
    ]
    before = [module.rope_type for module in changing]
    for module in changing:
        module.rope_type = "default"
    try:
        yield
    finally:
        for module, kind in zip(changing, before, strict=True):
            module.rope_type = kind


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what torch says of itself out of the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _NameByModule(InPlacePass):
    """Names nodes by the path of the module that they belong to: /bert/encoder/layer.0/output/dense/MatMul."""

    def call(self, model: onnx_ir.Model) -> PassResult:
        for node in model.graph:
            scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
            modules = scopes[1:-1]  # from the model down; before it `_Logits`, behind it torch's name of the node
            parts = [inner.removeprefix(f"{outer}.") for outer, inner in pairwise(modules)]
            node.name = "/" + "/".join([*parts, node.op_type])
        return PassResult(model, modified=True)


class _NameTensorsByNode(InPlacePass):
    """Names what a node computes as the node: of names that are alike, a compressed graph takes less space."""

    def call(self, model: onnx_ir.Model) -> PassResult:
        for node in model.graph:
            for value in node.outputs:
                if not value.is_graph_output():
                    value.name = node.name if len(node.outputs) == 1 else f"{node.name}_{value.index()}"
        return PassResult(model, modified=True)


def _gelu(op: Any, x: Any, root: Any, one: Any, half: Any) -> Any:
    return x * (half * (op.Erf(x / root) + one))


def _gelu_that_fuses(op: Any, x: Any, root: Any, one: Any, half: Any) -> Any:
    """To the bit the same, for half is a power of two; ONNX Runtime makes one operator of this form alone."""
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, root)), one)), half)


_CLEAN = Sequential(
    RewritePass(RewriteRuleSet([RewriteRule(_gelu, _gelu_that_fuses)], commute=True)),
    _NameByModule(),
    NameFixPass(),
    _NameTensorsByNode(),
    ClearMetadataAndDocStringPass(),
)
