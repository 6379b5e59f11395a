"""Olive's BERT post-training quantization recipe for ONNX Runtime on CPU: examples/bert/bert_ptq_cpu.json.

    python olive_recipe.py PARENT TEXTS OUT

Conversion, transformer fusions, OnnxQuantization, judged for accuracy and latency on the validation texts. Changed
against the published file:
  - The search draws three choices; in 0.13.0 every draw after the first stops when it loads a cached pass
    ('"FootprintNode" object has no field "model_config"'). Here each of three choices is a workflow of its own, and
    the best is taken as Olive ranks: accuracy first, then latency.
  - Accuracy comes from torchmetrics, since Hugging Face's metric is fetched from the hub.
  - No OpenVINO provider, and no session tuning, which changes threads and providers, not the model.

PARENT is a Hugging Face directory, TEXTS a JSON file (see ../peer.py); model.onnx and tokenizer.json go to OUT.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from olive.workflows import run

CALIBRATION_TEXTS = 300  # as many as the others take
JUDGE_TEXTS = 300
CHOICES = (
    {"quant_mode": "dynamic", "precision": "int8"},
    {"quant_mode": "static", "precision": "int8", "activation_type": "int8", "quant_format": "QDQ"},
    {"quant_mode": "static", "precision": "uint8", "activation_type": "uint8", "quant_format": "QDQ"},
)


def main(parent: Path, texts: Path, out: Path) -> None:
    """Runs the workflow and keeps the model that Olive ranks first."""
    content = json.loads(texts.read_text("utf-8"))
    numbers = json.loads((parent / "config.json").read_text("utf-8"))["label2id"]
    judged = [{"text": row["text"], "label": numbers[row["label"]]} for row in content["validation"][:JUDGE_TEXTS]]
    unlabelled = [{"text": text, "label": 0} for text in content["calibration"][:CALIBRATION_TEXTS]]
    calibration, judge = _rows(out / "calibration.json", unlabelled), _rows(out / "judge.json", judged)
    found: list[tuple[float, float, str, dict[str, str]]] = []
    for index, choice in enumerate(CHOICES):
        result = run(_workflow(parent, calibration, judge, len(numbers), choice, out / f"choice{index}"))
        best = result.get_best_candidate()
        if best is not None:
            metrics = best.metrics_value
            accuracy, latency = metrics["accuracy-accuracy_score"]["value"], metrics["latency-avg"]["value"]
            found.append((accuracy, -latency, best.model_path, choice))
    _, _, path, choice = max(found)
    print(json.dumps({"found": found, "chosen": choice}))
    shutil.copy(path, out / "model.onnx")
    shutil.copy(parent / "tokenizer.json", out / "tokenizer.json")


def _workflow(
    parent: Path, calibration: Path, judge: Path, labels: int, choice: dict[str, str], out: Path
) -> dict[str, Any]:
    metrics = [
        {
            "name": "accuracy",
            "type": "accuracy",
            "backend": "torch_metrics",
            "data_config": "judge",
            "sub_types": [
                {
                    "name": "accuracy_score",
                    "priority": 1,
                    "metric_config": {"task": "multiclass", "num_classes": labels},
                }
            ],
        },
        {
            "name": "latency",
            "type": "latency",
            "data_config": "judge",
            "sub_types": [{"name": "avg", "priority": 2}],
        },
    ]
    return {
        "input_model": {
            "type": "HfModel",
            "model_path": str(parent),
            "task": "text-classification",
            "load_kwargs": {"attn_implementation": "eager"},
        },
        "systems": {
            "local": {
                "type": "LocalSystem",
                "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
            }
        },
        "data_configs": [_data("calibration", calibration), _data("judge", judge)],
        "evaluators": {"common": {"metrics": metrics}},
        "passes": {
            "conversion": {"type": "OnnxConversion", "target_opset": 17},
            "fusion": {"type": "OrtTransformersOptimization", "model_type": "bert"},
            "quantization": {
                "type": "OnnxQuantization",
                "quant_preprocess": True,
                "per_channel": False,
                "reduce_range": False,
                **({"calibrate_method": "MinMax"} if choice["quant_mode"] == "static" else {}),
                "data_config": "calibration",
                **choice,
            },
        },
        "evaluator": "common",
        "evaluate_input_model": False,
        "host": "local",
        "target": "local",
        "cache_dir": str(out / "cache"),
        "output_dir": str(out / "found"),
    }


def _data(name: str, path: Path) -> dict[str, Any]:
    return {
        "name": name,
        "type": "HuggingfaceContainer",
        "load_dataset_config": {"data_name": "json", "data_files": str(path), "split": "train"},
        "pre_process_data_config": {"input_cols": ["text"], "label_col": "label"},
        "dataloader_config": {"batch_size": 1},
    }


def _rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
