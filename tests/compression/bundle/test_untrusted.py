"""Bundles that are not what they seem: nothing is loaded that the manifest does not list, or that would not end."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import zstandard

from compression.bundle import Bundle, BundleError, Runtime, open_bundle, write_bundle
from compression.bundle.manifest import RuntimeOptions
from service.engine.engine import Engine
from service.setting_types import Device
from tests.handmade import make_bundle, model_of

WEIGHTS = "model.onnx.data"


def rewritten(bundle: Bundle, without: tuple[str, ...] = (), **files: bytes) -> Bundle:
    """The same bundle with other files; the names have `_` in place of a dot."""
    kept = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files if name not in without}
    given = {name.replace("_", "."): content for name, content in files.items()}
    write_bundle(bundle.path, bundle.manifest, kept | given)
    return open_bundle(bundle.path)


def apart(location: str) -> tuple[bytes, bytes]:
    """A model whose weights are in a file of that name, and the content of the file."""
    model = onnx.load_from_string(model_of())
    (table,) = (tensor for tensor in model.graph.initializer if tensor.name == "table")
    weights = table.raw_data
    table.ClearField("raw_data")
    table.data_location = onnx.TensorProto.EXTERNAL
    table.external_data.add(key="location", value=location)
    table.external_data.add(key="length", value=str(len(weights)))
    return bytes(model.SerializeToString()), bytes(weights)


def answers(runtime: Runtime) -> np.ndarray:
    return runtime.logits([runtime.encode("good bad good")])


def test_weights_in_a_file_of_their_own_are_loaded_and_do_not_change_under_a_version(tmp_path: Path) -> None:
    model, weights = apart(WEIGHTS)
    plain = make_bundle(tmp_path / "bundle")
    expected = answers(Runtime.of(plain))
    bundle = rewritten(plain, model_onnx=model, model_onnx_data=weights)
    runtime = Runtime.of(bundle)
    assert (answers(runtime) == expected).all()
    with (bundle.path / WEIGHTS).open("r+b") as file:  # in place: whoever has mapped the file sees it
        file.write(b"\x7f" * len(weights))
        file.flush()
        os.fsync(file.fileno())
    assert (answers(runtime) == expected).all()
    with pytest.raises(BundleError, match=r"model\.onnx\.data: sha256 is"):
        Runtime.of(bundle)


@pytest.mark.parametrize("location", [WEIGHTS, "other.bin", "../outside.bin", "ABSOLUTE"])
def test_weights_that_the_manifest_does_not_list_are_not_loaded(
    tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, weights = apart(str(tmp_path / "absolute.bin") if location == "ABSOLUTE" else location)
    bundle = rewritten(make_bundle(tmp_path / "bundle"), model_onnx=model)
    for place in (bundle.path, tmp_path):
        for name in (WEIGHTS, "other.bin", "outside.bin", "absolute.bin"):
            (place / name).write_bytes(weights)
    with pytest.raises(BundleError, match="bundle: ONNX Runtime cannot load the model"):
        Runtime.of(bundle)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "golden.json"])
def test_what_was_opened_and_has_changed_since_is_not_loaded(tmp_path: Path, name: str) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (bundle.path / name).write_bytes((make_bundle(tmp_path / "other", {"new": (3.0, 0.0)}).path / name).read_bytes())
    with pytest.raises(BundleError, match=rf"{name}: sha256 is"):
        Engine(bundle, Device()).verify()


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "golden.json", "bundle.json"])
def test_a_link_that_leads_out_of_the_bundle_is_refused(tmp_path: Path, name: str) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (bundle.path / name).rename(tmp_path / "elsewhere")
    (bundle.path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=rf"{name}: a link that leads out"):
        open_bundle(bundle.path)


def test_a_link_within_the_bundle_is_taken(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")  # as Kubernetes mounts a volume of files
    (bundle.path / "..data").mkdir()
    for name in bundle.manifest.files:
        (bundle.path / name).rename(bundle.path / "..data" / name)
        (bundle.path / name).symlink_to(Path("..data", name))
    assert open_bundle(bundle.path).version == bundle.version


@pytest.mark.parametrize("name", ["tokenizer.json", "golden.json", "bundle.json"])
def test_a_file_larger_than_any_is_refused_before_it_is_read(tmp_path: Path, name: str) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    os.truncate(bundle.path / name, 8 * 2**30)  # holes, on a disk
    with pytest.raises(BundleError, match=rf"{name}: has 8589934592 bytes"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("sized", [True, False])
def test_a_model_that_unpacks_to_more_than_models_do_is_refused(tmp_path: Path, sized: bool) -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=sized).compress(bytes(200 * 2**20))
    bundle = rewritten(make_bundle(tmp_path / "bundle"), without=("model.onnx",), model_onnx_zst=bomb)
    with pytest.raises(BundleError, match=r"model\.onnx\.zst: .*unpack"):
        bundle.model()


def test_a_model_that_is_stored_compressed_is_loaded(tmp_path: Path) -> None:
    plain = make_bundle(tmp_path / "bundle")
    packed = zstandard.ZstdCompressor().compress(plain.model())
    bundle = rewritten(plain, without=("model.onnx",), model_onnx_zst=packed)
    Engine(bundle).verify()


@pytest.mark.parametrize("token", [-1, 4, 2**31])
def test_a_padding_id_that_is_no_token_is_refused(tmp_path: Path, token: int) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    options = RuntimeOptions(pad_token_id=token, batch_exact=True)
    manifest = bundle.manifest.model_copy(update={"runtime": options})
    files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    with pytest.raises(BundleError, match=f"pad_token_id is {token}"):
        Runtime.of(write_bundle(bundle.path, manifest, files))
