"""Texts with numbers, and what is changed of a model that gives some."""

import csv
import json
import random
from pathlib import Path
from typing import Any

from tests.conftest import FILLER, SENTIMENT

TEXTS = ["this bank is great", "an awful and slow app", "the service is very", "good but broken", "today"]
SCALE, MIDDLE = 70.0, 300.0  # of the numbers: not those that a new head gives


def write_rows(path: Path, count: int, seed: int) -> Path:
    """Texts with a number that follows from their good and bad words."""
    choose = random.Random(seed)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(count):
            good, bad = choose.randint(0, 3), choose.randint(0, 3)
            text = choose.choices(FILLER, k=choose.randint(2, 9))
            text += choose.choices(SENTIMENT["positive"], k=good) + choose.choices(SENTIMENT["negative"], k=bad)
            choose.shuffle(text)
            writer.writerow([" ".join(text), round(MIDDLE + SCALE * (good - bad) + choose.gauss(0, 5), 1)])
    return path


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")
