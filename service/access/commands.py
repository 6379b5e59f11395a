"""lathe keys: add, list, rotate, revoke, check."""

import sys
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import click

from compression.bundle.signature import make_key
from service.access import keys as auth
from service.access.authenticator import Authenticator
from service.access.caller import SCOPES, Limits, Scope
from service.access.keys_file import DEFAULT_SCOPES, Key, read_keys
from service.errors import ConfigurationError, Unauthorized
from service.tenant import PRIORITIES, Priority

_file = click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="LATHE_KEYS_FILE",
    default=Path("keys.json"),
    show_default=True,
    help="The keys file; also read from LATHE_KEYS_FILE.",
)


class _Expiry(click.ParamType[datetime]):
    """Days from now, or a date (the beginning of that day, UTC)."""

    name = "expiry"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        now = datetime.now(UTC)
        try:
            end = now + timedelta(days=float(value)) if value.replace(".", "", 1).isdecimal() else _date(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither a number of days nor a date such as 2027-01-31", param, ctx)
        if end <= now:
            self.fail(f"{value!r} is not in the future", param, ctx)
        return end


def _date(text: str) -> datetime:
    return datetime.combine(date.fromisoformat(text), time(), UTC)


@click.group()
def keys() -> None:
    """API keys of the service: the file holds their hashes only."""


@keys.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("signing.key"),
    show_default=True,
    help="Of the private key; the public one is written beside it, with .pub behind its name.",
)
def signing(out: Path) -> None:
    """Make a pair of keys that bundles are signed with; it lets nobody in.

    The private key signs (lathe sign), and stays where bundles are made. A service takes the public one in
    LATHE_SIGNED_BY.
    """
    click.echo(make_key(out))


@keys.command()
@click.argument("name")
@_file
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    default=DEFAULT_SCOPES,
    show_default=True,
    help="What it may do: ask models and mask texts; read /metrics; change which version of a model is served. Can be "
    "given several times.",
)
@click.option(
    "--model", "models", multiple=True, help="A model that it may ask; can be given several times.  [default: all]"
)
@click.option(
    "--expires",
    type=_Expiry(),
    metavar="DAYS|DATE",
    help="After so many days, or at a date, 2027-01-31.  [default: never]",
)
@click.option(
    "--priority",
    type=click.Choice(PRIORITIES),
    default="interactive",
    show_default=True,
    help="Of its texts in a queue: batch gives way to keys for whose answers somebody waits.",
)
@click.option("--requests-per-s", type=click.IntRange(1), help="[default: no limit, as of the next three]")
@click.option("--tokens-per-min", type=click.IntRange(1))
@click.option("--tokens-per-month", type=click.IntRange(1))
@click.option("--concurrent", type=click.IntRange(1), help="Requests answered at the same time, by one replica.")
def add(
    name: str,
    file: Path,
    scopes: tuple[Scope, ...],
    models: tuple[str, ...],
    expires: datetime | None,
    priority: Priority,
    **limits: int | None,
) -> None:
    """Make a key called NAME and print it; it is shown this once."""
    given = Limits(**limits) if any(limits.values()) else None
    click.echo(auth.add_key(file, name, scopes, models, expires, given, priority))


@keys.command("list")
@_file
def list_keys(file: Path) -> None:
    """Print each key: id, day of making, name, what it may do, and when it expires."""
    for key in read_keys(file):
        click.echo(f"{key.id}  {key.created:%Y-%m-%d}  {key.name}  {_about(key)}")


@keys.command()
@click.argument("identity", metavar="ID|NAME")
@_file
@click.option(
    "--keep-hours",
    type=click.FloatRange(0),
    default=24.0,
    show_default=True,
    help="For how long the old key is still let in.",
)
def rotate(identity: str, file: Path, keep_hours: float) -> None:
    """Make a key that may do what an old one may, and print it; the old one expires."""
    click.echo(auth.rotate_key(file, identity, timedelta(hours=keep_hours)))


@keys.command()
@click.argument("identity", metavar="ID|NAME")
@_file
def revoke(identity: str, file: Path) -> None:
    """Remove a key, or all of a name; running services notice within a second."""
    for key in auth.revoke_key(file, identity):
        click.echo(f"revoked {key.id} ({key.name})")


@keys.command()
@_file
def check(file: Path) -> None:
    """Say whose key stands on standard input, and what it may do; exit code 1 where it is not let in."""
    read_keys(file)
    try:
        key = Authenticator(file).find(f"Bearer {sys.stdin.readline().strip()}")
    except Unauthorized as error:
        raise ConfigurationError(f"{file}: {error.message}") from None
    click.echo(f"{key.id}  {key.name}  {_about(key)}")


def _about(key: Key) -> str:
    models = f" of {', '.join(key.models)}" if key.models else ""
    priority = f", priority {key.priority}" if key.priority != "interactive" else ""
    ends = f", expires {key.expires.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if key.expires is not None else ""
    given = {} if key.limits is None else key.limits.model_dump(exclude_none=True)
    limits = "".join(f", {limit} {name.replace('_', ' ')}" for name, limit in given.items())
    expired = "" if key.is_valid(datetime.now(UTC)) else " (expired)"
    return f"{', '.join(key.scopes)}{models}{limits}{priority}{ends}{expired}"
