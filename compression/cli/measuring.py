"""The commands that measure: evaluate, bench, compare."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from compression.bundle import LongTexts
from compression.data import Columns, read_examples
from compression.options import DIRECTORY, FILE, columns_options, long_texts_options, numbers
from compression.parent.files import require_model


@click.command()
@click.argument("model")
@click.option("--data", type=FILE, required=True, help="Rows with text and label: csv, tsv, jsonl, json or parquet.")
@click.option("--against", help="Another bundle or parent: adds how often both give the same label.")
@click.option("--split", help="Only the rows whose column `split` holds this.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@long_texts_options
@columns_options
def evaluate(
    model: str,
    data: Path,
    against: str | None,
    split: str | None,
    as_json: bool,
    long_texts: LongTexts | None,
    columns: Columns,
) -> None:
    """Measure MODEL, a bundle or a parent, on labelled text."""
    from compression.measure.evaluate import evaluate as run

    examples = read_examples(data, columns)
    if split is not None:
        examples = examples.of_split(split)
        if not len(examples):
            raise click.BadParameter(f"{data} has no rows with the split {split!r}", param_hint="--split")
    for path in filter(None, (model, against)):
        require_model(path)
    figures = run(model, examples, data, against, long_texts)
    if as_json:
        click.echo(json.dumps(figures, indent=2))
        return
    width = max(12, *map(len, figures))
    for name, value in figures.items():
        click.echo(f"{name:<{width}} {value:.4f}" if isinstance(value, float) else f"{name:<{width}} {value}")


@click.command()
@click.argument("bundle", type=DIRECTORY)
@click.option("--batches", callback=numbers, default="1,4,8,16,32", show_default=True, help="Texts of a run.")
@click.option("--tokens", callback=numbers, help="Lengths of a text.  [default: 16,32,64,128 within the window]")
@click.option("--rounds", type=click.IntRange(2), default=11, show_default=True, help="Timed runs of each shape.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="That one run may use.")
@click.option("--against", help="Another bundle or parent.  [default: the parent of the manifest, if it can be loaded]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def bench(bundle: Path, as_json: bool, **options: Any) -> None:
    """Time BUNDLE in turn with its parent, over batch sizes and lengths."""
    from compression.measure import bench as module

    result = module.bench(bundle, **options)
    if as_json:
        click.echo(json.dumps(asdict(result), indent=2))
    else:
        module.print_benchmark(result)


@click.command()
@click.argument("bundles", type=DIRECTORY, nargs=-1, required=True, metavar="BUNDLE...")
@click.option("--data", type=FILE, help="Measure all of them anew on these rows; without it the manifests speak.")
@click.option("--html", type=FILE, help="Write a page with a plot here too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@columns_options
def compare(
    bundles: tuple[Path, ...],
    data: Path | None,
    html: Path | None,
    as_json: bool,
    columns: Columns,
) -> None:
    """Put bundles side by side: size, accuracy, agreement, speed."""
    if html is not None and not html.parent.is_dir():  # said before anything is measured
        raise click.BadParameter(f"{html.parent} is no directory", param_hint="--html")
    from compression.report import compare as module
    from compression.report.compare_page import comparison_html
    from compression.report.rendering import Origin

    if data is None:
        comparison = module.compare_manifests(bundles)
    else:
        examples = read_examples(data, columns)
        comparison = module.compare_on(bundles, examples, data)
    if comparison.warning:
        click.secho(f"warning: {comparison.warning}", fg="yellow", err=True)
    if as_json:
        click.echo(module.comparison_json(comparison))
    else:
        module.print_comparison(comparison)
    if html is not None:
        html.write_text(comparison_html(comparison, Origin.now()), "utf-8")
