"""Exact rewrites of an exported encoder: the same answers from fewer operations.

    1. `find_attention`: the nodes of an attention, some 25 of them, become one MultiHeadAttention as a name for what
       they compute; all that makes the mask becomes one Cast.
    2. `keep_first_token`: a classifier reads only position 0 of the last hidden state. There the last layer is computed
       for that position alone: queries, attention, output, layer norms and feed-forward; keys and values need all.
    3. `expand_attention`: back into the fewest standard nodes, the scale folded into the queries' weights and the mask
       made once. On CPU these are faster than the kernel of MultiHeadAttention when batches are large.

A graph in which nothing of this is found stays as it is.
"""

import onnx

from compression.graph.first_token import keep_first_token
from compression.graph.fuse_attention import expand_attention, find_attention


def fuse(model: onnx.ModelProto) -> onnx.ModelProto:
    """Applies each rewrite wherever it is exact.

    Args:
        model: a float model with dynamic batch and sequence axes; left as it is.
    """
    return expand_attention(keep_first_token(find_attention(model)))


__all__ = ["expand_attention", "find_attention", "fuse", "keep_first_token"]
