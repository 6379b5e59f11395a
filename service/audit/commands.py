"""lathe audit: verify, search."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from service.errors import ConfigurationError

_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


class _Moment(click.ParamType[datetime]):
    """A date or time, UTC where it does not say otherwise."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time such as 2027-01-31 or 2027-01-31T08:00", param, ctx)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


@click.group()
def audit() -> None:
    """The audit log of a service, LATHE_AUDIT_FILE."""


@audit.command()
@_file
@click.option(
    "--holds",
    metavar="HASH",
    help="That an earlier verify printed, and that was kept elsewhere: its record must be there.",
)
def verify(file: Path, holds: str | None) -> None:
    """Recompute every hash of FILE and of the files that were rotated, and say whether all is as it was written.

    That the last records were cut off, or all were written anew, shows by --holds alone.
    """
    from service.audit.chain import verify as verified

    found = verified(file)
    if holds is not None and holds not in found.chains:
        raise ConfigurationError(f"{file}: no record has the hash {holds[:64]}; records were removed, or written anew")
    for place in found.cut:
        click.echo(f"{place}: was not finished, because the process ended while it wrote")
    if found.lost:
        click.echo(f"{found.lost} records are missing: they could not be written, as the log itself says")
    files = "1 file" if found.files == 1 else f"{found.files} files"
    click.echo(f"{file}: {files}, {len(found.chains)} records, as they were written; the last has the hash")
    click.echo(found.chains[-1] if found.chains else "none")


@audit.command()
@_file
@click.option("--key", help="The name of a key.")
@click.option("--id", "request_id", help="X-Request-Id of an answer.")
@click.option("--trace", help="Trace id, of the traceparent that a client sent.")
@click.option("--route", help="As it is in the log, /v1/classify.")
@click.option("--model", help="That was asked, or whose version was changed.")
@click.option("--status", type=int, help="Of the answer, 403.")
@click.option("--since", type=_Moment(), help="A date, or a time; UTC unless it says otherwise.")
@click.option("--until", type=_Moment(), help="See --since; what happened then is left out.")
def search(
    file: Path,
    key: str | None,
    request_id: str | None,
    trace: str | None,
    route: str | None,
    model: str | None,
    status: int | None,
    since: datetime | None,
    until: datetime | None,
) -> None:
    """Print the records of FILE and of the files that were rotated that are all of what is asked for, as JSON lines."""
    from service.audit.chain import records

    wanted = {"key": key, "id": request_id, "trace": trace, "route": route, "status": status}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    for record, line in records(file):
        if any(record.get(name) != value for name, value in wanted.items()):
            continue
        if model is not None and model not in _models(record):
            continue
        if since is not None or until is not None:
            when = datetime.fromisoformat(str(record["time"]))
            if (since is not None and when < since) or (until is not None and when >= until):
                continue
        click.echo(line.decode().rstrip("\n"))


def _models(record: Mapping[str, Any]) -> set[str]:
    return {str(record.get("model", "")), *(one["model"] for one in record.get("asked", ()))}
