"""What to read of texts that are longer than the window: accuracy and cost of each setting, with the same parents.

    python -m benchmarks.long_texts --data-root ../shared/data

DATA_ROOT holds zh_chnsenticorp_htl/ (Chinese hotel reviews, most of them longer than a window of 64 tokens) and sst2/.
Of the reviews a small parent is trained from scratch, on what fits its window; sentences of sst2 are put to
models/sentiment, which knows longer ones, through a window of 16 tokens. Results go to benchmarks/long_texts.json.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compression.chinese import train_chinese_parent
from compression.bundle import HeadTail, LongTexts, Windows, windows_of
from compression.data import Examples, read_examples
from compression.measure.evaluate import labelled_rows
from compression.parent.checkpoint import Parent, load_parent
from compression.parent.classifier import ParentClassifier, predict

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measures all, and prints a table for docs/compression.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "long_texts", help="where the parent is kept")
    arguments = parser.parse_args()
    reviews = arguments.data_root / "zh_chnsenticorp_htl"
    folder = arguments.work / "reviews"
    train_chinese_parent(reviews, folder, window=64)
    sets = {
        "zh_chnsenticorp_htl, window 64": (load_parent(str(folder)), reviews),
        "sst2, window 16": (
            replace(load_parent(str(ROOT / "models" / "sentiment")), max_length=16), arguments.data_root / "sst2"
        ),
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    for name, (parent, data) in sets.items():
        rows += measure(name, parent, read_examples(data / "test.parquet"))
    (ROOT / "benchmarks" / "long_texts.json").write_text(json.dumps(rows, indent=2) + "\n", "utf-8")
    print("| test set | setting | accuracy, % | of longer texts, % | gained, lost | tokens computed of a text |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        print(
            f"| {row['set']} | {row['setting']} | {100 * row['accuracy']:.1f} | {100 * row['accuracy_of_longer']:.1f} "
            f"({row['longer']} of {row['texts']}) | {row['gained']}, {row['lost']} | {row['tokens']:.0f} |"
        )


def measure(name: str, parent: Parent, examples: Examples) -> Iterator[dict[str, Any]]:
    """A row for each setting; what it gains and loses is against cutting."""
    half = (parent.max_length - 2) // 2
    settings: dict[str, LongTexts | None] = {
        "cut": None,
        "head-tail": HeadTail(),
        "windows, mean": Windows(),
        "windows, half a window apart, mean": Windows(stride=half),
        "windows, max": Windows(join="max"),
        "windows, half a window apart, max": Windows(stride=half, join="max"),
    }
    cut = None
    for setting, long_texts in settings.items():
        model = ParentClassifier(replace(parent, long_texts=long_texts))
        labelled, truth = labelled_rows(parent.task, examples)
        logits = predict(model, examples.texts, f"{name}: {setting}")
        right = (parent.task.decide(logits[labelled]) == truth).all(axis=-1)
        cut = right if cut is None else cut
        longer = np.array([model.length(examples.texts[row]) > parent.max_length for row in labelled])
        windows = windows_of(map(model.encode, examples.texts))
        yield {
            "set": name,
            "setting": setting,
            "texts": len(labelled),
            "longer": int(longer.sum()),
            "accuracy": round(float(right.mean()), 4),
            "accuracy_of_longer": round(float(right[longer].mean()), 4),
            "gained": int((right & ~cut).sum()),
            "lost": int((cut & ~right).sum()),
            "windows": round(len(windows) / len(examples), 2),
            "tokens": round(sum(map(len, windows)) / len(examples), 1),
        }


if __name__ == "__main__":
    main()
