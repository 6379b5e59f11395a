"""The commands around the service: serve, score, and those of keys."""

import os
from pathlib import Path
from typing import Any

import click

from compression.bundle import extra
from compression.tables import Format, open_table
from compression.tables.options import format_options, separator, text_pair_option
from service.access.commands import keys
from service.audit.commands import audit
from service.errors import ConfigurationError


def _port() -> str:
    """BENTOML_PORT, unless Kubernetes has put it there, for a Service called bentoml: tcp://10.0.0.5:3000."""
    given = os.environ.get("BENTOML_PORT", "")
    return "3000" if not given or "://" in given else given


@click.command()
@click.argument("bundles", metavar="[BUNDLE]...", nargs=-1)
@click.option(
    "--host",
    envvar="BENTOML_HOST",
    default="127.0.0.1",
    show_default=True,
    help="Name or address to listen on; any but this machine's own needs keys. Also read from BENTOML_HOST.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=_port,
    help="Also read from BENTOML_PORT.  [default: 3000]",
)
@click.option("--device", help="cpu, cuda, tensorrt; cuda:0,1 are those two GPUs.  [default: LATHE_DEVICE, or cpu]")
def serve(bundles: tuple[str, ...], host: str, port: int, device: str | None) -> None:
    """Serve each BUNDLE over HTTP until SIGTERM or Ctrl-C.

    BUNDLE is a directory, or NAME=LOCATION; a directory gives its own name. Without one, what LATHE_MODELS says is
    served. All other settings are LATHE_ variables; see docs/settings.md.
    """
    from service.environment import override, provide_model_store
    from service.listening import resolve

    provide_model_store()
    override(models=",".join(map(_named, bundles)) or None, device=device)
    address = resolve(host)
    _service().serve_http(host=address, port=port)


def _service() -> Any:
    """The BentoML service. Its configuration file, if there is one, is read when it is imported.

    Raises:
        ConfigurationError: names that file, and what is wrong with it.
    """
    from service.environment import bentoml_misconfigured

    with extra("serve"):
        try:
            from service.app import Lathe
        except (ImportError, ConfigurationError):
            raise
        except Exception as error:
            raise bentoml_misconfigured(error) or error from None
    return Lathe


def _named(bundle: str) -> str:
    return bundle if "=" in bundle else f"{Path(bundle).resolve().name}={bundle}"


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--in",
    "source",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Rows: csv, tsv, jsonl, json or parquet, by the ending of the name; text also packed as .gz.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="A file of the same kind. What a stopped run did stays in OUT.progress; the same command goes on.",
)
@format_options
@click.option("--text-column", default="text", show_default=True)
@text_pair_option
@click.option("--probabilities", is_flag=True, help="Add the probability of each label, too.")
@click.option(
    "--calibrated/--not-calibrated",
    envvar="LATHE_CALIBRATED",
    default=False,
    show_default=True,
    help="Calibrated scores in place of the model's own probabilities; also read from LATHE_CALIBRATED.",
)
@click.option(
    "--label-separator",
    default=";",
    show_default=True,
    callback=separator,
    help="Between the labels of a text, where the model may give it several.",
)
@click.option("--prefix", default="", help="Stands before the names of the new columns.")
@click.option(
    "--device",
    envvar="LATHE_DEVICE",
    default="cpu",
    show_default=True,
    help="cpu, cuda, tensorrt; cuda:0,1 are those two GPUs. Also read from LATHE_DEVICE.",
)
@click.option(
    "--streams",
    type=click.IntRange(1),
    help="Batches computed at the same time; by each worker, on Ray.  [default: one for each core, two for each GPU]",
)
@click.option(
    "--batch-tokens", type=click.IntRange(1), default=1024, show_default=True, help="In a batch, padding counted."
)
@click.option("--ray", metavar="ADDRESS", help="Compute on the Ray cluster whose head is at HOST:PORT.")
@click.pass_context
def score(
    context: click.Context,
    bundle: Path,
    source: Path,
    out: Path,
    text_column: str,
    text_pair_column: str | None,
    probabilities: bool,
    calibrated: bool,
    label_separator: str,
    prefix: str,
    device: str,
    streams: int | None,
    batch_tokens: int,
    ray: str | None,
    form: Format,
) -> None:
    """Score the rows of a file with BUNDLE: adds label, score and note.

    The label is the most probable one; where the model may give a text several, all that it gives, the most probable
    first. The score is that of the most probable label. The rows keep their order and other columns as they are. In
    csv, a label that a spreadsheet would run as a formula gets an apostrophe before it: '=1+1. The note says what
    happened to a row's text: `truncated`, it was longer than the model's window and was cut; `no_text`, it was empty,
    missing or no Unicode text, or one of a pair was; `inference_failed` or `not_a_number`, the model could not compute
    it. The last three leave label and score empty. Where BUNDLE has a threshold to abstain below, a column abstained
    says whether it is less sure of the answer than that.

    Exit codes: 0 done, 1 not done, 2 wrong usage, 3 done but some text could not be computed.
    """
    with extra("serve"):
        from service import scoring
        from service.engine.devices import streams as streams_of
    from service.setting_types import Device

    try:
        placed = Device.parse(device)
    except ValueError as error:
        raise click.UsageError(f"--device: {error}") from None
    summary = scoring.score(
        bundle,
        source,
        out,
        scoring.Options(text_column, probabilities, calibrated, prefix, form, label_separator, text_pair_column),
        scoring.Compute(placed, streams or streams_of(placed), batch_tokens),
        scoring.score_here if ray is None else scoring.score_on_ray(ray),
    )
    notes = "".join(f", {count} {note}" for note, count in sorted(summary.notes.items()) if note)
    click.echo(f"{out}: {summary.rows} rows{notes}")
    if summary.failed:
        context.exit(3)


@click.command()
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="A file of the same kind; it is there when it is complete, and not before.",
)
@format_options
@click.option(
    "--text-column",
    "columns",
    multiple=True,
    default=("text",),
    show_default=True,
    help="What is masked; may be given again.",
)
@click.option(
    "--mode",
    type=click.Choice(["replace", "last_four", "pseudonym", "drop"]),
    default="replace",
    show_default=True,
    help="What takes an entity's place: its type, <EMAIL_ADDRESS>; asterisks but for its last four letters and digits; "
    "its type and a keyed hash, the same for the same value; nothing.",
)
@click.option(
    "--type", "types", multiple=True, help="Of entities, such as EMAIL_ADDRESS; may be given again.  [default: all]"
)
@click.option(
    "--pseudonym-key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="LATHE_PSEUDONYM_KEY_FILE",
    help="A key of at least 32 bytes, for --mode pseudonym; also read from LATHE_PSEUDONYM_KEY_FILE.",
)
def mask(
    source: Path,
    out: Path,
    columns: tuple[str, ...],
    mode: str,
    types: tuple[str, ...],
    pseudonym_key_file: Path | None,
    form: Format,
) -> None:
    """Mask what is personal or secret in the rows of FILE, as POST /v1/mask does.

    FILE is csv, tsv, jsonl, json or parquet, by the ending of its name; text also packed as .gz. The rows keep their
    order; what holds nothing to mask stays as it is written.
    """
    with extra("serve"):
        from service.masking import TYPES, Masker, Mode
        from service.masking.file import mask_file
    from service.access.secret_file import read_pseudonym_key

    if unknown := [name for name in types if name not in TYPES]:
        raise click.UsageError(f"--type {unknown[0]!r}: there is no such type; the types are {', '.join(TYPES)}")
    if mode == "pseudonym" and pseudonym_key_file is None:
        raise click.UsageError("--mode pseudonym: needs --pseudonym-key-file; make one with openssl rand -hex 32")
    key = b"" if pseudonym_key_file is None else read_pseudonym_key(pseudonym_key_file)
    rows, found = mask_file(open_table(source, form), out, columns, Masker(Mode(mode), types or TYPES, key))
    counts = "".join(f", {count} {kind}" for kind, count in sorted(found.items()))
    click.echo(f"{out}: {rows} rows{counts or ', nothing to mask'}")


COMMANDS: list[click.Command] = [serve, keys, audit, score, mask]
