"""Who may import whom, held over the syntax trees; and what a serving environment can do without torch."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path for package in ("compression", "service") for path in (ROOT / package).rglob("*.py"))
LEAVES = (
    "service.settings",
    "service.setting_types",
    "service.errors",
    "service.tenant",
    "service.api.schemas",
    "compression.recipe",
    "compression.errors",
)
SHARED = ("compression.bundle", "compression.tables")
# What each wing of the service may import of the service; its own modules always.
WINGS = {
    "http": {"access", "audit", "errors", "redaction", "settings", "telemetry", "tenant"},
    "api": {
        "__version__",
        "access",
        "errors",
        "http",
        "masking",
        "models",
        "redaction",
        "settings",
        "telemetry",
        "tenant",
    },
    "models": {
        "batching",
        "engine",
        "errors",
        "masking",
        "redaction",
        "setting_types",
        "settings",
        "telemetry",
        "tenant",
    },
    "engine": {"errors", "setting_types"},
    "batching": {"errors", "redaction", "telemetry", "tenant"},
    "access": {"errors", "tenant"},
    "audit": {"errors"},
    "masking": {"errors"},
    "scoring": {"batching", "engine", "errors", "setting_types", "telemetry"},
}


def name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every imported module as a dotted name, and whether the import stands at the top level."""
    tree = ast.parse(path.read_text("utf-8"))
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module), id(node) in top
            yield from ((f"{node.module}.{alias.name}", id(node) in top) for alias in node.names)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def users_of(package: str) -> set[str]:
    return {name(path) for path in MODULES if any(within(module, package) for module, _ in imports(path))}


def test_compression_never_imports_service() -> None:
    assert not {user for user in users_of("service") if within(user, "compression")}


def test_service_takes_only_the_bundle_and_the_reader_of_files_from_compression() -> None:
    for path in MODULES:
        if within(name(path), "service"):
            taken = {module for module, _ in imports(path) if within(module, "compression")}
            if name(path) == "service":  # whose import of the package switches telemetry off
                taken -= {"compression"}
            assert all(any(within(module, wing) for wing in SHARED) for module in taken), path


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_import_nothing_but_errors_and_types(leaf: str) -> None:
    (path,) = (path for path in MODULES if name(path) == leaf)
    ours = {module for module, _ in imports(path) if within(module, "service") or within(module, "compression")}
    assert {module for module in ours if not module.partition(".")[2].startswith(("errors", "setting_types"))} == set()


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_of_the_service_imports_only_what_lies_below(wing: str) -> None:
    for path in MODULES:
        if within(name(path), f"service.{wing}"):
            seen = {module.split(".")[1] for module, _ in imports(path) if module.startswith("service.")}
            assert seen <= {wing, *WINGS[wing]}, path


@pytest.mark.parametrize("wing", SHARED)
def test_what_both_packages_use_is_complete_by_itself(wing: str) -> None:
    for path in MODULES:
        if within(name(path), wing):
            ours = {module for module, _ in imports(path) if within(module, "compression")}
            assert all(within(module, wing) or within(module, "compression.errors") for module in ours)


@pytest.mark.parametrize("word", ["Answer", "Candidate", "Change", "Scored", "Texts", "_Body"])
def test_a_word_of_the_design_means_one_thing(word: str) -> None:
    definition = re.compile(rf"^(?:class {word}\b|{word} ?[:=])", re.MULTILINE)
    assert len([path for path in MODULES if definition.search(path.read_text("utf-8"))]) <= 1


def test_libraries_stay_where_they_belong() -> None:
    assert users_of("jinja2") == {"compression.report.rendering"}  # one environment
    assert users_of("bentoml") == {"service.app", "compression.store"}
    assert all(within(user, "service.telemetry") for user in users_of("prometheus_client"))


def test_the_environment_is_read_in_settings_and_command_lines_only() -> None:
    readers = {
        name(path)
        for path in MODULES
        if any(part in path.read_text("utf-8") for part in ("os.environ", "os.getenv", "envvar="))
    }
    # The package itself sets what keeps libraries from reporting to their makers.
    assert readers == {
        "compression",
        "service.environment",
        "service.cli",
        "service.access.commands",
        "compression.cli.folders",
        "compression.cli.keeping",
    }


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "optimum", "peft", "onnx", "sklearn", "scipy"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Block())
"""


@pytest.mark.parametrize("module", ["service.app", "service.cli", "compression.bundle", "compression.tables", "lathe"])
def test_imports_without_what_only_compression_needs(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"{BLOCKED}\nimport {module}"], check=True, cwd=ROOT)
