from pathlib import Path

import pytest

from compression.errors import RecipeError
from compression.recipe import ExportStep, QuantizeStep, load_recipe, preset_names

HEAD = "schema_version: 1\nname: mine\n"


@pytest.mark.parametrize("name", preset_names())
def test_presets_load_under_their_names(name: str) -> None:
    assert load_recipe(name).name == name


def test_a_file_is_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(HEAD + "steps: [{step: export}, {step: quantize, embeddings: false}]\nbudget: {max_size_mb: 5}\n")
    recipe = load_recipe(str(path))
    assert recipe.steps == (ExportStep(step="export"), QuantizeStep(step="quantize", embeddings=False))
    assert recipe.budget.max_size_mb == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not YAML"),
        ("[]", "valid dictionary"),
        (HEAD + "steps: []", "must begin with the one export step"),
        (HEAD + "steps: [{step: quantize}]", "must begin with the one export step"),
        (HEAD + "steps: [{step: export}, {step: export}]", "must begin with the one export step"),
        (HEAD + "steps: [{step: export}, {step: quantize}, {step: quantize}]", "more than one quantize step"),
        (HEAD + "steps: [{step: export, opsett: 18}]", "steps.0.export.opsett: Extra inputs"),
        (HEAD + "steps: [{step: export, opset: 17}]", "steps.0.export.opset"),
        (HEAD + "steps: [{step: export}]\nbudgett: {}", "budgett: Extra inputs"),
        (HEAD + "steps: [{step: export}]\nbudget: {min_agreement: 95}", "budget.min_agreement"),
        (HEAD.replace("1", "2") + "steps: [{step: export}]", "schema_version"),
    ],
)
def test_what_a_recipe_cannot_mean_is_refused_by_place(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(content)
    with pytest.raises(RecipeError) as refusal:
        load_recipe(str(tmp_path / "r.yaml"))
    assert message in str(refusal.value)


def test_an_unknown_name_lists_the_presets() -> None:
    with pytest.raises(RecipeError, match="float, safe"):
        load_recipe("fastest")
