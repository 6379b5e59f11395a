"""The bundle: the one contract between `compression`, which writes it, and `service`, which runs it. Free of torch.

BUNDLE/
  model.onnx       the compressed model
  tokenizer.json   Hugging Face tokenizers format
  bundle.json      the manifest: labels, window, recipe, digests, figures
  report.html      what was measured, for people
  README.md        model card
"""

from compression.bundle.manifest import (
    DataUsed,
    Figures,
    Latency,
    Manifest,
    ModelFigures,
    ParentModel,
    RuntimeOptions,
)
from compression.bundle.runtime import Encoded, Runtime, softmax
from compression.bundle.storage import Bundle, open_bundle, write_bundle
from compression.errors import BundleError

__all__ = [
    "Bundle",
    "BundleError",
    "DataUsed",
    "Encoded",
    "Figures",
    "Latency",
    "Manifest",
    "ModelFigures",
    "ParentModel",
    "Runtime",
    "RuntimeOptions",
    "open_bundle",
    "softmax",
    "write_bundle",
]
