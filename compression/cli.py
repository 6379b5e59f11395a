"""The commands around compression: finetune, compress, evaluate, inspect, store.

What needs torch is imported inside the command that needs it, so that `lathe inspect` works where only a serving
environment is installed.
"""

from pathlib import Path
from typing import Any

import click

from compression.data import Columns, read_examples

_FILE = click.Path(path_type=Path, dir_okay=False)
_DIRECTORY = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("parent")
@click.option("--data", type=_FILE, required=True, help="Training rows: csv, jsonl or parquet with text and label.")
@click.option("--validation", type=_FILE, required=True, help="Rows that choose the best epoch.")
@click.option("--out", type=_DIRECTORY, required=True, help="Directory to write.")
@click.option("--epochs", type=float, default=3.0, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option("--learning-rate", type=float, default=5e-5, show_default=True)
@click.option("--optimizer", type=click.Choice(["adamw", "sgd"]), default="adamw", show_default=True)
@click.option("--schedule", type=click.Choice(["linear", "cosine", "constant_with_warmup"]), default="linear",
              show_default=True, help="Learning rate after the warm-up.")
@click.option("--warmup-ratio", type=click.FloatRange(0, 1), default=0.06, show_default=True)
@click.option("--weight-decay", type=float, default=0.01, show_default=True)
@click.option("--dropout", type=click.FloatRange(0, 1), help="Overrides the parent's.")
@click.option("--label-smoothing", type=click.FloatRange(0, 1), default=0.0, show_default=True)
@click.option("--gradient-accumulation", type=click.IntRange(1), default=1, show_default=True)
@click.option("--early-stopping", type=click.IntRange(0), default=0, show_default=True,
              help="Epochs without a better accuracy before it stops; 0 never stops.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), default="auto", show_default=True,
              help="auto: bf16 where the device has it.")
@click.option("--max-length", type=click.IntRange(8), default=128, show_default=True, help="Tokens a row is cut to.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--lora-rank", type=click.IntRange(0), default=0, show_default=True, help="0 trains every weight.")
@click.option("--lora-alpha", type=click.IntRange(1), help="[default: twice the rank]")
@click.option("--lora-dropout", type=click.FloatRange(0, 1), default=0.0, show_default=True)
@click.option("--lora-targets", default="all-linear", show_default=True, help="all-linear, or module names with commas.")
@click.option("--freeze-embeddings", is_flag=True, help="Leave the embedding table as it is; several times faster.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint under OUT.")
def finetune(parent: str, data: Path, validation: Path, out: Path, resume: bool, **options: Any) -> None:
    """Fine-tune PARENT (local directory, hub id or embedded:NAME) on labelled text."""
    from compression import finetune as module

    figures = module.finetune(
        parent, read_examples(data), read_examples(validation), out, module.FinetuneOptions(**options), resume
    )
    click.echo(f"{out}: validation accuracy {figures['accuracy']:.4f}, loss {figures['loss']:.4f}")


COMMANDS: list[click.Command] = [finetune]
