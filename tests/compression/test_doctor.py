import dataclasses
import importlib.metadata
import json
import os

import pytest
from click.testing import CliRunner

from compression.doctor import advice, examine, findings_text
from compression.measure.machine import Machine
from lathe import main

GOOD = Machine("cpu", ("avx512_vnni",), 4, 4, None, 8.0, "Linux 6", "3.11.7", "1.32.0")
CPU, GPU = ("CPUExecutionProvider",), ("CUDAExecutionProvider", "CPUExecutionProvider")
ONE = {"onnxruntime": "1.32.0"}


def test_where_all_is_well_there_is_nothing_to_mend() -> None:
    assert advice(GOOD, ONE, CPU, ()) == ()
    assert advice(GOOD, {"onnxruntime-gpu": "1.32.0"}, GPU, ("H100",)) == ()
    assert findings_text(dataclasses.replace(examine(), advice=())).endswith("Nothing to mend.")


@pytest.mark.parametrize(
    ("said", "machine", "packages", "providers", "gpus"),
    [
        ("both installed", GOOD, {**ONE, "onnxruntime-gpu": "1.32.0"}, CPU, ()),
        ("int8 bundles give the same answers", dataclasses.replace(GOOD, int8_instructions=()), ONE, CPU, ()),
        ("may use 2 of the machine's 4 cores", dataclasses.replace(GOOD, cores=2), ONE, CPU, ()),
        ("lathe serve starts 1 streams", dataclasses.replace(GOOD, cpu_quota=0.5), ONE, CPU, ()),
        ("may use 1.5 of", dataclasses.replace(GOOD, cpu_quota=1.5), ONE, CPU, ()),
        ("install the extra gpu", GOOD, ONE, CPU, ("H100",)),
        ("LATHE_DEVICE=cuda will not start", GOOD, {"onnxruntime-gpu": "1.32.0"}, GPU, ()),
    ],
)
def test_what_is_wrong_or_slow_is_said_with_a_remedy(
    said: str, machine: Machine, packages: dict[str, str], providers: tuple[str, ...], gpus: tuple[str, ...]
) -> None:
    (line,) = advice(machine, packages, providers, gpus)
    assert said in line


def test_the_command_describes_this_environment() -> None:
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    assert f"onnxruntime {importlib.metadata.version('onnxruntime')}" in result.stdout
    assert f"may use {len(os.sched_getaffinity(0))};" in result.stdout
    findings = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    assert findings["machine"]["machine_cores"] == os.cpu_count()
    assert findings["missing"]["compress"] == []
    assert "onnxruntime-gpu" in findings["missing"]["gpu"]
