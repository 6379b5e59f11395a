"""The `lathe` command, and Lathe in a Python program.

    import lathe
    lathe.load("bundles/mine")(["Thank you!"])[0].label

Joins `compression` and `service`, which do not know each other.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

import compression.cli
import service.cli
from compression.bundle.classify import Classification, TextClassifier, load
from compression.bundle.cpu import allowed_cores, usable_cores
from compression.errors import Interrupted, LatheError
from service.client import AsyncClient, Client, RequestFailed, Triage
from service.errors import ConfigurationError, ScoringError

__all__ = [
    "AsyncClient",
    "Classification",
    "Client",
    "RequestFailed",
    "TextClassifier",
    "Triage",
    "load",
]

# By command, what a user can do after Ctrl-C; of the others nothing is left.
_GOES_ON = {
    "compress": "; run the same command again to go on from the last finished step",
    "finetune": "; add --resume to go on from the last finished epoch",
    "score": "; run the same command again to go on",
}


class _Commands(click.Group):
    """Commands whose failures, and whose wrong usage, are one line on standard error: `error: ...`."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        try:
            sys.exit(super().main(args, prog_name, complete_var, False, **extra))
        except (LatheError, ConfigurationError, ScoringError) as error:
            _fail(str(error), error.exit_code)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            help_at = f" (see {context.command_path} --help)" if context is not None else ""
            _fail(error.format_message() + help_at, error.exit_code)
        except OSError as error:  # the system's own words, with the file that they are about
            if error.filename is None:
                raise
            _fail(f"{error.filename}: {error.strerror}", 1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            raise Interrupted(f"stopped{_GOES_ON.get(ctx.invoked_subcommand or '', '')}") from None


def _fail(message: str, exit_code: int) -> None:
    click.secho(f"error: {message}", fg="red", err=True)
    sys.exit(exit_code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="lathe", prog_name="lathe")
def main() -> None:
    """Turn a fine-tuned text classifier into a small, fast, verified bundle, and serve it."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its advice is not for the users of this command
    if usable_cores() < allowed_cores():  # torch sees no quota, and is stopped for most of the time that it bounds
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))


for _command in (*compression.cli.COMMANDS, *service.cli.COMMANDS):
    main.add_command(_command)

if __name__ == "__main__":
    main()
