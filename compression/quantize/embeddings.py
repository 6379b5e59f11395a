"""Rewrites the embedding tables of an exported graph into 8 or 4 bits.

    Gather(table, ids) ─▶    becomes    Gather(rows, ids) ─ Cast ─ Mul(Gather(scales, ids)) ─▶    with 8 bits,
                                        GatherBlockQuantized(rows, ids, scales) ─▶                with 4

A row is looked up once for each token, so that a smaller table costs no time to speak of. With 4 bits a whole
vocabulary takes as much space as half of it with 8, and costs far less: docs/compression.md has the figures.

Rows of 8 bits can also take fewer of the 255 levels, so that they take less space when the model is stored compressed:
the rarer a token, the coarser its row, for its error is met as rarely (reverse water-filling: Cover and Thomas,
Elements of Information Theory, 13.3).
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from compression.graph.edit import MICROSOFT, add_weight, copy, drop_unused, replace
from compression.quantize.blocks import quantize_blocks
from compression.quantize.linear import Floats, quantize_weight

Weights = dict[str, npt.NDArray[Any]]

_FEWEST_ROWS = 256  # of a table that is worth it
_FEWEST_ROWS_4_BITS = 2048  # positions are few, and every text meets them
_BLOCK_SIZES = (128, 64, 32, 16)  # those that the operator knows
_FEWEST_BITS, _MOST_BITS = 1.0, 8.0  # of a value of a row, when stored compressed


@dataclass(frozen=True)
class RowEntropy:
    """How coarse the rows of the word embedding are.

    Attributes:
        mean: bits of a value when it is stored compressed, over the whole table.
        counts: (rows,), how often each token occurs in typical text.
    """

    mean: float
    counts: npt.NDArray[np.int64]

    def bits(self) -> Floats:
        """Of the values of each row, (rows,): half a bit more for each doubling of a token's probability.

        That of the tokens that do not occur follows from how many occur once (Good 1953, who names Turing).
        """
        unseen = max(1, int((self.counts == 0).sum()))
        once = max(1, int((self.counts == 1).sum()))
        relative = 0.5 * np.log2(np.maximum(self.counts, min(1.0, once / unseen)))
        low, high = -_MOST_BITS - relative.max(), _MOST_BITS - relative.min()

        def at(level: float) -> Floats:
            return np.clip(level + relative, _FEWEST_BITS, _MOST_BITS).astype(np.float32)

        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if at(middle).mean() < self.mean else (low, middle)
        return at(high)


def quantize_embeddings(
    model: onnx.ModelProto, bits: Literal[8, 4] = 8, entropy: RowEntropy | None = None
) -> onnx.ModelProto:
    """Stores large embedding tables in fewer bits: int8 with a scale per row, or 4 bits with a scale per block.

    Args:
        bits: of the word embedding; smaller tables, and widths that no block divides, always take 8.
        entropy: of the word embedding's rows with 8 bits; None uses all levels.
    """
    result = copy(model)
    graph = result.graph
    tables = {tensor.name: tensor for tensor in graph.initializer}
    stored: set[str] = set()
    for node in list(graph.node):
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.data_type != onnx.TensorProto.FLOAT or len(table.dims) != 2:
            continue
        if table.dims[0] < _FEWEST_ROWS:
            continue
        block = next((size for size in _BLOCK_SIZES if table.dims[1] % size == 0), None)
        if bits == 8 or block is None or table.dims[0] < _FEWEST_ROWS_4_BITS:
            coarse = entropy is not None and len(entropy.counts) == table.dims[0]
            weights, nodes = _rows_of_8_bits(node, numpy_helper.to_array(table), entropy if coarse else None)
        else:
            weights, nodes = _blocks_of_4_bits(node, numpy_helper.to_array(table), block)
        if table.name not in stored:
            stored.add(table.name)
            for name, value in weights.items():
                add_weight(graph, name, value)
        replace(graph, (node,), nodes)
    return drop_unused(result)


def _rows_of_8_bits(
    node: onnx.NodeProto, table: Floats, entropy: RowEntropy | None
) -> tuple[Weights, list[onnx.NodeProto]]:
    (name, ids), (output,) = node.input, node.output
    rows = quantize_weight(table.T, None if entropy is None else entropy.bits())
    weights: Weights = {f"{name}_i8": np.ascontiguousarray(rows.values.T), f"{name}_scale": rows.scales[:, np.newaxis]}
    nodes = [
        helper.make_node("Gather", [f"{name}_i8", ids], [f"{output}_i8"], name=f"{node.name}_rows"),
        helper.make_node("Gather", [f"{name}_scale", ids], [f"{output}_row_scale"], name=f"{node.name}_scales"),
        helper.make_node(
            "Cast", [f"{output}_i8"], [f"{output}_cast"], name=f"{node.name}_cast", to=onnx.TensorProto.FLOAT
        ),
        helper.make_node("Mul", [f"{output}_cast", f"{output}_row_scale"], [output], name=f"{node.name}_scaled"),
    ]
    return weights, nodes


def _blocks_of_4_bits(node: onnx.NodeProto, table: Floats, block_size: int) -> tuple[Weights, list[onnx.NodeProto]]:
    (name, ids), (output,) = node.input, node.output
    levels, scales = quantize_blocks(table, 4, block_size)
    weights: Weights = {f"{name}_u4": levels.reshape(len(table), -1), f"{name}_scale": scales}
    gather = helper.make_node(
        "GatherBlockQuantized",
        [f"{name}_u4", ids, f"{name}_scale"],
        [output],
        name=node.name,
        domain=MICROSOFT,
        bits=4,
        block_size=block_size,
        gather_axis=0,
        quantize_axis=1,
    )
    return weights, [gather]
