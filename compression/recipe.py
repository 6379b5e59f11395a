"""The recipe: the ordered, declarative list of steps and the budget. A YAML file, or one of the named presets."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from compression.errors import RecipeError


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExportStep(_Strict):
    """Parent to float32 ONNX graph."""

    step: Literal["export"]
    opset: int = Field(default=18, ge=18, le=21)


class QuantizeStep(_Strict):
    """Linear layers to static int8, embedding tables to int8 rows.

    Attributes:
        calibration_texts: how many of the calibration texts the activation ranges are taken from.
        embeddings: whether the embedding tables are quantized too.
        float_layers: names (parts of names) of linear layers that stay in float; each must match one.
    """

    step: Literal["quantize"]
    calibration_texts: int = Field(default=300, ge=16)
    embeddings: bool = True
    float_layers: tuple[str, ...] = ()


Step = Annotated[ExportStep | QuantizeStep, Field(discriminator="step")]


class Budget(_Strict):
    """What the result may cost; a figure that is not set is not bounded.

    Attributes:
        min_agreement: fraction of the test texts on which bundle and parent give the same label.
        max_accuracy_drop: points of accuracy below the parent, where the test texts have labels.
        max_size_mb: of model.onnx, in 10^6 bytes.
        min_speedup: times as fast as the parent in PyTorch float32, median over the shapes that are timed.
    """

    min_agreement: float | None = Field(default=None, ge=0, le=1)
    max_accuracy_drop: float | None = Field(default=None, ge=0, le=100)
    max_size_mb: float | None = Field(default=None, gt=0)
    min_speedup: float | None = Field(default=None, gt=0)


class Recipe(_Strict):
    """Steps in order, and the budget that the result must keep."""

    schema_version: Literal[1]
    name: str
    steps: tuple[Step, ...]
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _export_comes_first_and_once(self) -> Self:
        kinds = [step.step for step in self.steps]
        if kinds[:1] != ["export"] or kinds.count("export") != 1:
            raise ValueError("steps must begin with the one export step")
        if kinds.count("quantize") > 1:
            raise ValueError("steps hold more than one quantize step")
        return self


def preset_names() -> list[str]:
    """Names of the recipes that come with Lathe."""
    return sorted(path.name.removesuffix(".yaml") for path in _presets().iterdir() if path.name.endswith(".yaml"))


def load_recipe(name_or_path: str) -> Recipe:
    """Reads a preset by its name, or a YAML file.

    Raises:
        RecipeError: no such recipe, unreadable YAML, unknown keys or values out of range; names each of them.
    """
    import yaml

    if name_or_path in preset_names():
        text = (_presets() / f"{name_or_path}.yaml").read_text("utf-8")
    elif Path(name_or_path).is_file():
        text = Path(name_or_path).read_text("utf-8")
    else:
        raise RecipeError(f"{name_or_path}: neither a recipe file nor one of the presets {', '.join(preset_names())}")
    try:
        return Recipe.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise RecipeError(f"{name_or_path}: not YAML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'recipe'}: {problem['msg']}" for problem in error.errors()
        )
        raise RecipeError(f"{name_or_path}: {problems}") from error


def _presets() -> resources.abc.Traversable:
    return resources.files("compression") / "recipes"
