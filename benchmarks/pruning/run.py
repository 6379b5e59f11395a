"""Lathe's pruning of heads and neurons beside Kwon et al. (2022) and K-prune: same texts, costs and share of time.

    python -m benchmarks.pruning.run --data-root DATA

DATA holds sst2/ and banking77/, each with train.parquet, validation.parquet and test.parquet (text, label). Texts of
the train split calibrate, without their labels, another draw of them for each seed. Writes results/*.json and
README.md; that takes an hour or two on one core, and with --resume it goes on where an earlier run was stopped.
"""

import argparse
import dataclasses
import hashlib
import importlib.metadata
import json
import random
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax
from transformers import PreTrainedModel

from benchmarks.pruning.elimination import cost_tables
from benchmarks.pruning.methods import METHODS, Costs
from benchmarks.pruning.table import write_readme
from compression.bundle import Logits
from compression.data import Examples, concatenate, read_examples
from compression.measure.evaluate import agreement, quality
from compression.measure.machine import this_machine
from compression.parent.checkpoint import Parent, load_parent
from compression.parent.classifier import ParentClassifier, predict
from compression.prune.cost import machine_cost
from compression.prune.encoder import sublayers
from compression.prune.masks import Line
from compression.prune.upwards import see

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
PARENTS = {"sst2": "models/sentiment", "banking77": "models/banking-intents"}
# The shipped banking77 parent has seen the validation split in training.
JUDGED = {"sst2": ("validation", "test"), "banking77": ("test",)}
KEEPS = (0.7, 0.5, 0.35)
SEEDS = (0, 1, 2)
CALIBRATION_TEXTS = 1024
MIN_WORDS = 5  # sst2's train split is phrases; shorter ones are not what is served
PACKAGES = ("onnxruntime", "torch", "transformers")


def main() -> int:
    """Runs each data set that is there; 1 where one of them is not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--sets", nargs="+", choices=PARENTS, default=list(PARENTS))
    parser.add_argument("--resume", action="store_true", help="keep what results/ has, and measure the rest")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    missing = [name for name in arguments.sets if not (arguments.data_root / name / "test.parquet").is_file()]
    for name in missing:
        print(f"{name}: skipped, there is no {arguments.data_root / name / 'test.parquet'}; give --data-root")
    for name in arguments.sets:
        if name not in missing:
            run_set(name, arguments.data_root / name, RESULTS / f"{name}.json", arguments.resume)
    write_readme(RESULTS)
    return 1 if missing else 0


def run_set(name: str, data: Path, out: Path, resume: bool) -> None:
    """All seeds, methods and shares on one data set; `out` is written after each of them."""
    parent = load_parent(str(ROOT / PARENTS[name]))
    judged = concatenate([read_examples(data / f"{split}.parquet") for split in JUDGED[name]])
    train = read_examples(data / "train.parquet")
    result: dict[str, Any] = (
        json.loads(out.read_text("utf-8")) if resume and out.is_file() else _begin(name, data, parent, judged)
    )
    costs = [{int(width): cost for width, cost in table.items()} for table in result["costs"]]
    done = {(row["seed"], row["method"], row["keep"]) for row in result["rows"]}
    expected = predict(ParentClassifier(parent), judged.single_texts, "Judge the parent")
    for seed in SEEDS:
        if done.issuperset((seed, method, keep) for method in METHODS for keep in KEEPS):
            continue
        seen = see(parent, calibration_texts(train.single_texts, judged.single_texts, seed))
        for method, prepare in METHODS.items():
            start = time.process_time()
            prune = prepare(parent.model, seen, costs)
            prepared = time.process_time() - start
            for keep in KEEPS:
                if (seed, method, keep) in done:
                    continue
                start = time.process_time()
                model = prune(keep)
                seconds = prepared + time.process_time() - start
                row = judge(parent, model, costs, expected, judged)
                print(f"{name}, draw {seed}, {method}, {keep}: {row}", flush=True)
                result["rows"].append(
                    {"seed": seed, "method": method, "keep": keep, **row, "cpu_seconds": round(seconds, 1)}
                )
                out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def calibration_texts(train: Sequence[str], judged: Sequence[str], seed: int) -> list[str]:
    """A random draw of those that are long enough and do not judge."""
    candidates = sorted({text for text in train if len(text.split()) >= MIN_WORDS} - set(judged))
    return random.Random(seed).sample(candidates, min(CALIBRATION_TEXTS, len(candidates)))


def judge(parent: Parent, model: PreTrainedModel, costs: Costs, expected: Logits, judged: Examples) -> dict[str, Any]:
    """What a pruned model costs, and how near to the parent it has stayed; fractions, not percent.

    Args:
        expected: the parent's logits, (texts, labels).
    """
    logits = predict(ParentClassifier(dataclasses.replace(parent, model=model)), judged.single_texts, "Judge")
    widths = [part.units for part in sublayers(model)]
    lines = [Line.through(table) for table in costs]
    spent = sum(line.at(width) for line, width in zip(lines, widths, strict=True))
    full = sum(line.at(max(table)) for line, table in zip(lines, costs, strict=True))
    return {
        "divergence": round(divergence(expected, logits), 5),
        "agreement": round(agreement(expected, logits, parent.task), 5),
        "accuracy": round(quality(logits, parent.task, judged).accuracy or 0.0, 5),
        "cost": round(spent / full, 4),
        "widths": widths,
    }


def divergence(expected: Logits, logits: Logits) -> float:
    """KL(parent || model), mean over texts."""
    parent, model = (log_softmax(values.astype(np.float64), axis=1) for values in (expected, logits))
    return float((np.exp(parent) * (parent - model)).sum(axis=1).mean())


def _begin(name: str, data: Path, parent: Parent, judged: Examples) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        costs = cost_tables(parent.model, partial(machine_cost, Path(folder)))
    logits = predict(ParentClassifier(parent), judged.single_texts, "Judge the parent")
    splits = ("train", *JUDGED[name])
    return {
        "set": name,
        "parent": PARENTS[name],
        "sha256": {split: hashlib.sha256((data / f"{split}.parquet").read_bytes()).hexdigest() for split in splits},
        "judged": {"splits": JUDGED[name], "texts": len(judged)},
        "calibration_texts": CALIBRATION_TEXTS,
        "accuracy": round(quality(logits, parent.task, judged).accuracy or 0.0, 5),
        "machine": dataclasses.asdict(this_machine()),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "costs": costs,
        "rows": [],
    }


if __name__ == "__main__":
    sys.exit(main())
