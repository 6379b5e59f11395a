"""Two choices around the step `recover`, each against leaving it out: same parent, same texts, float32 and int8.

    python -m benchmarks.recovery quantization_aware --data-root ../shared/data
    python -m benchmarks.recovery sparsity --data-root ../shared/data

DATA_ROOT holds sst2/. Pruning and sparsity learn from 4,000 texts of its train split, without their labels, recovery
from the first 1,000 of these, so that all of it takes some minutes; half of the validation split selects; the other
half and the test split judge (1,346 texts). Results go to benchmarks/recovery_*.json; a run that was stopped goes on.
"""

import argparse
import importlib.metadata
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from pydantic import TypeAdapter

from benchmarks.compression.run import TOOLS, write_texts
from compression.bundle import Logits
from compression.data import Columns, read_examples
from compression.measure.evaluate import agreement, quality
from compression.measure.machine import this_machine
from compression.parent.classifier import ParentClassifier, predict
from compression.quantize.sensitivity import logits as logits_of
from compression.recipe import Step
from compression.step_cache import Work, WorkCache, key_of
from compression.steps import feeds_of, run_step
from compression.task import Task, open_task

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (0, 1, 2)
RECOVERY_TEXTS = 1000
VOCABULARY = {"step": "prune_vocabulary", "keep_most_frequent": 7000}


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
    for name, seed, pruning, recovery in VARIANTS[arguments.what]():
        if any(row["name"] == name and row["seed"] == seed for row in rows):
            continue
        print(f"{name}, seed {seed}", flush=True)
        rows.append({"name": name, "seed": seed, **measure(task, pruning, recovery, expected)})
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


def quantization_aware() -> Iterator[tuple[str, int, list[Any], list[Any]]]:
    """Recovery with int8 in its forward pass against without, as in `balanced` and where little is kept."""
    for seed in SEEDS:
        for keep in (0.2, 0.5):
            for aware in (False, True):
                pruning = [VOCABULARY, {"step": "prune_structure", "keep": keep}]
                recover = {"step": "recover", "quantization_aware": aware, "seed": seed}
                yield f"keep {keep}, {'aware' if aware else 'plain'}", seed, pruning, [recover]


def sparsity() -> Iterator[tuple[str, int, list[Any], list[Any]]]:
    """Each score at two sparsities against none, in the whole encoder."""
    recover = {"step": "recover", "learning_rate": 5e-5}  # less than where heads and neurons are missing
    yield "none", 0, [VOCABULARY], [recover]
    for score in ("wanda", "magnitude", "movement"):
        for sparsity in (0.7, 0.5):
            sparsify = {"step": "sparsify", "sparsity": sparsity, "score": score}
            yield f"{sparsity:.0%} {score}", 0, [VOCABULARY, sparsify], [recover]


VARIANTS = {"quantization_aware": quantization_aware, "sparsity": sparsity}


def measure(task: Task, pruning: list[Any], recovery: list[Any], expected: Logits) -> dict[str, Any]:
    """The result of the steps as float32 and as int8."""
    kept = WorkCache(task.cache / "steps")
    fewer = replace(task.splits, calibration=task.splits.calibration.head(RECOVERY_TEXTS))
    unfinished = task.cache / "unfinished"
    key, work = task.key, Work(task.parent)
    for step in _steps(*pruning):  # as a recipe's steps are kept, so that each is done once
        key = key_of(key, step.model_dump(mode="json"))
        found = kept.get(key, task.parent)
        work = found or run_step(step, work, task.parent, task.splits, task.cache, unfinished)
        if found is None:
            kept.put(key, work)
    for step in _steps(*recovery, {"step": "export"}):
        work = run_step(step, work, task.parent, fewer, task.cache, unfinished)
        unfinished.unlink(missing_ok=True)
    row: dict[str, Any] = {"float32": _figures(task, work, expected)}
    (quantize,) = _steps({"step": "quantize"})
    work = run_step(quantize, work, task.parent, task.splits, task.cache, unfinished)
    assert work.graph is not None
    packed = zstandard.ZstdCompressor(level=19).compress(work.graph.SerializeToString())
    return {**row, "int8": {**_figures(task, work, expected), "zstd_mb": round(len(packed) / 1e6, 2)}}


def _steps(*steps: dict[str, Any]) -> list[Step]:
    return [TypeAdapter[Step](Step).validate_python(step) for step in steps]


def _figures(task: Task, work: Work, expected: Logits) -> dict[str, float]:
    assert work.graph is not None
    got = logits_of(work.graph, feeds_of(work.graph, work.model, task.splits.test.texts))
    return {
        "mb": round(work.size_bytes / 1e6, 2),
        "accuracy": _accuracy(task, got),
        "agreement": round(agreement(expected, got, task.parent.task), 4),
        "divergence": round(divergence(expected, got), 5),
    }


def divergence(expected: Logits, got: Logits) -> float:
    """Mean Kullback-Leibler divergence of the predictions from the parent's, in nats."""
    wanted, found = (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True) for logits in (expected, got))
    return float((np.exp(wanted) * (wanted - found)).sum(axis=1).mean())


def _accuracy(task: Task, logits: Logits) -> float:
    accuracy = quality(logits, task.parent.task, task.splits.test).accuracy
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
