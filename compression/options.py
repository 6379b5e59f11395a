"""Options and types of options that several commands have in common."""

import math
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from compression.bundle import HeadTail, Windows
from compression.data import Columns
from compression.tables import Format
from compression.tables.options import format_options, separator, text_pair_option

FILE = click.Path(path_type=Path, dir_okay=False)
DIRECTORY = click.Path(path_type=Path, file_okay=False)
_OF_WINDOWS = ("stride", "join", "max_windows")


class FiniteRange(click.FloatRange):
    """Which nan is not in, and infinity neither."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        converted = super().convert(value, param, ctx)
        return converted if math.isfinite(converted) else self.fail(f"{value} is not a finite number.", param, ctx)


def numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Callback of an option that takes whole numbers with commas between them."""
    parts = value.split(",") if value is not None else []
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{value!r} is not a list of whole numbers from 1 on, like 8,16", context, parameter)
    return tuple(int(part) for part in parts) or None


def pairs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Callback of an option that can be given several times, each time as VALUE=LABEL."""
    for value in values:
        if not all(value.partition("=")[::2]):
            raise click.BadParameter(f"{value!r} is not VALUE=LABEL, like 0=negative", context, parameter)
    return dict(value.split("=", 1) for value in values)


def long_texts_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say what is read of a long text; the command gets `long_texts`."""

    @wraps(command)
    def run(*args: Any, long_texts: str, **options: Any) -> None:
        windows = {name: value for name in _OF_WINDOWS if (value := options.pop(name)) is not None}
        if windows and long_texts != "windows":
            name = next(iter(windows)).replace("_", "-")
            raise click.UsageError(f"--{name} is of windows; pass --long-texts windows too")
        setting = HeadTail() if long_texts == "head-tail" else Windows(**windows) if long_texts == "windows" else None
        command(*args, long_texts=setting, **options)

    decorated: Callable[..., None] = run
    for option in (
        click.option("--max-windows", type=click.IntRange(2, 256), help="Of a text; the rest is cut.  [default: 16]"),
        click.option("--join", type=click.Choice(["mean", "max"]), help="Of the windows' logits.  [default: mean]"),
        click.option(
            "--stride",
            type=click.IntRange(1),
            help="Tokens from the start of a window to that of the next.  [default: what a window has room for]",
        ),
        click.option(
            "--long-texts",
            type=click.Choice(["cut", "head-tail", "windows"]),
            default="cut",
            show_default=True,
            help="What is read of a text that is longer than the window: what fits; a quarter of the window from its "
            "beginning and three from its end; or all of it in windows, whose logits are joined.",
        ),
    ):
        decorated = option(decorated)
    return decorated


def columns_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say how a data file is written and which columns hold what; the command gets `columns`."""

    @wraps(command)
    def run(
        *args: Any,
        text_column: str,
        text_pair_column: str | None,
        label_column: str,
        label_separator: str | None,
        ignored_labels: tuple[str, ...],
        outside_labels: tuple[str, ...],
        label_names: dict[str, str],
        form: Format,
        **options: Any,
    ) -> None:
        columns = Columns(
            text_column,
            label_column,
            ignored_labels=ignored_labels,
            outside_labels=outside_labels,
            form=form,
            label_separator=label_separator,
            names=label_names,
            text_pair=text_pair_column,
        )
        command(*args, columns=columns, **options)

    decorated = format_options(run)
    for option in (
        click.option(
            "--ignore-label", "ignored_labels", multiple=True, help="Rows with this label count as unlabelled."
        ),
        click.option(
            "--outside-label",
            "outside_labels",
            multiple=True,
            help="Rows with this label are texts that the model is not made for: it should abstain from them, and is "
            "judged by that.",
        ),
        click.option(
            "--label-name",
            "label_names",
            multiple=True,
            metavar="VALUE=LABEL",
            callback=pairs,
            help="What stands for a label of the model in the file, as 0=negative; can be given several times.",
        ),
        click.option(
            "--label-separator",
            callback=separator,
            help="Between the labels of a text that may have several, in one cell, such as ';'. The separator alone is "
            "a text that has none of them; an empty cell is one without labels. Lists in jsonl, json and parquet need "
            "none.",
        ),
        click.option("--label-column", default="label", show_default=True),
        text_pair_option,
        click.option("--text-column", default="text", show_default=True),
    ):
        decorated = option(decorated)
    return decorated
