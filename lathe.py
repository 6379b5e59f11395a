"""The `lathe` command: joins the commands of `compression` and of `service`, which do not know each other."""

import sys

import click

import compression.cli
import service.cli
from compression.errors import LatheError


class _Group(click.Group):
    """A group whose commands report a LatheError as one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except LatheError as error:
            click.secho(f"error: {error}", fg="red", err=True)
            sys.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="lathe")
def main() -> None:
    """Turn a fine-tuned text classifier into a small, fast, verified bundle, and serve it."""


for _command in (*compression.cli.COMMANDS, *service.cli.COMMANDS):
    main.add_command(_command)

if __name__ == "__main__":
    main()
