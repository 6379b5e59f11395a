from pathlib import Path

import pytest
from click.testing import CliRunner

from compression.errors import RecipeError
from compression.recipe import Budget, ExportStep, QuantizeStep, load_recipe, parse_budget, preset_names
from lathe import main

HEAD = "schema_version: 1\nname: mine\n"


@pytest.mark.parametrize("name", preset_names())
def test_presets_load_under_their_names(name: str) -> None:
    assert load_recipe(name).name == name


def test_presets_are_listed_with_their_purpose_and_shown_as_files_to_start_from(tmp_path: Path) -> None:
    listed = CliRunner().invoke(main, ["recipe", "list"]).stdout.splitlines()
    assert [line.split()[0] for line in listed] == preset_names()
    assert all(len(line.split()) > 4 for line in listed)
    path = tmp_path / "mine.yaml"
    path.write_text(CliRunner().invoke(main, ["recipe", "show", "balanced"]).stdout)
    assert load_recipe(str(path)) == load_recipe("balanced")
    result = CliRunner().invoke(main, ["recipe", "show", "none"])
    assert result.exit_code == 1
    assert result.stderr == "error: none: no such preset; there are balanced, float, gpu, safe, small\n"


def test_a_file_is_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        HEAD + "steps: [{step: export}, {step: quantize, embedding_bits: null}]\nbudget: {max_size_mb: 5}\n"
    )
    recipe = load_recipe(str(path))
    assert recipe.steps == (ExportStep(step="export"), QuantizeStep(step="quantize", embedding_bits=None))
    assert recipe.budget.max_size_mb == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not YAML"),
        ("[]", "valid dictionary"),
        (HEAD + "steps: []", "must hold the export step, once"),
        (HEAD + "steps: [{step: quantize}]", "must hold the export step, once"),
        (HEAD + "steps: [{step: export}, {step: export}]", "must hold the export step, once"),
        (HEAD + "steps: [{step: quantize}, {step: export}]", "quantize works on the exported graph"),
        (HEAD + "steps: [{step: export}, {step: recover}]", "recover works on the PyTorch model"),
        (HEAD + "steps: [{step: export}, {step: quantize}, {step: float16}]", "exclude each other"),
        (HEAD + "steps: [{step: prune_structure, keep: 1.5}, {step: export}]", "steps.0.prune_structure.keep"),
        (HEAD + "steps: [{step: distil}, {step: export}]", "steps.0: 'distil' is no step; there are"),
        (HEAD + "steps: [{step: export, opsett: 18}]", "steps.0.export.opsett: there is no such field"),
        (HEAD + "steps: [{step: export, opset: 17}]", "steps.0.export.opset"),
        (HEAD + "steps: [{step: export}]\nbudgett: {}", "budgett: there is no such field"),
        (HEAD + "steps: [{step: export}]\nbudget: {min_agreement: 95}", "budget.min_agreement: 95: "),
        (HEAD + "steps: [{step: export}, {step: quantize, linear_entropy: 5}]", "set storage: zstd"),
        (
            HEAD + "steps: [{step: export}, {step: quantize, embedding_bits: 4, embedding_entropy: 2}]",
            "leave embedding_bits at 8",
        ),
        ("name: mine\nsteps: [{step: export}]", "schema_version: is missing"),
        (HEAD.replace("1", "2") + "steps: [{step: export}]", "schema_version"),
    ],
)
def test_what_a_recipe_cannot_mean_is_refused_by_place(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(content)
    with pytest.raises(RecipeError) as refusal:
        load_recipe(str(tmp_path / "r.yaml"))
    assert message in str(refusal.value)


def test_an_unknown_name_lists_the_presets() -> None:
    with pytest.raises(RecipeError, match="balanced, float, gpu, safe, small"):
        load_recipe("fastest")


def test_bounds_on_the_command_line_are_a_budget() -> None:
    assert parse_budget(["max_size_mb=8", "min_speedup=5.5"]) == Budget(max_size_mb=8, min_speedup=5.5)


@pytest.mark.parametrize("bound", ["max_size=8", "max_size_mb", "max_size_mb=big", "min_agreement=95"])
def test_a_bound_that_cannot_be_meant_is_refused(bound: str) -> None:
    with pytest.raises(RecipeError, match=r"--budget: .*max_mae_rise, max_size_mb, min_speedup"):
        parse_budget([bound])
