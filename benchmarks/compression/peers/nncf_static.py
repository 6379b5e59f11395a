"""NNCF's post-training quantization of the exported model: SmoothQuant, bias correction, static ranges.

    python nncf_static.py PARENT TEXTS OUT

PARENT is a Hugging Face directory, TEXTS a JSON file (see ../peer.py); model.onnx and tokenizer.json go to OUT.
"""

import json
import shutil
import sys
from pathlib import Path

import nncf
import numpy as np
import onnx
from optimum.exporters.onnx import main_export
from transformers import AutoTokenizer

SUBSET = 300  # NNCF's own default


def main(parent: Path, texts: Path, out: Path) -> None:
    """Exports and quantizes with the settings that NNCF's guide gives for transformers."""
    main_export(str(parent), out / "exported", task="text-classification", library_name="transformers", opset=18)
    model = onnx.load(out / "exported" / "model.onnx")
    tokenizer = AutoTokenizer.from_pretrained(parent)
    inputs = [value.name for value in model.graph.input]

    def feed(text: str) -> dict[str, np.ndarray]:
        encoded = tokenizer(text, truncation=True, return_tensors="np")
        return {name: encoded[name] for name in inputs}

    calibration = json.loads(texts.read_text("utf-8"))["calibration"]
    quantized = nncf.quantize(
        model,
        nncf.Dataset(calibration, feed),
        model_type=nncf.ModelType.TRANSFORMER,
        target_device=nncf.TargetDevice.CPU,
        subset_size=SUBSET,
    )
    onnx.save(quantized, out / "model.onnx")
    shutil.copy(parent / "tokenizer.json", out / "tokenizer.json")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
