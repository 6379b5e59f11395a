"""The commands around the service: keys add, list, revoke."""

from collections.abc import Callable
from pathlib import Path

import click

from service import auth
from service.errors import ConfigurationError

_file = click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="LATHE_KEYS_FILE",
    default=Path("keys.json"),
    show_default=True,
    help="The keys file; also read from LATHE_KEYS_FILE.",
)


@click.group()
def keys() -> None:
    """API keys of the service: the file holds their hashes only."""


def _reporting(command: Callable[..., None]) -> Callable[..., None]:
    from functools import wraps

    @wraps(command)
    def run(*args: object, **options: object) -> None:
        try:
            command(*args, **options)
        except ConfigurationError as error:
            raise click.ClickException(str(error)) from error

    return run


@keys.command()
@click.argument("name")
@_file
@click.option("--admin", is_flag=True, help="Let it change which version of a model is served.")
@_reporting
def add(name: str, file: Path, admin: bool) -> None:
    """Make a key called NAME and print it; it is shown this once."""
    click.echo(auth.add_key(file, name, admin))


@keys.command("list")
@_file
@_reporting
def list_keys(file: Path) -> None:
    """Print id, day of making and name of each key."""
    for key in auth.read_keys(file):
        click.echo(f"{key.id}  {key.created:%Y-%m-%d}  {key.name}{'  admin' if key.admin else ''}")


@keys.command()
@click.argument("identity", metavar="ID|NAME")
@_file
@_reporting
def revoke(identity: str, file: Path) -> None:
    """Remove a key; running services notice within a second."""
    key = auth.revoke_key(file, identity)
    click.echo(f"revoked {key.id} ({key.name})")


COMMANDS: list[click.Command] = [keys]
