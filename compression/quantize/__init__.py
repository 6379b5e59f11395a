"""Static int8 quantization of an exported model, written as the graph that ONNX Runtime's CPU kernels execute.

Ranges come from calibration text, once; at run time nothing is measured. That is what makes an answer independent of the
other texts in its batch: dynamic quantization takes each range from the whole padded batch.
"""

from compression.quantize.calibrate import Range, calibrate
from compression.quantize.rewrite import linears, quantize_embeddings, quantize_linears

__all__ = ["Range", "calibrate", "linears", "quantize_embeddings", "quantize_linears"]
