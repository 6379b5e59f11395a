"""`make docs`: writes the reference pages from the code; `--check` only says whether they are as the code is."""

import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
from prometheus_client import Metric
from pydantic import BaseModel

import lathe
from compression.recipe import Budget, Recipe, Step, preset_names, preset_text
from docs.api import api_page
from service.errors import all_errors
from service.settings import PREFIX, Settings
from service.telemetry import Telemetry

ROOT = Path(__file__).resolve().parent.parent
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


def prometheus_rule() -> str:
    """The rules as Prometheus' operator takes them."""
    rules = (ROOT / "monitoring" / "rules" / "lathe.yml").read_text("utf-8")
    head = "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: lathe\nspec:\n"
    return (
        f"# Written by `make docs` from monitoring/rules/lathe.yml; do not edit.\n{head}{textwrap.indent(rules, '  ')}"
    )


def recipes_page() -> str:
    """Every step with its options, the bounds of a budget, and what each preset holds."""
    parts = [
        f"{NOTE}# Recipes\n",
        "A recipe is a YAML file, or one of the presets below: `lathe compress PARENT --recipe FILE`. "
        "[How compression works](compression.md) says what the steps do.\n",
        f"## A recipe\n\n{_model(Recipe)}",
        f"## Budget\n\n{_model(Budget)}",
        "## Steps\n",
        *(f"### `{_kind(step)}`\n\n{_model(step, leave_out=('step',))}" for step in get_args(get_args(Step)[0])),
        "## Presets\n",
        *(f"### `{name}`\n\n```yaml\n{preset_text(name)}```\n" for name in preset_names()),
    ]
    return "\n".join(parts)


def command_line_page() -> str:
    """The help of every command."""
    completion = 'eval "$(_LATHE_COMPLETE=bash_source lathe)"'
    parts = [
        f"{NOTE}# Command line\n",
        f"The tab key completes commands and options after `{completion}` in ~/.bashrc (`zsh_source`, `fish_source` in "
        "other shells).\n",
    ]

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
    "docs/settings.md": settings_page,
    "docs/errors.md": errors_page,
    "docs/metrics.md": metrics_page,
    "docs/cli.md": command_line_page,
    "docs/recipes.md": recipes_page,
    "docs/api.md": lambda: NOTE + api_page(),
    "deploy/kubernetes/base/prometheus-rule.yaml": prometheus_rule,
}


def _kind(step: type[BaseModel]) -> str:
    """A step's name in a recipe."""
    return str(get_args(step.model_fields["step"].annotation)[0])


def _model(model: type[BaseModel], leave_out: tuple[str, ...] = ()) -> str:
    """A model's docstring, and a table of its fields."""
    text = inspect.getdoc(model) or ""
    about, _, attributes = text.partition("\n\nAttributes:\n")
    meanings = {
        name: " ".join(meaning.split()).replace("|", "\\|")
        for name, meaning in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    }
    fields = {name: field for name, field in model.model_fields.items() if name not in leave_out}
    if not fields:
        return f"{about}\n"
    schema = model.model_json_schema()["properties"]
    rows = [
        f"| `{name}` | {'required' if field.is_required() else _value(field.get_default())} | "
        f"{_allowed(schema[name])} | {meanings[name]} |"
        for name, field in fields.items()
    ]
    return "\n".join([f"{about}\n", "| option | default | allowed | meaning |", "| --- | --- | --- | --- |", *rows, ""])


def _value(value: object) -> str:
    """A default as YAML has it; what is empty or a model of its own, in a word."""
    if value is None or value == ():
        return "none"
    if isinstance(value, BaseModel):
        return "no bounds"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _allowed(schema: dict[str, Any]) -> str:
    """What a field takes, from its JSON schema."""
    choices = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    (choice,) = choices
    values = choice.get("enum", [choice["const"]] if "const" in choice else [])
    if values:
        return ", ".join(f"`{value}`" for value in values)
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`"}
    words["array"] = "list of steps" if "discriminator" in choice.get("items", {}) else "list of names"
    bounds = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    limits = " ".join(f"{word} {choice[bound]:g}" for bound, word in bounds.items() if bound in choice)
    return " ".join(filter(None, [words.get(choice.get("type", ""), "see below"), limits]))


def _series(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def _default(value: object) -> str:
    if value is None or value in ({}, ()):
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
    stale = [name for name, page in PAGES.items() if _read(ROOT / name) != page()]
    if check:
        for name in stale:
            print(f"{name} is not as the code is; run make docs", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (ROOT / name).write_text(PAGES[name](), "utf-8")
        print(f"wrote {name}")
    return 0


def _read(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main())
