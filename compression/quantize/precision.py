"""The other precisions that a graph can take: dynamic int8, float16 for GPU, and weights alone in 8 or 4 bits.

ONNX Runtime's own tools do the work; this chooses what they touch and guards the places where they go wrong.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import onnx
import onnxruntime.quantization
from onnx import TensorProto, helper

from compression.bundle.atomic_files import scratch
from compression.errors import RecipeError
from compression.graph.edit import MICROSOFT, add_weight, copy, drop_unused, replace
from compression.quantize.blocks import quantize_blocks
from compression.quantize.linear import linears

# A mask of -3.4e38 would become -65504, the end of float16's range, where adding a score gives -inf, and a row of
# nothing but -inf a NaN. e^-10000 is 0 just the same.
_LARGEST_FLOAT16 = 1e4
# The squares and sums of a layer norm that was exported in parts; the whole operator computes in float32 by itself.
_WIDE_OPERATORS = ("Pow", "ReduceMean", "Softmax")


def quantize_dynamic(model: onnx.ModelProto) -> onnx.ModelProto:
    """Puts the linears into int8, per output channel, with ranges that are measured at run time.

    Needs no calibration text, but is *not batch-exact*: a range covers the whole padded batch, so that an answer
    depends on the other texts in it. The last linear stays in float.
    """
    with scratch() as folder, _quiet():
        path = folder / "dynamic.onnx"
        onnxruntime.quantization.quantize_dynamic(
            copy(model),
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            # A Gemm gets a new name before this list is read.
            nodes_to_quantize=[name for layer in linears(model) for name in (layer.name, f"{layer.name}_MatMul")],
            per_channel=True,
            weight_type=onnxruntime.quantization.QuantType.QInt8,
            # Fused operators (com.microsoft) have no shape inference; their tensors are float here.
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )
        return onnx.load(path)


def to_float16(model: onnx.ModelProto, keep_float32: Sequence[str] = ()) -> onnx.ModelProto:
    """Computes in float16, with inputs and outputs as they were. Half the size, and fast on GPU only.

    Args:
        keep_float32: parts of node names; what matches stays in float32.

    Raises:
        RecipeError: one of them matches no node.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    result = copy(model)
    names = [node.name for node in result.graph.node]
    for pattern in keep_float32:
        if not any(pattern in name for name in names):
            raise RecipeError(
                f"keep_float32: {pattern!r} is part of no node's name; they look like {', '.join(names[:3])}"
            )
    return convert_float_to_float16(  # type: ignore[no-any-return]
        result,
        max_finite_val=_LARGEST_FLOAT16,
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_WIDE_OPERATORS],
        node_block_list=[name for name in names if any(pattern in name for pattern in keep_float32)],
    )


def quantize_weights(model: onnx.ModelProto, bits: Literal[8, 4] = 8, block_size: int = 32) -> onnx.ModelProto:
    """Stores the weights of the linears in 8 or 4 bits; activations stay float, so that it is batch-exact.

    Smaller, not faster: the kernel (MatMulNBits) is made for one token at a time. The last linear stays in float.

    Args:
        block_size: inputs that share a scale, a power of two from 16; smaller is more accurate and takes more space.

    Raises:
        RecipeError: the block size is no such number.
    """
    if block_size < 16 or block_size & (block_size - 1):
        raise RecipeError(f"block_size: {block_size} is not a power of two from 16; 32 is a good one")
    result = copy(model)
    for layer in linears(result):
        values, scales = quantize_blocks(layer.weight.T, bits, block_size)
        add_weight(result.graph, f"{layer.name}_weight_i{bits}", values)
        add_weight(result.graph, f"{layer.name}_weight_scale", scales)
        inputs = [layer.input, f"{layer.name}_weight_i{bits}", f"{layer.name}_weight_scale"]
        if layer.bias is not None:
            add_weight(result.graph, f"{layer.name}_bias", layer.bias)
            inputs += ["", "", f"{layer.name}_bias"]  # zero points and group indices are left out
        sizes = {"K": layer.weight.shape[0], "N": layer.weight.shape[1], "bits": bits, "block_size": block_size}
        node = helper.make_node("MatMulNBits", inputs, [layer.output], name=layer.name, domain=MICROSOFT, **sizes)
        replace(result.graph, layer.nodes, [node])
    return drop_unused(result)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps ONNX Runtime's advice about preprocessing, which the export has done, out of the user's terminal."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
