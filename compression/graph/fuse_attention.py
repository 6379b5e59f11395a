"""Finds attention in an exported graph, and writes it in the fewest nodes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from compression.bundle import softmax
from compression.graph.edit import MICROSOFT, add_weight, copy, drop_unused, observing_session, readers_of, replace
from compression.quantize.linear import Floats, linears, scale_linear

_MASK = "attention_mask"
_REARRANGES = ("Reshape", "Transpose", "Mul", "Div")
_TOLERANCE = 1e-4
_ORDERS = ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))  # of the axes of queries, keys and values


@dataclass(frozen=True)
class _Attention:
    """Names of the tensors of one attention: (batch, tokens, width) each, `split_query` (batch, heads, tokens, -)."""

    query: str
    key: str
    value: str
    context: str
    split_query: str


def find_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Puts one MultiHeadAttention (com.microsoft) in the place of each attention.

    Recognises it by its shape in the graph, and then makes sure by computing it.
    Exporters write the scale and the mask in many ways. What they mean is checked on a padded batch: only where
    softmax(QK'/sqrt(d) + mask)V gives what the graph gives is it replaced.
    """
    if _MASK not in {value.name for value in model.graph.input}:
        return model
    candidates = list(_candidates(model))
    if not candidates:
        return model
    result = copy(model)
    graph = result.graph
    producers = {name: node for node in graph.node for name in node.output}
    observed, mask = _observe(model, candidates)
    fused = False
    for found in candidates:
        query, key, value, context, split = (
            observed[name] for name in (found.query, found.key, found.value, found.context, found.split_query)
        )
        heads = split.shape[1]
        if not _is_attention(query, key, value, context, mask, heads):
            continue
        fused = True
        old = producers[found.context]
        node = helper.make_node(
            "MultiHeadAttention",
            [found.query, found.key, found.value, "", f"{_MASK}_int32"],
            [found.context],
            name=old.name,
            domain=MICROSOFT,
            num_heads=heads,
        )
        replace(graph, (old,), [node])
        # Shape inference does not know the operator.
        width = context.shape[-1]
        graph.value_info.append(
            helper.make_tensor_value_info(found.context, onnx.TensorProto.FLOAT, ["batch", "tokens", width])
        )
    if not fused:
        return model
    cast = helper.make_node("Cast", [_MASK], [f"{_MASK}_int32"], name=f"{_MASK}_cast", to=onnx.TensorProto.INT32)
    graph.node.insert(0, cast)
    return drop_unused(result)


def _candidates(model: onnx.ModelProto) -> Iterator[_Attention]:
    producers = {name: node for node in model.graph.node for name in node.output}
    users = readers_of(model.graph)
    outputs = {layer.output for layer in linears(model)}

    def linear_above(tensor: str) -> str | None:
        """The output of a linear from which this tensor is only rearranged and scaled."""
        if tensor in outputs:
            return tensor
        node = producers.get(tensor)
        if node is None or node.op_type not in _REARRANGES:
            return None
        return next((found for name in node.input if (found := linear_above(name)) is not None), None)

    def product_above(tensor: str) -> onnx.NodeProto | None:
        node = producers.get(tensor)
        if node is None or node.op_type == "MatMul":
            return node
        if node.op_type not in ("Add", "Mul", "Div", "Where"):
            return None
        found = (product_above(name) for name in node.input)
        return next((product for product in found if product is not None), None)

    for node in model.graph.node:
        if node.op_type != "Softmax":
            continue
        scores = product_above(node.input[0])
        following = [node]
        for operator in ("MatMul", "Transpose", "Reshape"):
            readers = users.get(following[-1].output[0], [])
            if len(readers) == 1 and readers[0].op_type == operator:
                following.append(readers[0])
        if scores is None or len(following) != 4:
            continue
        query, key, value = (linear_above(name) for name in (*scores.input, following[1].input[1]))
        if query is not None and key is not None and value is not None:
            yield _Attention(query, key, value, following[3].output[0], scores.input[0])


def _observe(model: onnx.ModelProto, candidates: list[_Attention]) -> tuple[dict[str, Floats], npt.NDArray[np.int64]]:
    """The candidates' tensors, and the mask, on two made-up texts, the second padded."""
    names = list(
        dict.fromkeys(name for c in candidates for name in (c.query, c.key, c.value, c.context, c.split_query))
    )
    session = observing_session(model, names)
    ids = np.array([[2, 3, 4, 5, 6, 7, 8, 9], [2, 9, 7, 5, 3, 1, 1, 1]])
    mask = np.array([[1] * 8, [1] * 5 + [0] * 3])
    given = {"input_ids": ids, _MASK: mask}
    feed = {value.name: given.get(value.name, np.zeros_like(ids)) for value in session.get_inputs()}
    return dict(zip(names, session.run(names, feed), strict=True)), mask


def _is_attention(
    query: Floats,
    key: Floats,
    value: Floats,
    context: Floats,
    mask: npt.NDArray[np.int64],
    heads: int,
) -> bool:
    q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3) for x in (query, key, value))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]) + np.where(mask, 0, -1e4)[:, None, None]
    expected = softmax(scores) @ v
    expected = expected.transpose(0, 2, 1, 3).reshape(*query.shape[:2], -1)
    return expected.shape == context.shape and bool(
        np.abs(expected - context).max() <= _TOLERANCE * np.abs(context).max()
    )


def expand_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Writes each MultiHeadAttention of `find_attention` in standard nodes."""
    result = copy(model)
    graph = result.graph
    layers = {layer.output: layer for layer in linears(result)}
    attentions = [node for node in graph.node if node.op_type == "MultiHeadAttention"]
    if not attentions:
        return model
    add_weight(graph, "attention_flat", np.array([0, 0, -1]))
    for node in attentions:
        heads = next(attribute.i for attribute in node.attribute if attribute.name == "num_heads")
        query = layers[node.input[0]]
        scale_linear(graph, query, columns=(query.weight.shape[1] // heads) ** -0.5)
        add_weight(graph, f"{node.name}_heads", np.array([0, 0, heads, -1]))
        replace(graph, (node,), list(_attention_nodes(node)))
    _expand_mask(graph)
    return drop_unused(result)


def _attention_nodes(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    def make(operator: str, inputs: list[str], suffix: str, **attributes: Any) -> onnx.NodeProto:
        name = f"{node.name}_{suffix}"
        return helper.make_node(operator, inputs, [name], name=name, **attributes)

    # (batch, tokens, width) to (batch, heads, tokens, width of a head); of the keys the last two the other way round.
    for tensor, part, order in zip(node.input, ("query", "key", "value"), _ORDERS, strict=False):
        yield make("Reshape", [tensor, f"{node.name}_heads"], f"{part}_split")
        yield make("Transpose", [f"{node.name}_{part}_split"], part, perm=order)
    yield make("MatMul", [f"{node.name}_query", f"{node.name}_key"], "scores")
    yield make("Add", [f"{node.name}_scores", f"{_MASK}_added"], "masked")
    yield make("Softmax", [f"{node.name}_masked"], "weights", axis=-1)
    yield make("MatMul", [f"{node.name}_weights", f"{node.name}_value"], "split")
    yield make("Transpose", [f"{node.name}_split"], "joined", perm=_ORDERS[0])
    flat = [f"{node.name}_joined", "attention_flat"]
    yield helper.make_node("Reshape", flat, list(node.output), name=node.name)


def _expand_mask(graph: onnx.GraphProto) -> None:
    """0 where there is a token and -10000 where there is none, (batch, 1, 1, tokens)."""
    (cast,) = (node for node in graph.node if node.name == f"{_MASK}_cast")
    add_weight(graph, "mask_axes", np.array([1, 2]))
    add_weight(graph, "mask_one", np.float32(1))
    add_weight(graph, "mask_size", np.float32(1e4))
    names = [_MASK, *(f"{_MASK}_{suffix}" for suffix in ("float", "open", "sized", "added"))]
    extra: list[list[str]] = [[], ["mask_one"], ["mask_size"], ["mask_axes"]]
    nodes = [
        helper.make_node(operator, [source, *constants], [target], name=target)
        for operator, source, constants, target in zip(
            ("Cast", "Sub", "Mul", "Unsqueeze"), names, extra, names[1:], strict=False
        )
    ]
    nodes[0].attribute.append(helper.make_attribute("to", onnx.TensorProto.FLOAT))
    replace(graph, (cast,), nodes)
