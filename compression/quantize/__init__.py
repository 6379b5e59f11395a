"""Static int8 quantization of an exported model, written as the graph that ONNX Runtime's CPU kernels execute.

Ranges come from calibration text, once; at run time nothing is measured. That is what makes an answer independent of
the other texts in its batch: dynamic quantization takes each range from the whole padded batch.
"""

from compression.quantize.linear import Linear, linears
from compression.quantize.rewrite import quantize_embeddings, quantize_linears
from compression.quantize.search import Activation, Feed, Range, calibrate

__all__ = ["Activation", "Feed", "Linear", "Range", "calibrate", "linears", "quantize_embeddings", "quantize_linears"]
