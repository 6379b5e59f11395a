"""`lathe compress --budget`: tries steps and strengths, keeps what is better at something, takes the best inside.

A candidate is a recipe made from a few choices (how much of the vocabulary and of the encoder stays, whether it is
recovered, its numbers). Optuna proposes the choices; what each candidate costs is measured on the selection texts. The
steps' cache makes candidates that begin alike cheap, and a search that was stopped goes on with what it had.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from pydantic import BaseModel, ConfigDict
from rich.table import Table

from compression.bundle import Bundle, Labelling, Logits, LongTexts, Number, median_speedup
from compression.bundle import Task as ModelTask
from compression.bundle.atomic_files import CACHE_REMEDY, explained
from compression.bundle.storage import require_replaceable
from compression.data import ENOUGH_TEXTS, Columns, Examples
from compression.errors import CheckpointError, VerificationError
from compression.measure.abstaining import ANSWER_ERROR
from compression.measure.evaluate import agreement, quality
from compression.measure.latency import compare_latency
from compression.measure.numbers import number_quality
from compression.measure.verify import number_losses, require_bounds_of, require_budget, require_sane
from compression.parent.classifier import ParentClassifier, predict
from compression.pipeline import build, judge, opened, write
from compression.progress import console
from compression.recipe import Budget, Recipe
from compression.step_cache import key_of
from compression.task import Task, open_task

_CHOICES: dict[str, BaseDistribution] = {
    "vocabulary": CategoricalDistribution(("all", "22000", "12000", "4000")),
    "keep": CategoricalDistribution((1.0, 0.8, 0.65, 0.5, 0.4, 0.3)),
    "recover": CategoricalDistribution(("float32", "int8", "no")),  # what it computes with while it trains
    "numbers": CategoricalDistribution(("int8", "int8, words in 4 bits", "int8, coarse", "float32")),
}
_OF_ANSWERS = ("max_accuracy_drop", "max_spearman_drop", "max_mae_rise", "min_agreement")
_PROPOSALS_PER_TRIAL = 20  # some mean a recipe that was tried already
# What works most often comes first: a search with little time has at least tried these.
_FIRST: tuple[dict[str, Any], ...] = (
    {"vocabulary": "all", "keep": 1.0, "recover": "no", "numbers": "int8"},
    {"vocabulary": "22000", "keep": 0.65, "recover": "float32", "numbers": "int8, words in 4 bits"},
    {"vocabulary": "22000", "keep": 0.5, "recover": "float32", "numbers": "int8, coarse"},
    {"vocabulary": "22000", "keep": 0.8, "recover": "float32", "numbers": "int8, words in 4 bits"},
)
_QUANTIZE: dict[str, dict[str, Any]] = {  # options of the step `quantize`, by numbers
    "int8": {},
    "int8, words in 4 bits": {"embedding_bits": 4},
    "int8, coarse": {"linear_entropy": 4.5, "embedding_entropy": 2},
}


class Trial(BaseModel):
    """What became of one candidate; figures are of the selection texts.

    Attributes:
        speedup: parent's time over the candidate's, median over the shapes.
        accuracy_drop: in points, of micro F1 where a text may have several labels; None where the texts have no labels.
        spearman_drop: of a number; so is `mae_rise`, in its units.
        broken: the bounds of the budget that it does not keep, or why it could not be made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    recipe: dict[str, Any]
    size_mb: float | None = None
    speedup: float | None = None
    agreement: float | None = None
    accuracy_drop: float | None = None
    spearman_drop: float | None = None
    mae_rise: float | None = None
    broken: tuple[str, ...] = ()
    on_front: bool = False


@dataclass(frozen=True)
class Search:
    """How long to look.

    Attributes:
        trials: candidates to try at most; where only answers are outside the budget, one more is recovered in int8.
        time_limit_s: no new candidate is begun after so many seconds.
    """

    trials: int = 12
    time_limit_s: float = 1800.0
    seed: int = 0


def search(
    parent: str,
    data: Path,
    budget: Budget,
    out: Path,
    columns: Columns,
    cache: Path,
    limits: Search,
    enough: int = ENOUGH_TEXTS,
    answer_error: float = ANSWER_ERROR,
    long_texts: LongTexts | None = None,
) -> Bundle:
    """Looks for the fastest bundle inside the budget, and writes it.

    The selection texts choose; the test texts judge only what was chosen. Where it fails there, the next best is
    judged, and so on; how many were judged is in `search.json` in the bundle, beside every candidate's figures.

    Raises:
        LatheError: parent, data or destination cannot be used.
        VerificationError: no candidate is inside the budget; says how near the nearest came to each bound.
    """
    require_replaceable(out)
    task = open_task(parent, data, columns, cache, enough, answer_error, long_texts)
    require_bounds_of(task.parent.task, budget, parent)
    with explained(cache, CACHE_REMEDY):  # every trial is noted there
        study = _study(task, budget, limits)
        trials = _marked(_try(task, study, budget, limits))
    print_trials(trials)
    inside = sorted(
        (trial for trial in trials if not trial.broken), key=lambda trial: trial.speedup or 0.0, reverse=True
    )
    refusals = []
    for judged, trial in enumerate(inside, start=1):
        candidate = build(task, Recipe.model_validate(trial.recipe))
        try:
            measured = judge(task, candidate)
            require_budget(measured.figures, budget)
        except VerificationError as error:
            refusals.append(f"candidate {trial.number}: {error}")
            console.print(f"On the test texts, {refusals[-1]}")
            continue
        record = SearchRecord(chosen=trial.number, judged=judged, trials=trials)
        return write(task, candidate, measured, out, {"search.json": record.model_dump_json(indent=2).encode()})
    raise VerificationError(_why_none(trials, refusals))


class SearchRecord(BaseModel):
    """`search.json` of a bundle.

    Attributes:
        chosen: number of the candidate that the bundle is.
        judged: how many candidates were judged on the test texts until one was inside the budget there too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    chosen: int
    judged: int
    trials: tuple[Trial, ...]


def print_trials(trials: Sequence[Trial]) -> None:
    """The candidates as a table; those that no other one beats at everything are marked."""
    table = Table(
        title="Candidates on the selection texts; * nothing else is better at everything", title_justify="left"
    )
    for heading in ("", "steps", "MB", "speed", "agreement", "drop", "outside the budget"):
        table.add_column(heading)
    for trial in trials:
        table.add_row(
            f"{trial.number}{'*' if trial.on_front else ''}",
            describe(trial.recipe),
            _number(trial.size_mb, "{:.1f}"),
            _number(trial.speedup, "{:.1f} x"),
            _number(trial.agreement, "{:.3f}"),
            _number(trial.accuracy_drop, "{:.1f}") or _number(trial.spearman_drop, "{:.3f}"),
            "; ".join(trial.broken),
        )
    console.print(table)


def describe(recipe: dict[str, Any]) -> str:
    """A recipe in a few words."""
    words = []
    for step in recipe["steps"]:
        match step["step"]:
            case "prune_vocabulary":
                words.append(f"vocabulary +{step['keep_most_frequent']}")
            case "prune_structure":
                words.append(f"keep {step['keep']:.0%}")
            case "recover" if step["quantization_aware"]:
                words.append("recover in int8")
            case "quantize" if step["linear_entropy"] or step["embedding_entropy"]:
                words.append("coarse int8")
            case "quantize" if step["embedding_bits"] == 4:
                words.append("int8, words in 4 bits")
            case "quantize":
                words.append("int8")
            case "export":
                pass
            case name:
                words.append(name)
    return ", ".join(words) or "float32"


def candidate_recipe(choices: dict[str, Any], budget: Budget) -> Recipe:
    """The recipe that these choices mean."""
    steps: list[dict[str, Any]] = []
    if choices["vocabulary"] != "all":
        steps.append({"step": "prune_vocabulary", "keep_most_frequent": int(choices["vocabulary"])})
    if choices["keep"] < 1:
        steps.append({"step": "prune_structure", "keep": choices["keep"]})
    if choices["recover"] == "int8" and choices["numbers"] in _QUANTIZE:
        steps.append({"step": "recover", "quantization_aware": True})
    elif choices["recover"] != "no" and choices["keep"] < 1:
        steps.append({"step": "recover"})
    steps.append({"step": "export"})
    if choices["numbers"] in _QUANTIZE:
        steps.append({"step": "quantize", **_QUANTIZE[choices["numbers"]]})
    # Storing compressed costs a moment at start and nothing after: only worth it where size is bounded.
    storage = "plain" if budget.max_size_mb is None and choices["numbers"] != "int8, coarse" else "zstd"
    return Recipe.model_validate(
        {"schema_version": 1, "name": "search", "steps": steps, "storage": storage, "budget": budget}
    )


def _study(task: Task, budget: Budget, limits: Search) -> optuna.Study:
    """The study of this parent, text and budget; goes on with an earlier one."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = task.cache / "searches"
    folder.mkdir(parents=True, exist_ok=True)
    name = key_of(task.key, budget.model_dump(), limits.seed, list(map(repr, _CHOICES.values())))
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / f"{name}.log"))),
        sampler=optuna.samplers.TPESampler(seed=limits.seed),
        directions=["minimize", "maximize", "maximize"],  # size, speed, agreement
        study_name=name,
        load_if_exists=True,
    )
    for choices in _FIRST:
        study.enqueue_trial(choices, skip_if_exists=True)
    return study


def _try(task: Task, study: optuna.Study, budget: Budget, limits: Search) -> list[Trial]:
    """Tries candidates until there are enough of them, or the time is up; gives these and those of earlier runs."""
    end = time.monotonic() + limits.time_limit_s
    earlier = [Trial.model_validate(known.user_attrs["trial"]) for known in study.trials if "trial" in known.user_attrs]
    done = {key_of(trial.recipe): trial for trial in earlier}
    proposals = 0
    while len(done) < limits.trials and proposals < _PROPOSALS_PER_TRIAL * limits.trials and time.monotonic() < end:
        proposals += 1
        proposed = study.ask(_CHOICES)
        recipe = candidate_recipe(proposed.params, budget)
        key = key_of(recipe.model_dump(mode="json"))
        if key not in done:  # other choices can mean the same recipe, which is measured once
            console.print(f"Candidate {len(done) + 1} of {limits.trials}: {describe(recipe.model_dump(mode='json'))}")
            done[key] = _measure(task, len(done) + 1, recipe, budget)
            proposed.set_user_attr("trial", done[key].model_dump(mode="json"))
        study.tell(proposed, **_outcome(done[key]))
    again = _in_int8(study, budget)
    if again is not None and time.monotonic() < end:
        recipe = candidate_recipe(again, budget)
        key = key_of(recipe.model_dump(mode="json"))
        if key not in done:
            console.print(f"Only answers are outside the budget; one more: {describe(recipe.model_dump(mode='json'))}")
            done[key] = _measure(task, len(done) + 1, recipe, budget)
            attributes = {"trial": done[key].model_dump(mode="json")}
            study.add_trial(
                optuna.create_trial(params=again, distributions=_CHOICES, user_attrs=attributes, **_outcome(done[key]))
            )
    return list(done.values())


def _in_int8(study: optuna.Study, budget: Budget) -> dict[str, Any] | None:
    """Choices of the int8 candidate with the best answers among those small and fast enough, recovered in int8.

    None where there is no such candidate, or one is inside the budget already.
    """
    elsewhere = budget.model_copy(update=dict.fromkeys(_OF_ANSWERS))
    tried = [
        (known.params, Trial.model_validate(known.user_attrs["trial"]))
        for known in study.trials
        if "trial" in known.user_attrs
    ]
    candidates = [
        (trial.agreement, params)
        for params, trial in tried
        if trial.agreement is not None and params["numbers"] in _QUANTIZE and not broken_bounds(trial, elsewhere)
    ]
    if not candidates or any(not trial.broken for _, trial in tried):
        return None
    _, params = max(candidates, key=lambda candidate: candidate[0])
    return {**params, "recover": "int8"}


def _outcome(trial: Trial) -> dict[str, Any]:
    """Size, speed and agreement, as the study weighs them; or that it failed."""
    if trial.size_mb is None:
        return {"state": TrialState.FAIL}
    return {"values": [trial.size_mb, trial.speedup or 0.0, trial.agreement or 0.0]}


def _measure(task: Task, number: int, recipe: Recipe, budget: Budget) -> Trial:
    """Builds a candidate and measures it on the selection texts."""
    plain = recipe.model_dump(mode="json")
    selection = task.splits.selection
    expected = task.selection_logits
    try:
        candidate = build(task, recipe)
        with opened(task, candidate) as classifier:
            got = predict(classifier, selection.texts, "Judge the candidate")
            require_sane(expected, got, task.parent.task)
            latency = compare_latency(ParentClassifier(task.parent), classifier, selection.texts)
    except (VerificationError, CheckpointError) as error:  # a collapse, or a step that this architecture does not take
        return Trial(number=number, recipe=plain, broken=(str(error),))
    trial = Trial(
        number=number,
        recipe=plain,
        size_mb=round(len(candidate.model) / 1e6, 2),
        speedup=median_speedup(latency),
        agreement=agreement(expected, got, task.parent.task),
    ).model_copy(update=_losses(expected, got, task.parent.task, selection))
    return trial.model_copy(update={"broken": broken_bounds(trial, budget)})


def _losses(expected: Logits, got: Logits, task: ModelTask, selection: Examples) -> dict[str, float | None]:
    """What a candidate has lost against the labels."""
    if isinstance(task, Labelling):
        before, after = (quality(logits, task, selection).points for logits in (expected, got))
        return {"accuracy_drop": None if before is None or after is None else 100 * (before - after)}
    assert isinstance(task, Number)  # there is no third
    drop, rise = number_losses(*(number_quality(logits, task, selection).number for logits in (expected, got)))
    return {"spearman_drop": drop, "mae_rise": rise}


def broken_bounds(trial: Trial, budget: Budget) -> tuple[str, ...]:
    """The bounds that a measured candidate does not keep, each with both numbers."""
    measured = {
        "max_size_mb": ("size_mb", trial.size_mb),
        "max_accuracy_drop": ("accuracy drop", trial.accuracy_drop),
        "max_spearman_drop": ("drop of Spearman's correlation", trial.spearman_drop),
        "max_mae_rise": ("rise of the mean absolute error", trial.mae_rise),
        "min_agreement": ("agreement", trial.agreement),
        "min_speedup": ("speedup", trial.speedup),
    }
    broken = []
    for bound in budget.broken({bound: value for bound, (_, value) in measured.items()}):
        what, value = measured[bound]
        found = "unknown without labels, not" if value is None else f"{value:.3g}"
        broken.append(
            f"{what} {found} {'above' if bound.startswith('max_') else 'below'} {bound} {getattr(budget, bound):g}"
        )
    return tuple(broken)


def _marked(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The trials in order, those on the Pareto front of size, speed and agreement marked."""

    def figures(trial: Trial) -> tuple[float, float, float]:
        assert trial.size_mb is not None
        assert trial.speedup is not None
        assert trial.agreement is not None
        return -trial.size_mb, trial.speedup, trial.agreement

    measured = [trial for trial in trials if trial.size_mb is not None]
    beaten = {
        one.number
        for one in measured
        for other in measured
        if figures(other) != figures(one) and all(b >= a for a, b in zip(figures(one), figures(other), strict=True))
    }
    return tuple(
        trial.model_copy(update={"on_front": trial.size_mb is not None and trial.number not in beaten})
        for trial in sorted(trials, key=lambda trial: trial.number)
    )


def _why_none(trials: Sequence[Trial], refusals: Sequence[str]) -> str:
    """Which bound stopped the search: the one that most candidates broke, and who came nearest."""
    if refusals:
        return f"nothing was written; inside the budget on the selection texts but not on test: {'; '.join(refusals)}"
    nearest = min(trials, key=lambda trial: (len(trial.broken), trial.number), default=None)
    if nearest is None:
        return "nothing was written: no candidate was finished; give the search more time with --time-limit"
    return (
        f"nothing was written: none of {len(trials)} candidates is inside the budget. Candidate {nearest.number} "
        f"({describe(nearest.recipe)}) came nearest: {'; '.join(nearest.broken)}. Loosen that bound, or add text"
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
