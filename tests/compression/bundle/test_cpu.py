"""Cores that a process may use: from recorded files of control groups, and of a process that was given one core."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compression.bundle import cpu
from compression.bundle.cpu import cpu_quota, usable_cores
from tests.control_groups import control_group


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/", {"cpu.max": "max 100000\n"}, None),
        ("0::/", {}, None),
        ("0::/pod/box", {"pod/cpu.max": "200000 100000", "pod/box/cpu.max": "max 100000"}, 2.0),  # of the group above
        ("0::/pod/box", {"pod/cpu.max": "200000 100000", "pod/box/cpu.max": "50000 100000"}, 0.5),
        ("0::/of/the/host", {"cpu.max": "100000 100000"}, 1.0),  # in a container without a namespace of its own
        (
            "4:memory:/box\n3:cpu,cpuacct:/box",
            {"cpu,cpuacct/box/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n"},
            3.0,
        ),
        (
            "1:cpu:/\n0::/",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
    ],
)
def test_the_quota_of_a_control_group(
    membership: str, files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cpu_quota(membership, tmp_path) == quota


@pytest.mark.parametrize(("quota", "usable"), [(None, 8), (0.5, 1), (1.5, 1), (2.0, 2), (64.0, 8)])
def test_threads_follow_quota_and_affinity(quota: float | None, usable: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "cpu_quota", lambda membership, root: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert usable_cores() == usable


def test_a_process_that_was_given_one_core_starts_one_stream() -> None:
    program = (
        "from service.engine.devices import streams; from service.setting_types import Device; "
        "print(streams(Device()), streams(Device('cuda', (0, 1))))"
    )
    command = [sys.executable, "-c", program]
    taskset = shutil.which("taskset")
    assert taskset is not None
    core = str(min(os.sched_getaffinity(0)))
    output = subprocess.run([taskset, "-c", core, *command], check=True, capture_output=True, text=True).stdout
    assert output.split() == ["1", "4"]


@pytest.fixture
def group_of_one_core() -> Iterator[Path]:
    """The file `cgroup.procs` of a control group with a quota of one core."""
    with control_group("cpu", {"cpu.cfs_quota_us": "100000", "cpu.max": "100000 100000"}) as processes:
        yield processes


STREAMS = (
    "from service.engine.devices import streams; from service.setting_types import Device; print(streams(Device()))"
)
THREADS_OF_TORCH = """
import lathe, sys
try:
    lathe.main(["recipe", "list"])
except SystemExit:
    import torch; print(torch.get_num_threads())
"""


@pytest.mark.parametrize("program", [STREAMS, THREADS_OF_TORCH], ids=["streams", "threads of torch"])
def test_under_a_quota_of_one_core_there_is_one(group_of_one_core: Path, program: str) -> None:
    enter = f"import os; open({str(group_of_one_core)!r}, 'w').write(str(os.getpid()))\n"
    command = [sys.executable, "-c", enter + program]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    assert output.split()[-1] == "1"
