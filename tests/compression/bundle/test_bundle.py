import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compression.bundle import Bundle, BundleError, Runtime, open_bundle, softmax, write_bundle


@pytest.fixture
def copy(sentiment_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    shutil.copytree(sentiment_bundle.path, tmp_path / "copy")
    return tmp_path / "copy"


def test_what_was_written_is_what_is_opened(sentiment_bundle: Bundle) -> None:
    opened = open_bundle(sentiment_bundle.path)
    assert opened.manifest == sentiment_bundle.manifest
    assert opened.version == sentiment_bundle.version
    assert len(opened.version) == 12


def test_a_bundle_is_opened_by_a_string_too(sentiment_bundle: Bundle) -> None:
    assert open_bundle(str(sentiment_bundle.path)).version == sentiment_bundle.version


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "report.html", "README.md", "bundle.json"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_flipped_byte_is_refused_and_its_file_named(copy: Path, name: str, part: float) -> None:
    content = bytearray((copy / name).read_bytes())
    content[int(part * len(content))] ^= 0x01
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "report.html", "bundle.json"])
def test_a_missing_file_is_refused_and_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        open_bundle(copy)


def test_another_schema_version_is_refused(copy: Path) -> None:
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["schema_version"] = 99
    (copy / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="schema_version is 99"):
        open_bundle(copy)


def test_version_names_what_the_bundle_is(sentiment_bundle: Bundle) -> None:
    manifest = sentiment_bundle.manifest
    report = {**manifest.files, "report.html": "0", "README.md": "0"}
    slower = manifest.figures.model_copy(update={"batch_deviation": 0.5})
    same = manifest.model_copy(update={"files": report, "figures": slower, "tools": {}})
    assert same.version() == manifest.version()
    assert same.digest() != manifest.digest()
    changes: list[dict[str, Any]] = [
        {"files": {**manifest.files, "model.onnx": "0"}},
        {"files": {**manifest.files, "model.onnx.data": "0"}},
        {"files": {**manifest.files, "tokenizer.json": "0"}},
        {"labels": ("positive", "negative")},
        {"max_length": 32},
        {"runtime": manifest.runtime.model_copy(update={"temperature": 3.0})},
        {"recipe": {}},
    ]
    for update in changes:
        assert manifest.model_copy(update=update).version() != manifest.version(), update


def test_a_changed_version_is_refused(copy: Path) -> None:
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["version"] = "0" * 64
    (copy / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="version"):
        open_bundle(copy)


def test_the_manifest_cannot_point_outside(copy: Path) -> None:
    bundle = open_bundle(copy)
    escaping = bundle.manifest.model_copy(update={"files": {**bundle.manifest.files, "../x": "0"}})
    (copy / "bundle.json").write_text(escaping.to_json())
    with pytest.raises(BundleError, match=r"'\.\./x' is no plain file name"):
        open_bundle(copy)


def test_a_directory_that_is_no_bundle_is_never_overwritten(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="not a bundle"):
        write_bundle(tmp_path, sentiment_bundle.manifest, {"model.onnx": b""})
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_encoding_cuts_to_the_window_and_says_so(sentiment_bundle: Bundle) -> None:
    runtime = Runtime.of(sentiment_bundle)
    long, short = runtime.encode("good " * 100), runtime.encode("good")
    assert (len(long), long.truncated) == (64, True)
    assert (len(short), short.truncated) == (3, False)


def test_batches_are_padded_on_the_right_and_masked(sentiment_bundle: Bundle) -> None:
    runtime = Runtime.of(sentiment_bundle)
    feed = runtime.feed([runtime.encode("good bad good"), runtime.encode("good")])
    assert feed["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert feed["input_ids"][1, 3:].tolist() == [0, 0]


def test_softmax_is_a_distribution_and_the_temperature_flattens_it() -> None:
    logits = np.array([[1000.0, 998.0], [-5, 5]], np.float32)
    assert softmax(logits).sum(axis=1) == pytest.approx([1, 1])
    assert softmax(logits, 2.0).max() < softmax(logits).max()
