"""Quantization of an exported model: functions from graph to graph.

The one to serve on CPU is static int8, written as the graph that ONNX Runtime's kernels execute. Ranges come from
calibration text, once; at run time nothing is measured. That is what makes an answer independent of the other texts in
its batch: dynamic quantization takes each range from the whole padded batch.
"""

from compression.quantize.aware import quantize_within
from compression.quantize.embeddings import RowEntropy, quantize_embeddings
from compression.quantize.linear import Linear, linears
from compression.quantize.precision import quantize_dynamic, quantize_weights, to_float16
from compression.quantize.rewrite import quantize_linears
from compression.quantize.search import Activation, Feed, Range, calibrate

__all__ = [
    "Activation",
    "Feed",
    "Linear",
    "Range",
    "RowEntropy",
    "calibrate",
    "linears",
    "quantize_dynamic",
    "quantize_embeddings",
    "quantize_linears",
    "quantize_weights",
    "quantize_within",
    "to_float16",
]
