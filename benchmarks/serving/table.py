"""The serving benchmark's README, from its results."""

import json
import statistics
from pathlib import Path
from typing import Any

_HEAD = """<!-- Written by benchmarks/serving/run.py from results/table.json; do not edit. -->

# Serving: Lathe beside other servers

    python -m benchmarks.serving.run bundles/sentiment-balanced bundles/sentiment

`small` is the bundle of the recipe `balanced`, `plain` that of `safe`: the parent in int8. `parent` is the float32
model that both come from. LitServe and BentoML's batching run the very same files. Medians over interleaved rounds,
lowest and highest in brackets. The ceiling is tokenising and computing sorted batches, without a server: on one thread,
and on one for each core, as Lathe has them, where each text costs more CPU seconds because the threads share caches (or
one core, as hyperthreads). CPU is that of the server's processes; client and server share the machine.
"""


def write_table(results: Path) -> None:
    """Writes README.md beside the folder of the results."""
    result = json.loads(results.read_text("utf-8"))
    rows: list[dict[str, Any]] = result["rows"]
    machine = result["machine"]
    rounds = max(row["round"] for row in rows)
    lines = [_HEAD, f"{machine['cpu']}, {machine['cores']} cores; Python {result['python']}; {rounds} rounds.\n"]
    lines += sections(rows)
    lines += [f"Not measured: {name}: {why.splitlines()[-1]}\n" for name, why in result["absent"].items()]
    (results.parent.parent / "README.md").write_text("\n".join(lines), "utf-8")


def sections(rows: list[dict[str, Any]]) -> list[str]:
    """The lines of each load's table."""
    lines: list[str] = []
    for load in dict.fromkeys(row["load"] for row in rows):
        lines += [
            f"## {load}\n",
            "| server | texts/s | CPU s per 1,000 texts | p50, ms | p99, ms |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for server in dict.fromkeys(row["server"] for row in rows):
            own = [row for row in rows if (row["load"], row["server"]) == (load, server)]
            if not own:  # a lone client is not asked of several threads
                continue
            cells = (_median(own, name) for name in ("texts_per_s", "cpu_s_per_1000_texts", "p50_ms", "p99_ms"))
            lines.append(f"| {server} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def _median(rows: list[dict[str, Any]], name: str) -> str:
    values = [row[name] for row in rows if name in row]
    if not values:
        return "refused" if any("refused" in row for row in rows) else ""
    digits = 0 if min(values) >= 100 else 2
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
