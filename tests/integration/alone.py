"""An environment that holds only what the wheel asks for, made in seconds of what is installed here.

Each file of each package is a link to the one here, so nothing is downloaded; what none of them asks for is not there.
"""

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Collection, Iterable
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY

PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")
_PURE = Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)


def make_wheel(folder: Path) -> Path:
    """The wheel in this new folder, as `pip wheel .` makes it."""
    source = folder / "source"  # building leaves files behind, which a later wheel would hold
    for name in ("compression", "service"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "lathe.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    command = [sys.executable, *PIP, "wheel", "--no-deps", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(source)
    (wheel,) = folder.glob("lathe-*.whl")
    return wheel


def asked_for(wheel: Path, extras: Collection[str]) -> list[Distribution]:
    """The packages that pip would install with `wheel[extras]`, each in the version that is here.

    Raises:
        PackageNotFoundError: one of them is not here.
    """
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()

    def add(requires: Iterable[str], extras: Collection[str]) -> None:
        for requirement in map(Requirement, requires):
            if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                continue
            name = canonicalize_name(requirement.name)
            found.setdefault(name, distribution(name))
            wanted = {("", name), *((extra, name) for extra in requirement.extras)} - seen
            if wanted:
                seen.update(wanted)
                add(found[name].requires or (), requirement.extras)

    with zipfile.ZipFile(wheel) as file:
        root = zipfile.Path(file)
        (metadata,) = (entry for entry in root.iterdir() if entry.name.endswith(".dist-info"))
        add(PathDistribution(metadata).requires or (), extras)
    return list(found.values())


def make_environment(folder: Path, wheel: Path, extras: Collection[str]) -> Path:
    """Makes the environment in a new folder; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = folder / _PURE
    for package in asked_for(wheel, extras):
        for file in package.files or ():
            if ".." in file.parts:  # programs
                continue
            link = packages / file
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(Path(str(file.locate())).resolve())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    return folder / "bin" / "python"
