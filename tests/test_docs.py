"""The documents say what the code does, and the README's commands exist and run."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import get_args

import click
import pytest
import yaml

from compression.recipe import Step, preset_names, preset_text
from lathe import main
from service.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
READMES = ("README.md", "README.zh-CN.md")
HEADING = re.compile(r"^(#{1,4}) ", re.MULTILINE)


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def commands(name: str) -> list[str]:
    """The lines of a document's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", read(name), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def test_reference_pages_are_as_the_code_is() -> None:
    subprocess.run([sys.executable, "-m", "docs.generate", "--check"], check=True, cwd=ROOT)


def test_every_option_of_every_step_is_documented() -> None:
    page = read("docs/recipes.md")
    for step in get_args(get_args(Step)[0]):
        (name,) = get_args(step.model_fields["step"].annotation)
        section = page.partition(f"### `{name}`\n")[2].partition("\n### ")[0]
        rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \| [^|]+", section, re.MULTILINE)
        assert rows == [field for field in step.model_fields if field != "step"], name
    for name in preset_names():
        assert f"### `{name}`\n\n```yaml\n{preset_text(name)}```" in page


def test_both_readmes_are_in_step() -> None:
    english, chinese = (read(name) for name in READMES)
    assert commands("README.md") == commands("README.zh-CN.md")
    assert HEADING.findall(english) == HEADING.findall(chinese)
    numbers = [re.findall(r"\d+\.\d+", text) for text in (english, chinese)]
    assert sorted(numbers[0]) == sorted(numbers[1])


def test_make_targets_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    named = {command.split()[1] for command in commands("README.md") if command.startswith("make ")}
    assert named
    assert named <= targets


def test_lathe_commands_in_the_readme_parse() -> None:
    lines = [command for command in commands("README.md") if command.startswith("lathe ")]
    assert lines
    for line in lines:
        command: click.Command = main
        context, words = click.Context(command), line.split()[1:]
        while isinstance(command, click.Group):
            name, found, words = command.resolve_command(context, words)
            assert found is not None, line
            command, context = found, click.Context(found, context, name)
        command.make_parser(context).parse_args(words)


def test_settings_named_anywhere_exist() -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("monitoring/*.md"),
        *ROOT.glob("loadtests/*.md"),
    ]:
        named = set(re.findall(rf"(?<!_){PREFIX}[A-Z_]+[A-Z]", path.read_text("utf-8")))
        assert named <= known, f"{path.name}: {named - known}"


def test_files_that_documents_link_to_exist() -> None:
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("models/*/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
            assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} links to {target}"


def test_contributing_names_every_module_once() -> None:
    named = Counter(re.findall(r"`((?:service|compression)/[a-z_0-9/]+\.py)`", read("CONTRIBUTING.md")))
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("service", "compression")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert named == Counter(modules)


def test_the_image_has_the_tested_versions_by_their_hashes_and_nothing_to_train_with() -> None:
    assert yaml.safe_load(read("bentofile.yaml"))["python"]["requirements_txt"] == "requirements.lock.txt"
    tested = {line.lower().replace("_", "-") for line in read("constraints.txt").splitlines() if "==" in line}
    names = {line.split("==")[0] for line in tested}
    lock = read("requirements.lock.txt")
    locked = re.findall(r"^([a-z0-9-]+)(==[^ ]+).*\\\n    --hash=sha256:", lock, re.MULTILINE)
    assert len(locked) == len(re.findall(r"^\S", lock, re.MULTILINE))
    packages = {name for name, _ in locked}
    assert {f"{name}{version}" for name, version in locked if name in names} <= tested
    assert {"bentoml", "onnxruntime", "starlette", "tokenizers", "uvicorn"} <= packages & names
    assert not packages & {"torch", "transformers", "optimum", "onnxscript"}


@pytest.mark.parametrize("adapter", sorted(path.parent.name for path in ROOT.glob("models/*/adapter_config.json")))
def test_shipped_adapters_are_small_and_have_a_card(adapter: str) -> None:
    folder = ROOT / "models" / adapter
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000
    card = (folder / "README.md").read_text("utf-8")
    for word in ("lathe finetune", "Licence", "accuracy"):
        assert word in card


def test_every_threat_has_a_test_that_there_is() -> None:
    _, _, table = (ROOT / "SECURITY.md").read_text("utf-8").partition("## Threats")
    rows = [row for row in table.splitlines() if row.startswith("| ") and not row.startswith(("| threat", "| ---"))]
    assert rows
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE), row
