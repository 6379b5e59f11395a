"""`make docs`: writes the reference pages from the code; `--check` only says whether they are as the code is."""

import sys
from collections.abc import Callable
from pathlib import Path

import click
from prometheus_client import Metric

import lathe
from service.errors import all_errors
from service.settings import PREFIX, Settings
from service.telemetry import Telemetry

FOLDER = Path(__file__).resolve().parent
NOTE = "<!-- Written by `make docs` from the code; do not edit. -->\n"


def settings_page() -> str:
    """Every setting: its variable, default and meaning."""
    rows = []
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{PREFIX}{name.upper()}` | {_default(field.default)} | {field.description} |")
    return _page("Settings", "Environment variables of the service.", "variable | default | what it sets", rows)


def errors_page() -> str:
    """Every error code: status, whether a retry can help."""
    rows = [
        f"| `{error.code}` | {int(error.status)} | {'yes' if error.retryable else 'no'} |"
        for error in sorted(all_errors(), key=lambda error: (error.status, error.code))
    ]
    text = 'Every failure has one shape: `{"error": {"code", "message", "retryable", "request_id"}}`.'
    return _page("Errors", text, "code | HTTP status | can a retry help", rows)


def metrics_page() -> str:
    """Every metric of the service's own: type, labels, meaning."""
    telemetry = Telemetry()
    telemetry.version("m")
    telemetry.versions("m", 0)
    rows = [
        f"| `{_series(metric)}` | {metric.type} | {metric.documentation} |"
        for metric in sorted(telemetry.collect(), key=lambda metric: metric.name)
        if metric.name.startswith("lathe_")
    ]
    return _page("Metrics", "What `GET /metrics` gives besides the process's own.", "metric | type | meaning", rows)


def command_line_page() -> str:
    """The help of every command."""
    parts = [f"{NOTE}# Command line\n"]

    def add(command: click.Command, path: str, parent: click.Context | None) -> None:
        context = click.Context(command, info_name=path.rsplit(" ", 1)[-1], parent=parent, max_content_width=110)
        context.terminal_width = 110
        parts.append(f"## {path}\n\n```\n{command.get_help(context)}\n```\n")
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                add(child, f"{path} {name}", context)

    add(lathe.main, "lathe", None)
    return "\n".join(parts)


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "errors.md": errors_page,
    "metrics.md": metrics_page,
    "cli.md": command_line_page,
}


def _series(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def _default(value: object) -> str:
    if value is None or value == {}:
        return ""
    if isinstance(value, dict):
        value = ",".join(f"{name}={location}" for name, location in value.items())
    return f"`{value}`"


def _page(title: str, text: str, heading: str, rows: list[str]) -> str:
    columns = " | ".join("---" for _ in heading.split("|"))
    return "\n".join([f"{NOTE}# {title}\n", f"{text}\n", f"| {heading} |", f"| {columns} |", *rows, ""])


def main() -> int:
    """Writes the pages, or with --check returns 1 when one differs."""
    check = "--check" in sys.argv[1:]
    stale = [name for name, page in PAGES.items() if _read(FOLDER / name) != page()]
    if check:
        for name in stale:
            print(f"docs/{name} is not as the code is; run make docs", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (FOLDER / name).write_text(PAGES[name](), "utf-8")
        print(f"wrote docs/{name}")
    return 0


def _read(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main())
