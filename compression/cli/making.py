"""The commands that make something: finetune, compress.

What needs an extra is imported inside the command that needs it, so that the others work without.
"""

from pathlib import Path
from typing import Any

import click

from compression.bundle import LongTexts, extra, require_extra
from compression.bundle.atomic_files import CACHE_REMEDY, require_writable
from compression.bundle.storage import require_replaceable
from compression.cli.folders import cache_option
from compression.data import ENOUGH_TEXTS, Columns, Examples, concatenate, read_examples, require_labelled
from compression.labels import NUMBERS_WANTED, require_numbers
from compression.measure.abstaining import ANSWER_ERROR
from compression.options import DIRECTORY, FILE, FiniteRange, columns_options, long_texts_options
from compression.parent.files import locate, safetensors_files
from compression.recipe import load_recipe, parse_budget
from compression.train.destination import require_free

_PARENTS = ("torch", "transformers", "yaml")  # what whatever reads a parent needs


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
@click.option("--epochs", type=FiniteRange(min=0, min_open=True), default=3.0, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option(
    "--learning-rate",
    type=FiniteRange(min=0, min_open=True),
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
@click.option("--warmup-ratio", type=FiniteRange(0, 1), default=0.06, show_default=True)
@click.option("--weight-decay", type=FiniteRange(0), default=0.01, show_default=True)
@click.option("--dropout", type=FiniteRange(0, 1), help="Overrides the parent's.")
@click.option("--label-smoothing", type=FiniteRange(0, 1), default=0.0, show_default=True)
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
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--lora-rank", type=click.IntRange(0), default=0, show_default=True, help="0 trains every weight.")
@click.option("--lora-alpha", type=click.IntRange(1), help="[default: twice the rank]")
@click.option("--lora-dropout", type=FiniteRange(0, 1), default=0.0, show_default=True)
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
    type=FiniteRange(0, 1, min_open=True, max_open=True),
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
    type=FiniteRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Minutes after which a search begins no new candidate.",
)
@click.option("--out", type=DIRECTORY, required=True, help="The bundle to write; an older one is replaced.")
@cache_option
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
