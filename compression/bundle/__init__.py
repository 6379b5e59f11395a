"""The bundle: the one contract between `compression`, which writes it, and `service`, which runs it. Free of torch.

BUNDLE/
  model.onnx       the compressed model
  tokenizer.json   Hugging Face tokenizers format
  bundle.json      the manifest: labels, window, recipe, digests, figures
  golden.json      what it answered to a few fixed texts where it was made
  report.html      what was measured, for people
  README.md        model card
  bundle.sig       who made it, where it was signed
"""

from compression.bundle.classify import Classification, TextClassifier
from compression.bundle.extras import extra, require_extra
from compression.bundle.figures import (
    Calibration,
    ClassFigures,
    Counterfactual,
    Deviation,
    Difference,
    Estimate,
    Figures,
    Latency,
    LongTextFigures,
    ModelFigures,
    NumberDifferences,
    NumberFigures,
    OutsideFigures,
    Perturbation,
    Reaction,
    SelectiveFigures,
    Significance,
    StepFigures,
    SwapReaction,
    median_speedup,
)
from compression.bundle.golden import GOLDEN, GOLDEN_WITHIN, GoldenAnswers, read_golden
from compression.bundle.inputs import Input, InputKind, changed, kind_of, shown, texts_of
from compression.bundle.manifest import AbstainOptions, DataUsed, Manifest, NumberOptions, ParentModel, RuntimeOptions
from compression.bundle.runtime import Provider, Runtime
from compression.bundle.storage import Bundle, open_bundle, write_bundle
from compression.bundle.task import Labelling, Logits, Number, SeveralLabels, SingleLabel, Task, softmax
from compression.bundle.windows import Encoded, HeadTail, LongTexts, Windows, joined, windows_of
from compression.errors import BundleError, SigningError

__all__ = [
    "GOLDEN",
    "GOLDEN_WITHIN",
    "AbstainOptions",
    "Bundle",
    "BundleError",
    "Calibration",
    "ClassFigures",
    "Classification",
    "Counterfactual",
    "DataUsed",
    "Deviation",
    "Difference",
    "Encoded",
    "Estimate",
    "Figures",
    "GoldenAnswers",
    "HeadTail",
    "Input",
    "InputKind",
    "Labelling",
    "Latency",
    "Logits",
    "LongTextFigures",
    "LongTexts",
    "Manifest",
    "ModelFigures",
    "Number",
    "NumberDifferences",
    "NumberFigures",
    "NumberOptions",
    "OutsideFigures",
    "ParentModel",
    "Perturbation",
    "Provider",
    "Reaction",
    "Runtime",
    "RuntimeOptions",
    "SelectiveFigures",
    "SeveralLabels",
    "Significance",
    "SigningError",
    "SingleLabel",
    "StepFigures",
    "SwapReaction",
    "Task",
    "TextClassifier",
    "Windows",
    "changed",
    "extra",
    "joined",
    "kind_of",
    "median_speedup",
    "open_bundle",
    "read_golden",
    "require_extra",
    "shown",
    "softmax",
    "texts_of",
    "windows_of",
    "write_bundle",
]
