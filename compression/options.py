"""Options and types of options that several commands have in common."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from compression.data import Columns
from compression.tables import Format
from compression.tables.options import format_options, separator, text_pair_option

FILE = click.Path(path_type=Path, dir_okay=False)
DIRECTORY = click.Path(path_type=Path, file_okay=False)


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
        label_names: dict[str, str],
        form: Format,
        **options: Any,
    ) -> None:
        columns = Columns(
            text_column,
            label_column,
            ignored_labels=ignored_labels,
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
