"""Results as Markdown: results/*.json to results/README.md, which is committed beside them."""

import json
from pathlib import Path
from typing import Any

_NOTE = "<!-- Written by benchmarks/compression/run.py from the JSON files here; do not edit. -->"


def write_table(results: Path) -> None:
    """Writes README.md from every JSON file of the folder."""
    (results / "README.md").write_text(markdown(results), "utf-8")


def markdown(results: Path) -> str:
    """All data sets, one table each."""
    parts = [_NOTE, "# Lathe beside its peers"]
    for path in sorted(results.glob("*.json")):
        parts += _section(json.loads(path.read_text("utf-8")))
    return "\n\n".join(parts) + "\n"


def _section(result: dict[str, Any]) -> list[str]:
    machine = result["machine"]
    instructions = ", ".join(machine["int8_instructions"]) or "no int8 instructions known"
    shapes = [f"{speed['batch']} x {speed['tokens']}" for speed in result["rows"][0]["speeds"]]
    headings = ["", "disk, MB", "accuracy, %", "difference, points", "agreement, %", "flips by the batch", *shapes,
                "made in, s"]  # fmt: skip
    lines = [f"| {' | '.join(headings)} |", f"| --- |{' ---: |' * (len(headings) - 1)}"]
    lines += [f"| {' | '.join(_cells(row))} |" for row in result["rows"]]
    parts = [
        f"## {result['set']}",
        f"Parent: `{result['parent']}`; {result['texts']['test']} test texts. {machine['cpu']}, "
        f"{machine['cores']} cores ({instructions}), ONNX Runtime {machine['onnxruntime']}.",
        "\n".join(lines),
    ]
    if result["absent"]:
        parts.append(
            "\n".join(f"- {name}: not here. `{' '.join(why.split())}`" for name, why in result["absent"].items())
        )
    used = [
        f"- {row['name']}: {', '.join(f'{tool} {version}' for tool, version in row['versions'].items())}"
        for row in result["rows"]
        if "versions" in row
    ]
    return [*parts, "\n".join(used)] if used else parts


def _cells(row: dict[str, Any]) -> list[str]:
    interval = f"{row['difference']:+.1f} ({row['difference_low']:+.1f} to {row['difference_high']:+.1f})"
    return [
        row["name"] + (" (an earlier run)" if row.get("earlier_run") else ""),
        f"{row['disk_mb']:.1f}",
        f"{100 * row['accuracy']:.1f}",
        interval if "seconds" in row else "",
        f"{100 * row['agreement']:.1f}",
        f"{row['flips']}",
        *(f"{speed['ratio']['median']:.1f} x" for speed in row["speeds"]),
        f"{row['seconds']:.0f}" if "seconds" in row else "",
    ]
