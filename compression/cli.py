"""The commands around compression: finetune, compress, evaluate, inspect, store, bench, compare, recipe, cache, doctor.

What needs an extra is imported inside the command that needs it, so that the others work without.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from compression import cache as stored
from compression.bundle import LongTexts, extra, open_bundle, require_extra
from compression.bundle.atomic_files import CACHE_REMEDY, require_writable
from compression.bundle.storage import require_replaceable
from compression.data import ENOUGH_TEXTS, Columns, Examples, concatenate, read_examples, require_labelled
from compression.errors import StorageError
from compression.labels import NUMBERS_WANTED, require_numbers
from compression.measure.abstaining import ANSWER_ERROR
from compression.options import DIRECTORY, FILE, columns_options, long_texts_options, numbers
from compression.parent.files import locate, require_model, safetensors_files
from compression.recipe import load_recipe, parse_budget, preset_names, preset_text
from compression.train.destination import require_free


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")  # by its specification, a path that is not absolute is ignored
    if os.path.isabs(home):
        return Path(home) / "lathe"
    return _home("set XDG_CACHE_HOME, or name a directory with --cache") / ".cache" / "lathe"


def _home(remedy: str) -> Path:
    """The user's.

    Raises:
        StorageError: there is none; says what to do then.
    """
    try:
        return Path.home()
    except RuntimeError:
        raise StorageError(f"this user has no home directory; {remedy}") from None


_PARENTS = ("torch", "transformers", "yaml")  # what whatever reads a parent needs
_cache = click.option(
    "--cache",
    type=DIRECTORY,
    default=_cache_folder,
    show_default="$XDG_CACHE_HOME/lathe, or ~/.cache/lathe",
    help="Finished steps (up to 8 GB) and searches are kept there; a run that was stopped goes on from them.",
)


@click.command()
@click.argument("parent")
@click.option(
    "--data",
    type=FILE,
    required=True,
    multiple=True,
    help="Training rows, csv, tsv, jsonl, json or parquet with text and label; can be given several times.",
)
@click.option("--validation", type=FILE, help="Rows that choose the best epoch; without them the last one is kept.")
@click.option("--out", type=DIRECTORY, required=True, help="Directory to write.")
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    help="At its highest.  [default: 5e-5; with --lora-rank 1e-3]",
)
@click.option("--optimizer", type=click.Choice(["adamw", "sgd"]), default="adamw", show_default=True)
@click.option(
    "--schedule",
    type=click.Choice(["linear", "cosine", "constant_with_warmup"]),
    default="linear",
    show_default=True,
    help="Learning rate after the warm-up.",
)
@click.option("--warmup-ratio", type=click.FloatRange(0, 1), default=0.06, show_default=True)
@click.option("--weight-decay", type=float, default=0.01, show_default=True)
@click.option("--dropout", type=click.FloatRange(0, 1), help="Overrides the parent's.")
@click.option("--label-smoothing", type=click.FloatRange(0, 1), default=0.0, show_default=True)
@click.option("--gradient-accumulation", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--early-stopping",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Epochs without a better accuracy before it stops; 0 never stops.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="auto: bf16 where the device has it.",
)
@click.option("--max-length", type=click.IntRange(8), default=128, show_default=True, help="Tokens a row is cut to.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--lora-rank", type=click.IntRange(0), default=0, show_default=True, help="0 trains every weight.")
@click.option("--lora-alpha", type=click.IntRange(1), help="[default: twice the rank]")
@click.option("--lora-dropout", type=click.FloatRange(0, 1), default=0.0, show_default=True)
@click.option(
    "--lora-targets", default="all-linear", show_default=True, help="all-linear, or module names with commas."
)
@click.option("--freeze-embeddings", is_flag=True, help="Leave the embedding table as it is; several times faster.")
@click.option(
    "--number",
    is_flag=True,
    help="Labels are numbers, such as 1 to 5 stars or a price, and the model learns to give a number, which has the "
    "name of their column.",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint under OUT.")
@click.option("--overwrite", is_flag=True, help="Replace a model, or a run that was stopped, in OUT.")
@columns_options
def finetune(
    parent: str,
    data: tuple[Path, ...],
    validation: Path | None,
    out: Path,
    resume: bool,
    overwrite: bool,
    number: bool,
    columns: Columns,
    **options: Any,
) -> None:
    """Fine-tune PARENT (local directory, hub id or embedded:NAME) on labelled text."""
    # All of this is said before torch is imported, which takes seconds; so it is below.
    require_extra("compress", *_PARENTS)
    require_free(out, resume, overwrite)
    if number and columns.label != Columns.label:
        options["number_name"] = columns.label
    train = [_labelled(path, columns, number) for path in data]
    judges = None if validation is None else _labelled(validation, columns, number)
    safetensors_files(locate(parent))
    with extra("compress"):
        from compression.train import finetune as module

    figures = module.finetune(
        parent,
        concatenate(train),
        judges,
        out,
        module.FinetuneOptions(number=number, **options),
        resume,
        overwrite,
    )
    measured = ", ".join(f"validation {name} {value:.4f}" for name, value in figures.items())
    click.echo(f"{out}: {measured or 'trained to the end, without validation'}")


def _labelled(path: Path, columns: Columns, numbers: bool) -> Examples:
    examples = read_examples(path, columns)
    if examples.outside:  # which are not what it learns
        examples = examples.where([not outside for outside in examples.outside])
    require_labelled(examples, str(path))
    if numbers:
        require_numbers(examples, path, NUMBERS_WANTED)
    return examples


@click.command()
@click.argument("parent")
@click.option(
    "--data",
    type=FILE,
    required=True,
    help="Text like the text to be served: csv, tsv, jsonl, json or parquet. Labels are counted where there are some. "
    "A column `split` with calibration and test separates what calibrates from what judges; else a hash of the text "
    "does.",
)
@click.option(
    "--judge-texts",
    type=click.IntRange(1),
    default=ENOUGH_TEXTS,
    show_default=True,
    help="So many texts judge, and as many select, of data without a column `split`.",
)
@click.option(
    "--answer-error",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=ANSWER_ERROR,
    show_default=True,
    help="Fraction of wrong ones, at most, among the answers that the bundle does not abstain from: the threshold on "
    "its confidence is chosen so, on the selection texts with labels.",
)
@click.option("--recipe", help="A preset or a YAML file.  [default: safe; with --budget alone, a search]")
@click.option(
    "--budget",
    multiple=True,
    metavar="BOUND=VALUE",
    help="What the result may cost: max_accuracy_drop (points; of micro F1 where a text may have several labels), "
    "max_spearman_drop and max_mae_rise (of a number), min_agreement (fraction), max_size_mb, min_speedup. "
    "Can be given several times. With a recipe it takes the place of the recipe's own bounds; without one, the "
    "fastest bundle inside it is searched for.",
)
@click.option("--trials", type=click.IntRange(1), default=12, show_default=True, help="Candidates that a search tries.")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Minutes after which a search begins no new candidate.",
)
@click.option("--out", type=DIRECTORY, required=True, help="The bundle to write; an older one is replaced.")
@_cache
@long_texts_options
@columns_options
def compress(
    parent: str,
    data: Path,
    recipe: str | None,
    budget: tuple[str, ...],
    trials: int,
    time_limit: float,
    out: Path,
    cache: Path,
    judge_texts: int,
    answer_error: float,
    long_texts: LongTexts | None,
    columns: Columns,
) -> None:
    """Compress PARENT (local directory, peft adapter, hub id or embedded:NAME) into a bundle."""
    require_extra("compress", *_PARENTS)
    bounds = parse_budget(budget) if budget else None
    loaded = load_recipe(recipe or "safe")
    require_replaceable(out)
    require_writable(cache, CACHE_REMEDY)
    read_examples(data, columns, quiet=True)
    safetensors_files(locate(parent))
    with extra("compress"):
        from compression.budget_search import Search, search
        from compression.pipeline import compress as run
    from compression.report.page import print_comparison

    if recipe is None and bounds is not None:
        limits = Search(trials, 60 * time_limit)
        bundle = search(parent, data, bounds, out, columns, cache, limits, judge_texts, answer_error, long_texts)
    else:
        if bounds is not None:
            loaded = loaded.model_copy(update={"budget": bounds})
        bundle = run(parent, data, loaded, out, columns, cache, judge_texts, answer_error, long_texts)
    print_comparison(str(out), bundle.manifest)


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
@click.option("--json", "as_json", is_flag=True, help="The whole manifest as JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Verify BUNDLE and say what it is."""
    opened = open_bundle(bundle)
    if as_json:
        click.echo(opened.manifest.to_json(), nl=False)
        return
    from compression.report.page import print_comparison
    from compression.report.words import printable, reading

    manifest = opened.manifest
    click.echo(f"version     {opened.version}")
    click.echo(f"parent      {printable(manifest.parent.name)}")
    click.echo(f"recipe      {printable(str(manifest.recipe.get('name')))}")
    click.echo(f"window      {manifest.max_length} tokens")
    click.echo(f"long texts  {reading(manifest.runtime.long_texts)}")
    click.echo(f"task        {manifest.task}")
    click.echo(f"inputs      {'pairs of texts' if manifest.inputs == 'pairs' else 'texts'}")
    click.echo(f"labels      {', '.join(map(printable, manifest.labels))}")
    click.echo(f"batch-exact {'yes' if manifest.runtime.batch_exact else 'no'}")
    if abstain := manifest.runtime.abstain:
        click.echo(f"abstains    below a confidence of {abstain.below:.4f}, for an error of {100 * abstain.error:g} %")
    print_comparison(str(bundle), manifest)


@click.command()
@click.argument("bundle", type=DIRECTORY)
@click.option("--name", required=True, help="Name in the store; the version is added to it.")
def store(bundle: Path, name: str) -> None:
    """Put BUNDLE into BentoML's model store and print its tag."""
    from compression.store import store_bundle

    if not os.environ.get("BENTOML_HOME"):
        _home("set BENTOML_HOME to the directory of the model store")
    click.echo(store_bundle(open_bundle(bundle), name))


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


@click.group()
def recipe() -> None:
    """The recipes that come with Lathe."""


@recipe.command("list")
def list_recipes() -> None:
    """Print name and purpose of each."""
    for name in preset_names():
        click.echo(f"{name:<9} {preset_text(name).splitlines()[0].removeprefix('# ')}")


@recipe.command("show")
@click.argument("name")
def show_recipe(name: str) -> None:
    """Print the recipe NAME as YAML: a file to start one's own from."""
    click.echo(preset_text(name), nl=False)


@click.group()
def cache() -> None:
    """What is kept between runs, so that they go on from it."""


@cache.command("show")
@_cache
def show_cache(cache: Path) -> None:
    """Print what there is and how much of the disk it takes."""
    parts = stored.contents(cache)
    for part in parts:
        click.echo(f"{part.name:<21} {part.entries:>5} {part.size_bytes / 1e6:>8.1f} MB")
    total = sum(part.size_bytes for part in parts) / 1e6
    click.echo(f"{cache}: {total:.1f} MB; steps are kept up to {stored.MAX_STEPS_BYTES / 1e9:.0f} GB")


@cache.command("clear")
@_cache
def clear_cache(cache: Path) -> None:
    """Remove it; later runs begin anew."""
    stored.clear(cache)
    click.echo(f"{cache}: empty")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def doctor(as_json: bool) -> None:
    """Say what this machine and environment have, what is missing, and what would be slow here and why."""
    from compression.doctor import examine, findings_text

    findings = examine()
    click.echo(json.dumps(asdict(findings), indent=2) if as_json else findings_text(findings))


COMMANDS: list[click.Command] = [
    finetune, compress, evaluate, inspect, store, bench, compare, recipe, cache, doctor
]  # fmt: skip
