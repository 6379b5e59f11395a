"""`lathe` as the tests call it."""

from pathlib import Path

from click.testing import CliRunner, Result

from compression.bundle import Bundle, open_bundle
from lathe import main
from tests.conftest import made_once


def run(*arguments: object) -> Result:
    """What comes of a command."""
    return CliRunner().invoke(main, list(map(str, arguments)))


def done(*arguments: object) -> Result:
    """What comes of a command that must succeed."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def said(result: Result) -> str:
    """The message of a command that must be refused."""
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def compressed(workspace: Path, parent: Path, data: Path, recipe: str | Path, *options: object) -> Bundle:
    """A bundle of this parent, made once for all tests."""

    def make(out: Path) -> None:
        kept = workspace / "kept"
        done("compress", parent, "--data", data, "--recipe", recipe, "--out", out, "--cache", kept, *options)

    return open_bundle(made_once(workspace / "bundles" / f"{parent.name}-{Path(recipe).stem}", make))
