"""Which devices there are, what runs on them, and what is refused."""

from pathlib import Path

import onnxruntime
import pytest

from compression.bundle import Bundle, BundleError, Runtime
from service.engine import devices
from service.engine.devices import load, try_out
from service.errors import ConfigurationError
from service.setting_types import Device
from tests.handmade import make_bundle

# In every build of ONNX Runtime, started like any other provider, and it computes no operator of ours.
USELESS = "AzureExecutionProvider"


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("cpu", Device("cpu", ())),
        ("cuda", Device("cuda", (0,))),
        ("cuda:1", Device("cuda", (1,))),
        ("tensorrt:0,2", Device("tensorrt", (0, 2))),
        ("cuda:1,1", Device("cuda", (1,))),
    ],
)
def test_a_device_is_read(text: str, device: Device) -> None:
    assert Device.parse(text) == device
    assert Device.parse(str(device)) == device


@pytest.mark.parametrize("text", ["", "gpu", "cpu:0", "cuda:", "cuda:a", "cuda:0,", "cuda:-1", "CUDA", "cuda:٣"])
def test_another_device_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not cpu, cuda, tensorrt"):
        Device.parse(text)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gpu_that_does_not_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build for GPUs names CUDA also where there is no driver; the session is then one on the CPU."""
    bundle = make_bundle(tmp_path / "bundle")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(ConfigurationError, match=r"'cuda:0': ONNX Runtime could not start CUDAExecutionProvider"):
        load(bundle, Device.parse("cuda"))


def test_a_bundle_that_the_gpu_cannot_compute_is_an_error(
    sentiment_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_CUDA", USELESS)
    monkeypatch.setitem(devices._PROVIDERS, "cuda", (USELESS, "CPUExecutionProvider"))
    with pytest.raises(BundleError, match=r"MatMul, MatMulIntegerToFloat would run on the CPU.* --recipe gpu"):
        load(sentiment_bundle, Device.parse("cuda"))


def test_what_cannot_be_served_is_found_in_another_process(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    try_out([bundle], Device())
    with pytest.raises(ConfigurationError, match=r"install the extra `gpu`"):
        try_out([bundle], Device.parse("cuda"))


def test_tensorrt_is_told_every_shape_that_a_batch_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    bundle = make_bundle(tmp_path / "bundle")
    (trt, *rest), _ = devices.placements(bundle, Device.parse("tensorrt:0,1"))
    assert isinstance(trt, tuple)
    provider, options = trt
    assert (provider, options["device_id"]) == ("TensorrtExecutionProvider", "0")
    assert rest == [("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0"}), "CPUExecutionProvider"]
    inputs = Runtime.of(bundle).inputs
    longest = bundle.manifest.max_length
    assert options["trt_profile_min_shapes"] == ",".join(f"{name}:1x1" for name in inputs)
    assert options["trt_profile_max_shapes"] == ",".join(f"{name}:256x{longest}" for name in inputs)
    assert options["trt_engine_cache_path"].startswith(f"{tmp_path}/.cache/lathe/tensorrt/")
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match=r"cannot be written .* set HOME"):
        devices.placements(bundle, Device.parse("tensorrt"))
