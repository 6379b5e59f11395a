"""Lathe beside its peers: same parent, same texts, same measurements, one table.

    python -m benchmarks.compression.run --data-root ../shared/data

DATA_ROOT holds sst2/, banking77/ and zh_waimai_10k/, each with train.parquet, validation.parquet and test.parquet
(text, label). The first run makes an environment for each peer, about 1.5 GB apiece, and trains the Chinese parent.
Texts of the train split calibrate, without their labels; the validation split is for tools that choose between
candidates; the test split judges and does nothing else.
"""

import argparse
import hashlib
import importlib.metadata
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.compression.chinese import train_chinese_parent
from benchmarks.compression.common import measure_all
from benchmarks.compression.peer import PEERS, Peer, produce, versions
from benchmarks.compression.table import write_table
from benchmarks.environments import PeerError
from compression.data import read_examples
from compression.measure.machine import this_machine
from compression.parent.checkpoint import Parent, load_parent
from compression.recipe import preset_names
from compression.words import words

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
CHINESE = "zh_waimai_10k"
PARENTS = {"sst2": "models/sentiment", "banking77": "models/banking-intents", CHINESE: f"runs/parents/{CHINESE}"}
PRESETS = {  # and the name of each one's row
    "float": "parent, ONNX Runtime float32",
    "safe": "Lathe, safe",
    "balanced": "Lathe, balanced",
    "small": "Lathe, small",
}
TOOLS = ("lathe", "onnx", "onnxruntime", "onnxscript", "torch", "transformers")
CALIBRATION_TEXTS = 4000
MIN_WORDS = 5  # sst2's train split is phrases; shorter ones are not what is served


def main() -> int:
    """Runs each data set that is there; 1 where one of them is not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--environments", type=Path, default=ROOT / "runs" / "peers", help="made where not there yet")
    parser.add_argument("--sets", nargs="+", choices=PARENTS, default=list(PARENTS))
    parser.add_argument(
        "--without-peers", action="store_true", help="only Lathe; the peers' rows stay as the last full run left them"
    )
    arguments = parser.parse_args()
    missing = [name for name in arguments.sets if not (arguments.data_root / name / "test.parquet").is_file()]
    for name in missing:
        print(f"{name}: skipped, there is no {arguments.data_root / name / 'test.parquet'}; give --data-root")
    for name in arguments.sets:
        if name not in missing:
            with tempfile.TemporaryDirectory() as work:
                peers = () if arguments.without_peers else PEERS
                result = run_set(name, arguments.data_root / name, arguments.environments, Path(work), peers)
            if arguments.without_peers:
                _keep_peers(result, RESULTS / f"{name}.json")
            (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    write_table(RESULTS)
    return 1 if missing else 0


def run_set(name: str, data: Path, environments: Path, work: Path, peers: Sequence[Peer]) -> dict[str, Any]:
    """Every tool on one data set, then all of them measured together.

    Args:
        work: an empty directory for texts and models.
    """
    if name == CHINESE:
        train_chinese_parent(data, ROOT / PARENTS[name])
    parent = load_parent(str(ROOT / PARENTS[name]))
    folder = _save(parent, work / "parent")
    texts, rows = write_texts(data, work)
    made: list[tuple[dict[str, Any], Path]] = []
    absent: dict[str, str] = {}
    for peer in peers:
        print(f"{name}: {peer.title}", flush=True)
        out = work / peer.name
        try:
            python = peer.python(environments)
            seconds = produce(peer, python, folder, texts, out)
        except PeerError as error:
            absent[peer.title] = str(error)
            continue
        made.append(({"name": peer.title, "seconds": seconds, "versions": versions(peer, python)}, out))
    for preset, title in PRESETS.items():
        out = work / "bundles" / preset
        print(f"{name}: {title}", flush=True)
        if preset not in preset_names():
            absent[title] = "there is no preset of this name"
            continue
        start = time.perf_counter()
        command = [sys.executable, "-m", "lathe", "compress", str(folder), "--data", str(rows), "--recipe", preset,
                   "--out", str(out), "--cache", str(work / "cache" / preset)]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            absent[title] = done.stderr.strip().splitlines()[-1]
            continue
        made.append(({"name": title, "seconds": round(time.perf_counter() - start, 1)}, out))

    print(f"{name}: measuring {len(made)} models", flush=True)
    test = read_examples(data / "test.parquet")
    reference, *measured = measure_all(parent, [out for _, out in made], test)
    return {
        "set": name,
        "parent": PARENTS[name],
        "sha256": {split: _sha256(data / f"{split}.parquet") for split in ("train", "validation", "test")},
        "texts": {"calibration": CALIBRATION_TEXTS, "test": len(test)},
        "machine": asdict(this_machine()),
        "versions": {tool: importlib.metadata.version(tool) for tool in TOOLS},
        "rows": [
            {"name": "parent, PyTorch float32", **asdict(reference)},
            *({**how, **asdict(row)} for (how, _), row in zip(made, measured, strict=True)),
        ],
        "absent": absent,
    }


def _keep_peers(result: dict[str, Any], earlier: Path) -> None:
    """Takes the peers' rows over from an earlier run, and says in each that it was another one."""
    if not earlier.is_file():
        return
    old = json.loads(earlier.read_text("utf-8"))
    kept = [{**row, "earlier_run": True} for row in old["rows"] if "versions" in row]
    result["rows"][1:1] = kept
    result["absent"] = {**{name: why for name, why in old["absent"].items() if "Lathe" not in name}, **result["absent"]}


def _save(parent: Parent, folder: Path) -> Path:
    parent.model.save_pretrained(folder, safe_serialization=True)
    parent.tokenizer.save_pretrained(folder)
    return folder


def write_texts(data: Path, work: Path) -> tuple[Path, Path]:
    """The same texts twice: as the peers' scripts read them, and as `lathe compress` does."""
    train = read_examples(data / "train.parquet")
    validation = read_examples(data / "validation.parquet")
    candidates = sorted(
        {text for text in train.single_texts if len(words(text)) >= MIN_WORDS} - set(validation.single_texts)
    )
    calibration = random.Random(0).sample(candidates, CALIBRATION_TEXTS)
    chosen = [
        {"text": text, "label": label} for text, label in zip(validation.single_texts, validation.labels, strict=True)
    ]
    texts, rows = work / "texts.json", work / "rows.jsonl"
    texts.write_text(json.dumps({"calibration": calibration, "validation": chosen}), "utf-8")
    unlabelled = [{"text": text, "split": "calibration"} for text in calibration]
    # Lathe's own figures are of half of the validation texts here; those in the table are of the test split.
    lines = [*unlabelled, *({**row, "split": ("selection", "test")[at % 2]} for at, row in enumerate(chosen))]
    rows.write_text("\n".join(map(json.dumps, lines)) + "\n", "utf-8")
    return texts, rows


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
