"""Two choices around the step `recover`, each against leaving it out: same pruned parent, same texts, three seeds.

    python -m benchmarks.recovery quantization_aware --data-root ../shared/data
    python -m benchmarks.recovery sparsity --data-root ../shared/data

DATA_ROOT holds sst2/. 4,000 texts of its train split calibrate, without their labels; half of the validation split
selects; the other half and the test split judge (1,346 texts). Results go to benchmarks/recovery_*.json; finished
steps are kept in runs/recovery, so a run that was stopped goes on.
"""

import argparse
import importlib.metadata
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compression.run import TOOLS, write_texts
from compression.bundle.runtime import Logits
from compression.classifier import ParentClassifier, predict
from compression.data import Columns, read_examples
from compression.evaluate import agreement, quality
from compression.machine import this_machine
from compression.pipeline import Task, build, open_task, opened
from compression.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (0, 1, 2)
VOCABULARY: dict[str, Any] = {"step": "prune_vocabulary", "keep_most_frequent": 7000}


def main() -> None:
    """Measures every variant that has no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=VARIANTS)
    parser.add_argument("--data-root", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "recovery", help="texts and finished steps")
    arguments = parser.parse_args()
    task = _task(arguments.data_root / "sst2", arguments.work)
    path = ROOT / "benchmarks" / f"recovery_{arguments.what}.json"
    rows = json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else []
    expected = predict(ParentClassifier(task.parent), task.splits.test.texts, "Judge the parent")
    for name, seed, steps in VARIANTS[arguments.what]():
        if any(row["name"] == name and row["seed"] == seed for row in rows):
            continue
        print(f"{name}, seed {seed}", flush=True)
        rows.append({"name": name, "seed": seed, **measure(task, steps, expected)})
        result = {
            "set": "sst2",
            "parent": "models/sentiment",
            "data": task.digest,
            "parent_accuracy": _accuracy(task, expected),
            "machine": asdict(this_machine()),
            "versions": {tool: importlib.metadata.version(tool) for tool in TOOLS},
            "rows": rows,
        }
        path.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def quantization_aware() -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    """Recovery with int8 in its forward pass against without, as in `balanced` and where little is kept."""
    for seed in SEEDS:
        for keep in (0.5, 0.2):
            for aware in (False, True):
                recover: dict[str, Any] = {"step": "recover", "quantization_aware": aware, "seed": seed}
                steps: list[dict[str, Any]] = [VOCABULARY, {"step": "prune_structure", "keep": keep}, recover]
                yield f"keep {keep}, {'aware' if aware else 'plain'}", seed, steps


def sparsity() -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    """Each score at two sparsities against none, in the whole encoder, with one epoch of recovery."""
    recover: dict[str, Any] = {"step": "recover", "epochs": 1}
    yield "none", 0, [VOCABULARY, recover]
    for score in ("wanda", "magnitude", "movement"):
        for sparsity in (0.5, 0.7):
            sparsify = {"step": "sparsify", "sparsity": sparsity, "score": score}
            yield f"{sparsity:.0%} {score}", 0, [VOCABULARY, sparsify, recover]


VARIANTS = {"quantization_aware": quantization_aware, "sparsity": sparsity}


def measure(task: Task, steps: list[dict[str, Any]], expected: Logits) -> dict[str, Any]:
    """The result of the steps as float32 and as int8."""
    row = {}
    for numbers, last in (("float32", []), ("int8", [{"step": "quantize"}])):
        recipe = {"schema_version": 1, "name": "benchmark", "storage": "zstd"}
        candidate = build(task, Recipe.model_validate({**recipe, "steps": [*steps, {"step": "export"}, *last]}))
        with opened(task, candidate) as classifier:
            got = predict(classifier, task.splits.test.texts, f"Judge {numbers}")
        row[numbers] = {
            "zstd_mb": round(len(candidate.model) / 1e6, 2),
            "accuracy": _accuracy(task, got),
            "agreement": round(agreement(expected, got), 4),
            "divergence": round(divergence(expected, got), 5),
        }
    return row


def divergence(expected: Logits, got: Logits) -> float:
    """Mean Kullback-Leibler divergence of the predictions from the parent's, in nats."""
    wanted, found = (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True) for logits in (expected, got))
    return float((np.exp(wanted) * (wanted - found)).sum(axis=1).mean())


def _accuracy(task: Task, logits: Logits) -> float:
    accuracy = quality(logits, task.parent.labels, task.splits.test).accuracy
    assert accuracy is not None
    return round(accuracy, 4)


def _task(data: Path, work: Path) -> Task:
    work.mkdir(parents=True, exist_ok=True)
    _, rows = write_texts(data, work)
    test = read_examples(data / "test.parquet")
    with rows.open("a", encoding="utf-8") as file:
        for text, label in zip(test.texts, test.labels, strict=True):
            file.write(json.dumps({"text": text, "label": label, "split": "test"}) + "\n")
    return open_task(str(ROOT / "models" / "sentiment"), rows, Columns(), work / "cache")


if __name__ == "__main__":
    main()
