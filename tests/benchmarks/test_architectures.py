"""The matrix of architectures in its small form: hardly trained, and few texts."""

import json
from pathlib import Path

import pytest

from benchmarks.architectures import ARCHITECTURES, judged, table
from compression.train.finetune import FinetuneOptions


@pytest.mark.slow
def test_what_is_made_of_an_architecture(tmp_path: Path) -> None:
    row = judged("modernbert", tmp_path, FinetuneOptions(epochs=1))
    for recipe in ("safe", "balanced"):
        assert row[recipe]["batch_exact"]
        assert row[recipe]["agreement"] > 0.9
    _, _, line = table({"modernbert": row})
    assert line.startswith(
        f"| modernbert | {row['safe']['agreement']:.1%} | {row['balanced']['agreement']:.1%} | yes |"
    )


def test_the_published_matrix_has_every_architecture() -> None:
    results = json.loads(Path("benchmarks/architectures.json").read_text("utf-8"))
    assert set(results["architectures"]) == set(ARCHITECTURES)
    assert "\n".join(table(results["architectures"])) in Path("docs/compression.md").read_text("utf-8")
