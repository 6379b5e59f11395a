"""Whether a model knows what it was not made for: clinc150 with its texts out of scope; parent and bundles, one table.

    python -m benchmarks.abstaining --data-root ../shared/data

DATA_ROOT holds clinc150_oos/ with train.parquet, validation.parquet and test.parquet (text, label; `oos` is outside).
The parent is MiniLM-L6, fine-tuned on the 150 intents; it sees no text outside. The first run trains it: minutes on two
cores. Train texts calibrate, without their labels; validation texts choose temperature and threshold; test texts judge.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from compression.bundle import Labelling, Logits, open_bundle
from compression.data import Columns, Examples, read_examples
from compression.measure.abstaining import ANSWER_ERROR, auroc, confidence_and_right, risks
from compression.measure.evaluate import fit_temperature, right_answers
from compression.measure.machine import this_machine
from compression.parent.checkpoint import load_parent
from compression.parent.classifier import BundleClassifier, Classifier, ParentClassifier, predict
from compression.train.finetune import FinetuneOptions, finetune

ROOT = Path(__file__).resolve().parents[1]
RESULT = Path(__file__).with_suffix(".json")
PARENT = ROOT / "runs" / "parents" / "clinc150"
OUTSIDE = "oos"
RECIPES = ("safe", "balanced")
RESAMPLES = 1000
CALIBRATION_TEXTS = 4000
_COLUMNS = Columns(outside_labels=(OUTSIDE,))
_TRAINING = FinetuneOptions(epochs=8, learning_rate=1e-4, max_length=64)

Scores = npt.NDArray[np.float64]  # (texts,): how sure a model is


def main() -> int:
    """Makes what is not there yet, measures all of it, writes the JSON and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=ROOT.parent / "shared" / "data")
    data = parser.parse_args().data_root / "clinc150_oos"
    if not (data / "test.parquet").is_file():
        print(f"there is no {data / 'test.parquet'}; give --data-root", file=sys.stderr)
        return 1
    train, validation, test = (
        read_examples(data / f"{split}.parquet", _COLUMNS) for split in ("train", "validation", "test")
    )
    if not (PARENT / "finetune.json").is_file():
        finetune("embedded:all-MiniLM-L6-v2", train.labelled, validation.labelled, PARENT, _TRAINING)
    parent = ParentClassifier(load_parent(str(PARENT)))
    temperature = _parent_temperature(parent, validation.labelled)
    rows = [{"name": "parent, PyTorch float32", **_measure(parent, temperature, test)}]
    with tempfile.TemporaryDirectory() as work:
        texts = _write_rows(Path(work) / "rows.csv", train, validation, test)
        for recipe in RECIPES:
            bundle = open_bundle(_compress(texts, recipe, Path(work) / recipe))
            measured = _measure(BundleClassifier.of(bundle), bundle.manifest.runtime.temperature, test, bundle.abstains)
            rows.append({"name": f"`{recipe}`", **measured})
    result = {"machine": asdict(this_machine()), "texts": _counts(test), "allowed_error": ANSWER_ERROR, "rows": rows}
    RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(table(result))
    return 0


def table(result: dict[str, Any]) -> str:
    """The rows as Markdown."""
    lines = [
        "| | accuracy, inside | AUROC (95 %) | AUROC of the energy | coverage at 95 % accuracy (95 %) | "
        "threshold: answered, inside | right of these | abstained from, outside |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        own = row["threshold"]
        cells = [
            _percent(row["accuracy"]),
            "{value:.3f} ({low:.3f} to {high:.3f})".format(**row["auroc"]["confidence"]),
            "{value:.3f}".format(**row["auroc"]["energy"]),
            _interval(row["coverage_all"]),
            *(("", "", "") if own is None else map(_percent, (own["answered"], own["right"], own["abstained"]))),
        ]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _measure(
    model: Classifier,
    temperature: float,
    test: Examples,
    abstains: Callable[[Logits], Any] | None = None,
) -> dict[str, Any]:
    task = model.task
    assert isinstance(task, Labelling)
    logits = predict(model, test.texts, "Judge")
    outside = np.array(test.outside)
    right = right_answers(logits, task, test)
    confidence = task.answer_confidence(logits, temperature)
    scores = {  # the other two are what the field compares with; neither is a probability
        "confidence": confidence,
        "largest logit": logits.max(axis=1).astype(np.float64),  # Hendrycks et al. 2022
        "energy": np.asarray(logsumexp(logits.astype(np.float64), axis=1)),  # Liu et al. 2020
    }
    own = None
    if abstains is not None and None not in (said := abstains(logits)):
        answered = ~np.array(said, np.bool_)
        own = {
            "answered": float(answered[~outside].mean()),
            "right": float(right[answered & ~outside].mean()),
            "abstained": float((~answered[outside]).mean()),
        }
    return {
        "accuracy": float(right[~outside].mean()),
        "temperature": temperature,
        "auroc": {name: auroc(score[~outside], score[outside]).model_dump() for name, score in scores.items()},
        "coverage_inside": _coverage(confidence[~outside], right[~outside]),
        "coverage_all": _coverage(*confidence_and_right(logits, task, test, temperature)),
        "threshold": own,
    }


def _coverage(confidence: Scores, right: npt.NDArray[np.bool_]) -> dict[str, float]:
    """The largest fraction of the texts, the surest, of which 95 % get a right answer; bootstrap over the texts."""

    def largest(rows: npt.NDArray[np.intp]) -> float:
        enough = np.flatnonzero(risks(confidence[rows], right[rows]) <= ANSWER_ERROR)
        return float(enough[-1] + 1) / len(rows) if len(enough) else 0.0

    generator, texts = np.random.default_rng(0), len(right)
    drawn = [largest(generator.integers(0, texts, texts)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"value": largest(np.arange(texts)), "low": float(low), "high": float(high)}


def _parent_temperature(parent: Classifier, validation: Examples) -> float:
    task = parent.task
    assert isinstance(task, Labelling)
    return fit_temperature(predict(parent, validation.texts, "Fit the temperature"), task, validation)


def _write_rows(path: Path, train: Examples, validation: Examples, test: Examples) -> Path:
    """One file for `lathe compress`, which says what calibrates, selects and judges."""
    chosen = np.random.default_rng(0).permutation(len(train))[:CALIBRATION_TEXTS].tolist()
    parts = (("calibration", train.take(chosen)), ("selection", validation), ("test", test))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "split"])
        for split, part in parts:
            for text, label, outside in zip(part.texts, part.labels, part.outside, strict=True):
                writer.writerow([text, OUTSIDE if outside else label, split])
    return path


def _compress(rows: Path, recipe: str, out: Path) -> Path:
    command = [sys.executable, "-m", "lathe", "compress", str(PARENT), "--data", str(rows), "--recipe", recipe,
               "--outside-label", OUTSIDE, "--answer-error", str(ANSWER_ERROR), "--out", str(out)]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True)
    return out


def _counts(test: Examples) -> dict[str, int]:
    return {"inside": len(test.labelled), "outside": sum(test.outside)}


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _interval(figure: dict[str, float]) -> str:
    return "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * figure[name] for name in ("value", "low", "high")))


if __name__ == "__main__":
    sys.exit(main())
