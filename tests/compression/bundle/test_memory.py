"""The bounds of control groups on memory: from recorded files, and in a real one."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compression.bundle.memory import left
from tests.control_groups import control_group

MB = 1 << 20


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/", {"memory.max": "max\n", "memory.stat": "anon 5\n"}, None),
        ("0::/", {}, None),
        ("0::/", {"memory.max": "1000\n", "memory.stat": "anon 300\nfile 600\ninactive_file 9\n"}, 700),
        (
            "0::/pod/box",  # less is left of the group above
            {"pod/memory.max": "900", "pod/memory.stat": "anon 800", "pod/box/memory.max": "500"},
            100,
        ),
        ("0::/of/the/host", {"memory.max": "1000", "memory.stat": "anon 1"}, 999),  # without a namespace of its own
        (
            "4:memory:/box\n3:cpu:/\n0::/",
            {"memory/box/memory.limit_in_bytes": "1000\n", "memory/box/memory.stat": "rss 1\ntotal_rss 400\n"},
            600,
        ),
        ("4:memory:/", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("0::/", {"memory.max": "1000", "memory.stat": "anon 1200"}, -200),
    ],
)
def test_what_a_control_group_leaves(
    membership: str, files: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert left(membership, tmp_path) == expected


@pytest.fixture
def group_of_300_mb() -> Iterator[Path]:
    """The file `cgroup.procs` of a control group with that bound."""
    bound = str(300 * MB)
    with control_group("memory", {"memory.max": bound, "memory.limit_in_bytes": bound}) as processes:
        yield processes


def test_what_is_taken_is_not_left(group_of_300_mb: Path) -> None:
    program = (
        f"import os; open({str(group_of_300_mb)!r}, 'w').write(str(os.getpid()))\n"
        "from compression.bundle.memory import memory_left, memory_limit\n"
        "before = memory_left(); taken = bytearray(os.urandom(100 << 20)); print(before, memory_left(), memory_limit())"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    before, after, limit = map(int, output.split())
    assert limit == 300 * MB
    assert 200 * MB < before <= limit
    assert 90 * MB < before - after < 120 * MB
