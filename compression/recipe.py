"""The recipe: the ordered, declarative list of steps and the budget. A YAML file, or one of the named presets."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from compression.errors import RecipeError


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PruneVocabularyStep(_Strict):
    """Pieces of the vocabulary that the calibration text does not use go, but for the commonest.

    Attributes:
        keep_most_frequent: so many of the pieces that the text did not use stay.
    """

    step: Literal["prune_vocabulary"]
    keep_most_frequent: int = Field(default=4000, ge=0)


class DropLayersStep(_Strict):
    """Whole layers go, each time the one whose absence moves the parent's predictions least.

    Attributes:
        count: how many layers to remove.
    """

    step: Literal["drop_layers"]
    count: int = Field(ge=1)


class PruneStructureStep(_Strict):
    """Attention heads and FFN neurons go; what is left is refitted to the parent's outputs, without labels.

    Attributes:
        keep: fraction of the encoder's time that may stay.
        texts: how many of the calibration texts it looks at.
    """

    step: Literal["prune_structure"]
    keep: float = Field(gt=0, lt=1)
    texts: int = Field(default=1024, ge=16)


class RecoverStep(_Strict):
    """Short distillation from the parent on the calibration texts; labels are not used.

    Attributes:
        epochs: at most so many.
        texts: in an epoch; the next one goes on with others, where there are more.
        learning_rate: of AdamW at its highest.
        patience: epochs without a smaller loss on the selection texts before it stops.
        hidden: weight of the relative squared error of each layer's hidden states, beside that of the predictions.
        quantization_aware: whether it trains with the int8 of a `quantize` step to come in its forward pass.
        seed: of the order and the variations of the texts.
    """

    step: Literal["recover"]
    epochs: int = Field(default=2, ge=1)
    texts: int = Field(default=4000, ge=16)
    learning_rate: float = Field(default=5e-5, gt=0)
    patience: int = Field(default=2, ge=1)
    hidden: float = Field(default=1.0, ge=0)
    quantization_aware: bool = False
    seed: int = 0


class SparsifyStep(_Strict):
    """The smallest weights of the encoder's linear layers become zero.

    Attributes:
        sparsity: fraction of zeros; with the pattern 2:4 it is always a half.
        pattern: `unstructured` pays in stored size, `2:4` on GPUs with sparse tensor cores.
        score: what a weight is worth: its magnitude times the size of its input (wanda), its magnitude, or the
            magnitude that it has after a short distillation (movement).
    """

    step: Literal["sparsify"]
    sparsity: float = Field(default=0.5, gt=0, lt=1)
    pattern: Literal["unstructured", "2:4"] = "unstructured"
    score: Literal["wanda", "magnitude", "movement"] = "wanda"


class ExportStep(_Strict):
    """PyTorch to float32 ONNX graph.

    Attributes:
        opset: version of the ONNX operators.
    """

    step: Literal["export"]
    opset: int = Field(default=18, ge=18, le=21)


class QuantizeStep(_Strict):
    """Linear layers to static int8, embedding tables to int8 rows.

    Attributes:
        calibration_texts: how many of the calibration texts the activation ranges are taken from.
        embedding_bits: of the word embedding, which is stored so; null leaves the embedding tables in float.
        float_layers: names (parts of names) of linear layers that stay in float; each must match one.
        min_agreement: fraction of the selection texts that must keep the float model's answer; the layers that int8
            hurts most stay in float until they do.
        linear_entropy: bits that a weight of a linear takes when it is stored compressed (some 7 if left alone).
        embedding_entropy: the same of the word embedding, on average: rare tokens take fewer, frequent ones more.
    """

    step: Literal["quantize"]
    calibration_texts: int = Field(default=300, ge=16)
    embedding_bits: Literal[8, 4] | None = 8
    linear_entropy: float | None = Field(default=None, ge=3, le=8)
    embedding_entropy: float | None = Field(default=None, ge=1.5, le=8)
    float_layers: tuple[str, ...] = ()
    min_agreement: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _entropy_is_of_8_bits(self) -> Self:
        if self.embedding_entropy is not None and self.embedding_bits != 8:
            raise ValueError("embedding_entropy makes rows of 8 bits coarser; leave embedding_bits at 8")
        return self


class QuantizeDynamicStep(_Strict):
    """Linear layers to int8 with ranges taken anew from each batch: an answer depends on its batch-mates.

    Attributes:
        embedding_bits: as in `quantize`.
    """

    step: Literal["quantize_dynamic"]
    embedding_bits: Literal[8, 4] | None = 8


class QuantizeWeightsStep(_Strict):
    """Weights alone to 8 or 4 bits; activations stay in float.

    Attributes:
        bits: of a weight.
        block_size: weights that share a scale.
        embedding_bits: as in `quantize`.
    """

    step: Literal["quantize_weights"]
    bits: Literal[4, 8] = 8
    block_size: Literal[16, 32, 64, 128] = 32
    embedding_bits: Literal[8, 4] | None = 8


class Float16Step(_Strict):
    """Half precision, for GPUs.

    Attributes:
        keep_float32: names (parts of names) of graph nodes that stay in float32; each must match one.
    """

    step: Literal["float16"]
    keep_float32: tuple[str, ...] = ()


Step = Annotated[
    PruneVocabularyStep
    | DropLayersStep
    | PruneStructureStep
    | RecoverStep
    | SparsifyStep
    | ExportStep
    | QuantizeStep
    | QuantizeDynamicStep
    | QuantizeWeightsStep
    | Float16Step,
    Field(discriminator="step"),
]
_AFTER_EXPORT = ("quantize", "quantize_dynamic", "quantize_weights", "float16")


def _absent(value: object) -> bool:
    """Whether a bound is left out where a recipe is written: one that older recipes, and versions, have not."""
    return value is None


class Budget(_Strict):
    """What the result may cost; a figure that is not set is not bounded.

    Attributes:
        min_agreement: fraction of the test texts on which bundle and parent give the same label; or numbers at most a
            fifth of the standard deviation of the parent's apart.
        max_accuracy_drop: points of accuracy below the parent, where the test texts have labels; of micro F1 where a
            text may have several.
        max_spearman_drop: of a model that gives a number: by how much its rank correlation with the labels may be lower
            than the parent's.
        max_mae_rise: likewise, by how much its mean absolute error may be higher, in the units of the number.
        max_size_mb: of the stored model, in 10^6 bytes.
        min_speedup: times as fast as the parent in PyTorch float32, median over the shapes that are timed.
    """

    min_agreement: float | None = Field(default=None, ge=0, le=1)
    max_accuracy_drop: float | None = Field(default=None, ge=0, le=100)
    max_spearman_drop: float | None = Field(default=None, ge=0, le=2, exclude_if=_absent)
    max_mae_rise: float | None = Field(default=None, ge=0, exclude_if=_absent)
    max_size_mb: float | None = Field(default=None, gt=0)
    min_speedup: float | None = Field(default=None, gt=0)

    def broken(self, measured: Mapping[str, float | None]) -> list[str]:
        """The bounds that are set and not kept.

        Args:
            measured: by bound, what it bounds, in its unit; None where it could not be measured, which keeps no bound.
        """

        def kept(bound: str, allowed: float) -> bool:
            value = measured[bound]
            return value is not None and (value <= allowed if bound.startswith("max_") else value >= allowed)

        return [bound for bound, allowed in self if allowed is not None and not kept(bound, allowed)]


class Recipe(_Strict):
    """Steps in order, and the budget that the result must keep.

    Attributes:
        schema_version: of the recipe's format.
        name: stands in the bundle's manifest and report.
        steps: what is done, in order; `export` once, those that change the PyTorch model before it.
        storage: `zstd` stores the model compressed: smaller on disk, the same in memory.
        budget: what the result may cost; outside it nothing is written.
    """

    schema_version: Literal[1]
    name: str
    steps: tuple[Step, ...]
    storage: Literal["plain", "zstd"] = "plain"
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _in_an_order_that_works(self) -> Self:
        kinds = [step.step for step in self.steps]
        if kinds.count("export") != 1:
            raise ValueError("steps must hold the export step, once")
        at = kinds.index("export")
        for kind in kinds[:at]:
            if kind in _AFTER_EXPORT:
                raise ValueError(f"{kind} works on the exported graph; put it behind export")
        for kind in kinds[at + 1 :]:
            if kind not in _AFTER_EXPORT:
                raise ValueError(f"{kind} works on the PyTorch model; put it before export")
        for step in self.steps:
            coarse = isinstance(step, QuantizeStep) and (step.linear_entropy or step.embedding_entropy)
            if coarse and self.storage != "zstd":
                raise ValueError(
                    "linear_entropy and embedding_entropy pay only when stored compressed; set storage: zstd"
                )
        if len(kinds[at + 1 :]) > 1:
            raise ValueError(f"{', '.join(kinds[at + 1 :])} exclude each other; keep one")
        return self


def preset_names() -> list[str]:
    """Names of the recipes that come with Lathe."""
    return sorted(path.name.removesuffix(".yaml") for path in _presets().iterdir() if path.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """A preset as its YAML file has it, the comment that says what it is for included.

    Raises:
        RecipeError: there is none of that name.
    """
    if name not in preset_names():
        raise RecipeError(f"{name}: no such preset; there are {', '.join(preset_names())}")
    return (_presets() / f"{name}.yaml").read_text("utf-8")


def load_recipe(name_or_path: str) -> Recipe:
    """Reads a preset by its name, or a YAML file.

    Raises:
        RecipeError: no such recipe, unreadable YAML, unknown keys or values out of range; names each of them.
    """
    import yaml

    if name_or_path in preset_names():
        text = preset_text(name_or_path)
    elif Path(name_or_path).is_file():
        try:
            text = Path(name_or_path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{name_or_path}: not a UTF-8 text file that can be read: {error}") from error
    else:
        raise RecipeError(f"{name_or_path}: neither a recipe file nor one of the presets {', '.join(preset_names())}")
    try:
        return Recipe.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise RecipeError(f"{name_or_path}: not YAML: {error}") from error
    except ValidationError as error:
        raise RecipeError(f"{name_or_path}: {_problems(error, 'recipe')}") from error


def parse_budget(bounds: Sequence[str]) -> Budget:
    """Reads bounds that are written as `max_size_mb=8`.

    Raises:
        RecipeError: an unknown bound, or a value out of range; names it and the bounds that there are.
    """
    pairs = [bound.partition("=") for bound in bounds]
    try:
        return Budget.model_validate({name.strip(): value.strip() for name, _, value in pairs})
    except ValidationError as error:
        known = ", ".join(Budget.model_fields)
        raise RecipeError(f"--budget: {_problems(error, 'budget')}; write BOUND=VALUE with one of {known}") from error


def _problems(error: ValidationError, whole: str) -> str:
    return "; ".join(f"{'.'.join(map(str, problem['loc'])) or whole}: {_said(problem)}" for problem in error.errors())


def _said(problem: Any) -> str:
    match problem["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "there is no such field"
        case "union_tag_invalid":
            return f"{problem['ctx']['tag']!r} is no step; there are {problem['ctx']['expected_tags']}"
        case _:
            value = "" if isinstance(problem["input"], dict | list) else f"{problem['input']!r}: "
            return f"{value}{problem['msg'].removeprefix('Value error, ')}"


def _presets() -> resources.abc.Traversable:
    return resources.files("compression") / "recipes"
