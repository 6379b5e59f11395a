"""Two bundles loaded in turn, a thousand times: does memory grow?

    python -m benchmarks.serving.loads bundles/sentiment-balanced

Each version answers a few texts. Writes results/loads.json: the server's memory after every tenth load, and its slope
from there on, by least squares.
"""

import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import click
import httpx
import numpy as np

from benchmarks.serving.servers import Server, served
from benchmarks.serving.texts import short_messages
from compression.bundle import open_bundle
from compression.bundle.storage import write_bundle
from compression.measure.machine import this_machine

RESULTS = Path(__file__).resolve().parent / "results" / "loads.json"
EVERY = 10  # loads from one sample of the memory to the next


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--loads", default=1000, show_default=True)
def main(bundle: Path, loads: int) -> None:
    """Writes results/loads.json."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "bundles"
        root.mkdir()
        for name in ("one", "two"):
            copy_as(bundle, root / name, name)
        environment = {"LATHE_MODELS": f"sentiment={root / 'one'}", "LATHE_BUNDLES_ROOT": str(root)}
        with served("service.app:Lathe", Path(folder) / "log", environment) as server:
            start = time.monotonic()
            memory = _load(server, loads)
            passed = time.monotonic() - start
    settled = np.array(memory[1:]) / 1e6
    result = {
        "machine": asdict(this_machine()),
        "loads": loads,
        "seconds": round(passed, 1),
        "rss_mb": [round(value / 1e6, 1) for value in memory],
        "kb_per_load": round(float(np.polyfit(np.arange(len(settled)) * EVERY, settled, 1)[0]) * 1e3, 2),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    click.echo(json.dumps(result, indent=1))


def copy_as(bundle: Path, out: Path, name: str) -> None:
    """The same bundle as another version."""
    opened = open_bundle(bundle)
    manifest = opened.manifest.model_copy(
        update={"data": opened.manifest.data.model_copy(update={"name": f"{opened.manifest.data.name} {name}"})}
    )
    write_bundle(out, manifest, {file: (bundle / file).read_bytes() for file in manifest.files})


def _load(server: Server, loads: int) -> list[int]:
    """The server's memory in bytes, after every tenth."""
    memory = []
    with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as client:
        for number in range(loads):
            bundle = ("two", "one")[number % 2]
            client.post("/v1/models/sentiment/load", json={"bundle": bundle}).raise_for_status()
            client.post("/v1/classify", json={"model": "sentiment", "inputs": short_messages()[:8]}).raise_for_status()
            if number % EVERY == EVERY - 1:
                memory.append(server.rss_bytes())
    return memory


if __name__ == "__main__":
    main()
