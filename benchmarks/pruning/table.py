"""Writes README.md from results/*.json."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_NOTE = "<!-- Written by benchmarks/pruning/run.py from results/*.json; do not edit. -->"
_TITLE = "# Pruning heads and neurons, beside Kwon et al. (2022) and K-prune"
_TEXT = """\
    python -m benchmarks.pruning.run --data-root DATA

`DATA` holds `sst2/` and `banking77/`, each with `train.parquet`, `validation.parquet` and `test.parquet` (columns
`text`, `label`); they are not part of this repository.

All methods get the same parent, the same 1,024 unlabelled texts of the train split (at least 5 words, cut at 18,000
tokens, a fifth held out), the same table of measured costs, and the same refits from the bottom up
(`compression/prune/upwards.py`). They differ in which units go, and how many of each sublayer:

| method | where | how |
| --- | --- | --- |
| Lathe | `compression/prune/masks.py` | Fisher mask search, rearrangement; neurons in groups of 16 |
| Kwon et al. 2022 | the same | the same, each neuron for itself |
| elimination | `elimination.py` | elimination with exact refitting; widths by measured divergence, searched |
| K-prune | `kprune.py` | Fisher information and a tenth of representation over cost, measured anew at each sublayer; \
one global threshold |
| K-prune, Fisher alone | `kprune.py` | the same without representation |

Models are judged before recovery and int8, by texts that no method saw. The divergence is KL(parent || model), mean
over texts. Each figure is the mean over random draws of the calibration texts, with the standard deviation where there
are several. Elimination takes multiples of 32 neurons; Kwon and K-prune any width, at the price of the straight line
through the costs. All share the refits of `compression/prune/upwards.py`."""


def write_readme(results: Path) -> None:
    """Writes README.md beside the folder of results."""
    (results.parent / "README.md").write_text(markdown(results), "utf-8")


def markdown(results: Path) -> str:
    """The comparison, one table for each data set."""
    sections = [_section(json.loads(path.read_text("utf-8"))) for path in sorted(results.glob("*.json"))]
    parts = [_NOTE, _TITLE, _TEXT, *(part for section in sections for part in section)]
    if not sections:
        parts.append("No results yet: this comparison has not been run to its end.")
    return "\n\n".join(parts) + "\n"


def _section(result: dict[str, Any]) -> list[str]:
    lines = [
        "| share kept | method | divergence | agreement, % | accuracy, % | CPU, s |",
        "| ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    rows = result["rows"]
    for keep in dict.fromkeys(row["keep"] for row in rows):
        for method in dict.fromkeys(row["method"] for row in rows):
            found = [row for row in rows if (row["keep"], row["method"]) == (keep, method)]
            lines += [_line(keep, method, found)] if found else []
    draws = len({row["seed"] for row in rows})
    judged = f"{result['judged']['texts']} texts of {' and '.join(result['judged']['splits'])}"
    return [
        f"## {result['set']}",
        f"Parent: `{result['parent']}`, accuracy {100 * result['accuracy']:.1f} %. Judged by {judged}; draws: {draws}. "
        f"{result['machine']['cpu']}, one thread.",
        "\n".join(lines),
    ]


def _line(keep: float, method: str, rows: Sequence[dict[str, Any]]) -> str:
    cells = [
        f"{keep}",
        method,
        _spread([row["divergence"] for row in rows], 4),
        _spread([100 * row["agreement"] for row in rows], 1),
        _spread([100 * row["accuracy"] for row in rows], 1),
        f"{statistics.mean(row['cpu_seconds'] for row in rows):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _spread(values: Sequence[float], digits: int) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
