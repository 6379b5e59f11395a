"""The options of every command that reads a file of rows."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from compression.tables.table import Format


def separator(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Callback of an option that names what stands between labels."""
    if value is not None and not value.strip():
        raise click.BadParameter(
            "is empty, or spaces alone; name what stands between labels, such as ;", context, parameter
        )
    return value


text_pair_option = click.option(
    "--text-pair-column", help="The second text of each row, where the model reads pairs of texts."
)


def format_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command --delimiter and --encoding, which it gets as `form`, a Format."""

    @wraps(command)
    def run(*args: Any, delimiter: str | None, encoding: str | None, **options: Any) -> None:
        tab = delimiter is not None and delimiter.lower() in {"tab", "\\t"}
        command(*args, form=Format(encoding, "\t" if tab else delimiter), **options)

    for option in (
        click.option("--encoding", help="Of text files, such as gbk or latin-1.  [default: utf-8, or by its mark]"),
        click.option(
            "--delimiter", help="Between the cells of csv, such as ';' or tab.  [default: a comma, in .tsv a tab]"
        ),
    ):
        run = option(run)
    return run
