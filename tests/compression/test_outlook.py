import json
from pathlib import Path

import pytest

from compression.bundle import StepFigures
from compression.data import Examples, Splits
from compression.errors import VerificationError
from compression.outlook import announce, minutes, remedy, require_hope, texts_wanted
from compression.recipe import Budget, load_recipe

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "compression" / "results"
SMALL = load_recipe("small")  # prune_vocabulary, prune_structure, recover, export, quantize; agreement from 0.85


def splits(calibration: int, selection: int = 100, test: int = 300) -> Splits:
    def texts(count: int) -> Examples:
        return Examples(("text",) * count, (None,) * count, (None,) * count)

    return Splits(texts(calibration), texts(selection), texts(test))


def done(*agreements: float) -> list[StepFigures]:
    steps = [step.step for step in SMALL.steps]
    return [
        StepFigures(step=step, seconds=1.0, size_mb=40.0, agreement=agreement, accuracy=None, cached=False)
        for step, agreement in zip(steps, agreements, strict=False)
    ]


@pytest.mark.parametrize(("name", "texts"), [("float", 0), ("safe", 300), ("balanced", 4000), ("small", 4000)])
def test_texts_wanted(name: str, texts: int) -> None:
    assert max(map(texts_wanted, load_recipe(name).steps)) == texts


@pytest.mark.parametrize("name", ["safe", "balanced", "small"])
def test_the_time_is_that_of_the_measured_runs_to_a_factor_of_two(name: str) -> None:
    measured = json.loads((RESULTS / "sst2.json").read_text())
    (seconds,) = [row["seconds"] for row in measured["rows"] if row["name"] == f"Lathe, {name}"]
    texts = splits(measured["texts"]["calibration"], 600, measured["texts"]["test"])
    assert 0.5 < 60 * minutes(load_recipe(name), texts, 0.003) / seconds < 2  # MiniLM took 3 ms a text there


def test_what_is_wanted_and_there_is_said_before_work(capsys: pytest.CaptureFixture[str]) -> None:
    announce(SMALL, splits(302, 60, 362), 0.01)
    said = capsys.readouterr().err
    assert "Recipe small: looks at up to 4000 texts to calibrate with; there are 302, 60 to select with and 362" in said
    assert "About 2 min" in said
    assert "warning: the step recover looks at 4000 texts where it can and finds 302, so" in said
    announce(load_recipe("safe"), splits(302, 60, 362), 0.01)
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "agreements",
    [
        (1.0, 0.3),  # recovery is to come
        (1.0, 0.3, 0.86),
        (1.0, 0.3, 0.80),  # of 100 texts: 0.87 is in its interval
        (1.0, 0.3, 0.90, 0.90, 0.84),
    ],
)
def test_a_candidate_that_may_come_inside_goes_on(agreements: tuple[float, ...]) -> None:
    require_hope(done(*agreements), SMALL, splits(302))


def test_a_lost_candidate_stops_with_a_table_and_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(VerificationError) as raised:
        require_hope(done(1.0, 0.3, 0.70), SMALL, splits(302))
    assert str(raised.value) == (
        "lost after the step recover, nothing was written: agreement 0.7000 on 100 selection texts, at best 0.7811 by "
        "its 95 % interval, is below min_agreement 0.85. Add text without labels (the recipe looks at 4000, there are "
        "302); cut less (a larger keep in prune_structure), or take --recipe safe, which cuts nothing; "
        "or accept it: --budget min_agreement=0.7"
    )
    table = capsys.readouterr().err
    assert "What was reached, on 100 selection texts" in table
    assert [line.split()[1] for line in table.splitlines() if "40.0" in line] == [
        "prune_vocabulary", "prune_structure", "recover"
    ]  # fmt: skip


def test_a_model_that_is_too_large_is_not_judged() -> None:
    recipe = SMALL.model_copy(update={"budget": Budget(max_size_mb=5)})
    require_hope(done(1, 1, 1, 1, 1), recipe, splits(302), 5.0)
    with pytest.raises(
        VerificationError, match=r"the model has 5\.01 MB, above max_size_mb 5\.0\. Cut more: .* small is"
    ):
        require_hope(done(1, 1, 1, 1, 1), recipe, splits(302), 5.01)


def test_the_remedy_is_of_what_was_not_kept() -> None:
    safe = load_recipe("safe")
    assert remedy(safe, splits(400), {"min_agreement": 0.918}) == (
        "Set min_agreement in the step quantize, which leaves sensitive layers in float; "
        "or accept it: --budget min_agreement=0.91"
    )
    assert remedy(safe, splits(400), {"min_speedup": 2.345}) == (
        "Cut more: of the presets, small is the smallest and balanced the fastest; "
        "or accept it: --budget min_speedup=2.34"
    )
    assert "add text" in remedy(SMALL, splits(302), {}).lower()  # collapsed
