"""Exact rewrites of an exported encoder: the same answers from fewer operations.

    1. Attention: what stands between the query, key and value linears and the next linear (Reshape, Transpose, MatMul,
       scaling, mask, Softmax, some 25 nodes) becomes one MultiHeadAttention, and all that makes the mask one Cast.
    2. First token: a classifier reads only position 0 of the last hidden state. There the last layer is computed for
       that position alone: queries, attention, output, layer norms and feed-forward; keys and values need all.

A graph in which nothing of this is found stays as it is.
"""

import onnx

from compression.fuse.attention import fuse_attention
from compression.fuse.first_token import keep_first_token


def fuse(model: onnx.ModelProto) -> onnx.ModelProto:
    """Applies each rewrite wherever it is exact.

    Args:
        model: a float model with dynamic batch and sequence axes, for texts that are padded on the right; left as
            it is.
    """
    return keep_first_token(fuse_attention(model))


__all__ = ["fuse"]
