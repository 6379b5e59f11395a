"""What a recipe asks for, said before it starts; when there is nothing more to hope for; and what helps then.

The time of a step is given as passes of the parent over one text, which are timed on this machine. How many a step
takes was measured with MiniLM on sst2 and banking77 (benchmarks/compression); it is right to a factor of two or so.
"""

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from compression.bundle import StepFigures
from compression.data import Splits
from compression.errors import VerificationError
from compression.measure.evaluate import SELECTION_TEXTS
from compression.measure.intervals import wilson
from compression.progress import console, warn
from compression.recipe import (
    Budget,
    DropLayersStep,
    ExportStep,
    PruneStructureStep,
    QuantizeStep,
    Recipe,
    RecoverStep,
    SparsifyStep,
    Step,
)

_SPARSIFY_TEXTS = 256
_EXPORT_S = 5.0
_SPEED_S = 5.0  # the bundle and its parent are timed in turn
_PASSES = {"prune_structure": 10.0, "drop_layers": 10.0, "sparsify": 10.0, "recover": 4.0, "quantize": 5.0}  # a text
_JUDGED_PASSES = 4.0  # of a test text: both models, on changed spellings and swapped names as well
_FEW = 0.5  # of the texts that a recipe looks at; with fewer it is said


def texts_wanted(step: Step) -> int:
    """How many of the calibration texts a step looks at, where there are enough; 0 if it has no such number."""
    if isinstance(step, PruneStructureStep | RecoverStep):
        return step.texts
    return step.calibration_texts if isinstance(step, QuantizeStep) else 0


def minutes(recipe: Recipe, splits: Splits, seconds_a_text: float) -> float:
    """About how long a recipe takes without anything from the cache.

    Args:
        seconds_a_text: of one pass of the parent over a text.
    """
    texts = len(splits.calibration)
    passes = _JUDGED_PASSES * len(splits.test)
    seconds = _SPEED_S
    for step in recipe.steps:
        passes += min(SELECTION_TEXTS, len(splits.selection))
        match step:
            case RecoverStep():
                passes += step.epochs * _PASSES["recover"] * min(step.texts, texts)
            case PruneStructureStep() | QuantizeStep():
                passes += _PASSES[step.step] * min(texts_wanted(step), texts)
            case DropLayersStep() | SparsifyStep():
                passes += _PASSES[step.step] * min(_SPARSIFY_TEXTS, texts)
            case ExportStep():
                seconds += _EXPORT_S
            case _:
                pass
    return (seconds + passes * seconds_a_text) / 60


def announce(recipe: Recipe, splits: Splits, seconds_a_text: float) -> None:
    """Says, before the work, how many texts the recipe wants, how many there are, and how long it takes."""
    calibration, wanted = len(splits.calibration), max(map(texts_wanted, recipe.steps))
    console.print(
        f"Recipe {recipe.name}: looks at {f'up to {wanted}' if wanted else 'no'} texts to calibrate with; there are "
        f"{calibration}, {len(splits.selection)} to select with and {len(splits.test)} to judge. "
        f"About {math.ceil(minutes(recipe, splits, seconds_a_text))} min, less where steps were done before",
        soft_wrap=True, markup=False, highlight=False,
    )  # fmt: skip
    if splits.spared:
        console.print(
            f"{splits.spared} more texts would select or judge, for little; --judge-texts takes more of them, and a "
            "column `split` says which",
            soft_wrap=True, markup=False, highlight=False,
        )  # fmt: skip
    if calibration < _FEW * wanted:
        step = max(recipe.steps, key=texts_wanted).step
        warn(
            f"the step {step} looks at {wanted} texts where it can and finds {calibration}, so the bundle will agree "
            "less with its parent; add text like the text to be served (labels are not needed)"
        )


def require_hope(done: Sequence[StepFigures], recipe: Recipe, splits: Splits, stored_mb: float | None = None) -> None:
    """Stops a candidate that no later step can bring inside the budget.

    Only `recover` raises agreement, so behind the last one of a recipe it can only fall. The selection texts tell it,
    by the upper end of their 95 % interval.

    Args:
        done: figures of the steps so far.
        stored_mb: size of the finished model; None while there are steps to come.

    Raises:
        VerificationError: it is lost; says what was reached and what helps. The table of the steps is printed.
    """
    budget, last = recipe.budget, done[-1]
    to_come = [step.step for step in recipe.steps[len(done) :]]
    texts = min(SELECTION_TEXTS, len(splits.selection))
    measured: dict[str, float] = {}
    if "recover" not in to_come:
        measured["min_agreement"] = wilson(round(last.agreement * texts), texts)[1]
    if stored_mb is not None:
        measured["max_size_mb"] = stored_mb
    bounds = Budget(**{bound: getattr(budget, bound) for bound in measured})
    broken = bounds.broken({**dict.fromkeys(Budget.model_fields), **measured})
    if not broken:
        return
    print_reached(done, texts)
    sentences = {
        "min_agreement": f"agreement {last.agreement:.4f} on {texts} selection texts, at best "
        f"{measured.get('min_agreement', 0):.4f} by its 95 % interval, is below",
        "max_size_mb": f"the model has {stored_mb} MB, above",
    }
    reasons = "; ".join(f"{sentences[bound]} {bound} {getattr(budget, bound)}" for bound in broken)
    figures = {"min_agreement": last.agreement, "max_size_mb": stored_mb}
    reached = {bound: figures[bound] for bound in broken}
    raise VerificationError(
        f"lost after the step {last.step}, nothing was written: {reasons}. {remedy(recipe, splits, reached)}", reached
    )


def print_reached(done: Sequence[StepFigures], texts: int) -> None:
    """What each step came to, as a table on standard error."""
    table = Table(title=f"What was reached, on {texts} selection texts", title_justify="left")
    numbers = any(step.spearman is not None for step in done)
    for heading in ("after", "MB", "agreement, %", "Spearman" if numbers else "accuracy, %", "s"):
        table.add_column(heading, justify="left" if heading == "after" else "right")
    for step in done:
        accuracy = "" if step.accuracy is None else f"{100 * step.accuracy:.1f}"
        if step.spearman is not None:
            accuracy = f"{step.spearman:.3f}"
        table.add_row(
            step.step, f"{step.size_mb:.1f}", f"{100 * step.agreement:.1f}", accuracy,
            "before" if step.cached else f"{step.seconds:.0f}",
        )  # fmt: skip
    console.print(table)


def remedy(recipe: Recipe, splits: Splits, reached: Mapping[str, float | None]) -> str:
    """What to change so that the bounds are kept, most promising first.

    Args:
        reached: by each bound that was not kept, what was measured; none where the candidate collapsed.
    """
    advice = []
    kinds = {step.step for step in recipe.steps}
    wanted, calibration = max(map(texts_wanted, recipe.steps)), len(splits.calibration)
    if not reached or reached.keys() & {"min_agreement", "max_accuracy_drop", "max_spearman_drop", "max_mae_rise"}:
        if calibration < wanted:
            advice.append(f"add text without labels (the recipe looks at {wanted}, there are {calibration})")
        if kinds & {"prune_vocabulary", "prune_structure", "drop_layers", "sparsify"}:
            advice.append("cut less (a larger keep in prune_structure), or take --recipe safe, which cuts nothing")
        elif "quantize" in kinds:
            advice.append("set min_agreement in the step quantize, which leaves sensitive layers in float")
        else:
            advice.append("take --recipe safe")
    if reached.keys() & {"max_size_mb", "min_speedup"}:
        advice.append("cut more: of the presets, small is the smallest and balanced the fastest")
    for bound, figure in reached.items():
        if figure is not None:  # rounded to the side that lets it through
            allowed = math.floor(100 * figure) / 100 if bound.startswith("min") else math.ceil(100 * figure) / 100
            advice.append(f"or accept it: --budget {bound}={allowed:g}")
    text = "; ".join(advice)
    return text[:1].upper() + text[1:]
