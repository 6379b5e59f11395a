"""`lathe bench`: latency and throughput of a bundle over batch sizes and lengths, in turn with its parent."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from compression.bundle import BundleError, open_bundle
from compression.errors import LatheError
from compression.measure.latency import ROUNDS, Quartiles, ratios, time_runs
from compression.measure.machine import Machine, this_machine
from compression.parent.classifier import BundleClassifier, Classifier, load_classifier
from compression.progress import console, plain_console, track

BATCHES = (1, 4, 8, 16, 32)
TOKENS = (16, 32, 64, 128)
# Any text will do: a forward pass takes the same time whatever its tokens say.
_TEXTS = (
    "Thank you for the quick help, my new card arrived this morning and works in every shop.",
    "I have been waiting three weeks for an answer, nobody picks up the phone, and the app shows an error.",
)


@dataclass(frozen=True)
class Timed:
    """One shape.

    Attributes:
        tokens: length of each text, special tokens included.
        texts_per_s: of the bundle, at its median.
        other_ms: of the model it is held against; None without one.
        ratio: that model's time over the bundle's, run by run; above 1 the bundle is faster.
    """

    batch: int
    tokens: int
    bundle_ms: Quartiles
    texts_per_s: float
    other_ms: Quartiles | None
    ratio: Quartiles | None


@dataclass(frozen=True)
class Benchmark:
    """Attributes:
    against: name of the model that ran in turn with the bundle; None without one.
    """

    bundle: str
    version: str
    against: str | None
    threads: int
    rounds: int
    machine: Machine
    shapes: tuple[Timed, ...]


def bench(
    path: Path,
    batches: Sequence[int] = BATCHES,
    tokens: Sequence[int] | None = None,
    rounds: int = ROUNDS,
    threads: int = 1,
    against: str | None = None,
) -> Benchmark:
    """Times a bundle and, in turn with it, another model.

    Args:
        tokens: lengths to time; by default those of TOKENS that fit both windows.
        rounds: timed runs of each shape and model, at least two.
        threads: that one forward pass may use, of either model.
        against: a bundle or a parent; by default the parent that the manifest names, where it can be loaded.

    Raises:
        LatheError: no such bundle, `against` cannot be loaded, or a length beyond a window.
    """
    bundle = open_bundle(path)
    models: list[Classifier] = [BundleClassifier.of(bundle, threads)]
    if against is not None:
        models.append(load_classifier(against, threads))
    elif (parent := _parent(bundle.manifest.parent.name)) is not None:
        models.append(parent)
    window = min(model.max_length for model in models)
    lengths = [length for length in TOKENS if length <= window] if tokens is None else list(tokens)
    if not lengths or max(lengths) > window:
        raise BundleError(f"{path}: texts of {max(lengths or TOKENS)} tokens do not fit the window of {window} tokens")
    shapes = [(batch, length) for batch in batches for length in lengths]
    return Benchmark(
        bundle=str(path),
        version=bundle.version,
        against=models[1].name if models[1:] else None,
        threads=threads,
        rounds=rounds,
        machine=this_machine(),
        shapes=tuple(_time(models, *shape, rounds, threads) for shape in track(shapes, "Time")),
    )


def print_benchmark(result: Benchmark) -> None:
    """Prints the machine and one row for each shape on standard output."""
    machine = result.machine
    output = plain_console()
    memory = "" if machine.memory_gb is None else f", {machine.memory_gb} GB"
    output.print(
        f"{machine.cpu}, {machine.cores} cores{memory}; int8 instructions: "
        f"{', '.join(machine.int8_instructions) or 'none known'}\n"
        f"{machine.system}, Python {machine.python}, ONNX Runtime {machine.onnxruntime}; {result.threads} "
        f"thread{'s' if result.threads > 1 else ''}, {result.rounds} rounds; medians, with quartiles in brackets",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(
        title=f"{result.bundle} ({result.version}) against {result.against or 'nothing'}", title_justify="left"
    )
    for heading in ("batch", "tokens", "ms", "texts/s", *(("other, ms", "speed") if result.against else ())):
        table.add_column(heading, justify="right")
    for timed in result.shapes:
        other = (_quartiles(timed.other_ms), f"{_quartiles(timed.ratio)} x") if timed.other_ms and timed.ratio else ()
        table.add_row(
            str(timed.batch), str(timed.tokens), _quartiles(timed.bundle_ms), f"{timed.texts_per_s:.0f}", *other
        )
    output.print(table)


def _parent(name: str) -> Classifier | None:
    """The parent, or None and a line that says why not: a bundle is often timed where its parent is not."""
    try:
        return load_classifier(name)
    except LatheError as error:
        console.print(f"Timed without its parent, which cannot be loaded: {error}", highlight=False)
        return None


def _time(models: Sequence[Classifier], batch: int, tokens: int, rounds: int, threads: int) -> Timed:
    bundle, *others = time_runs(models, batch, tokens, _TEXTS, rounds, threads)
    return Timed(
        batch=batch,
        tokens=tokens,
        bundle_ms=_milliseconds(bundle),
        texts_per_s=round(batch / statistics.median(bundle), 1),
        other_ms=_milliseconds(others[0]) if others else None,
        ratio=ratios(others[0], bundle) if others else None,
    )


def _milliseconds(seconds: Sequence[float]) -> Quartiles:
    return Quartiles.of([1e3 * value for value in seconds], digits=3)


def _quartiles(value: Quartiles | None) -> str:
    return "" if value is None else f"{value.median:.1f} ({value.low:.1f} to {value.high:.1f})"
