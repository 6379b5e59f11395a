"""The manifest, `bundle.json`: what a bundle is, what it was made from, what was measured."""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from compression.bundle.figures import Figures, Record, absent
from compression.bundle.inputs import InputKind
from compression.bundle.task import Number, SeveralLabels, SingleLabel, Task, TaskName
from compression.bundle.windows import LongTexts

SCHEMA_VERSION: Literal[2] = 2
FileName = str
_MODEL_FILES = ("model.onnx", "tokenizer.json")  # beginnings of names: a large model keeps its weights in a second file


class ParentModel(Record):
    """The model that was compressed: as it was named, and the sha256 over its weights."""

    name: str
    sha256: str


class DataUsed(Record):
    """The text that calibrated and judged the bundle."""

    name: str
    sha256: str
    calibration_texts: int
    selection_texts: int
    test_texts: int
    labelled_test_texts: int


class NumberOptions(Record):
    """What makes a number of the model's one output, and how far such numbers lie apart.

    Attributes:
        spread: standard deviation of the parent's numbers on the selection texts.
    """

    function: Literal["none", "sigmoid"]
    spread: float = Field(gt=0)


class AbstainOptions(Record):
    """Which answers the model does not stand by.

    Attributes:
        below: the calibrated confidence that an answer needs; see `Labelling.answer_confidence`.
        error: fraction of wrong ones among the answers at or over it, at most, for which that was chosen.
    """

    below: float = Field(ge=0, le=1)
    error: float = Field(gt=0, lt=1)


class RuntimeOptions(Record):
    """How the model is to be run.

    Attributes:
        pad_token_id: what fills `input_ids` behind a text that is shorter than the longest of its batch.
        disabled_optimizers: ONNX Runtime fusions that slow this model down.
        batch_exact: whether an answer is independent of the other texts in its batch.
        temperature: divides the logits to give calibrated scores (Guo et al. 2017); 1 where there were no labels.
        thresholds: of each label, where a text may have several: probabilities at temperature 1; a text gets the labels
            at or over theirs.
        number: where the model gives one.
        abstain: None where the bundle abstains from no answer.
        long_texts: what is read of texts that are longer than the window; None: they are cut to it.
    """

    pad_token_id: int
    disabled_optimizers: tuple[str, ...] = ()
    batch_exact: bool
    temperature: float = Field(default=1.0, gt=0)
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None = Field(default=None, exclude_if=absent)
    number: NumberOptions | None = Field(default=None, exclude_if=absent)
    abstain: AbstainOptions | None = Field(default=None, exclude_if=absent)
    long_texts: LongTexts | None = Field(default=None, exclude_if=absent)


def _are_texts(kind: InputKind) -> bool:
    return kind == "texts"


class Manifest(Record):
    """`bundle.json` without its own version and digest, which `to_json` adds and `from_json` checks.

    Attributes:
        inputs: what the model reads; bundles of texts do not say it, as older ones do not.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    task: TaskName = "text-classification"
    inputs: InputKind = Field(default="texts", exclude_if=_are_texts)
    labels: tuple[str, ...]
    max_length: int = Field(ge=3)  # tokens, special tokens included
    runtime: RuntimeOptions
    recipe: dict[str, Any]
    parent: ParentModel
    data: DataUsed
    figures: Figures
    files: dict[FileName, str]  # name: sha256
    tools: dict[str, str]  # package: version

    @model_validator(mode="after")
    def _options_fit_the_task(self) -> Self:
        thresholds, number, count = self.runtime.thresholds, self.runtime.number, len(self.labels)
        one = self.task == Number.name
        if (thresholds is not None) != (self.task == SeveralLabels.name) or len(thresholds or self.labels) != count:
            raise ValueError(
                f"the task {self.task} with {count} labels and "
                f"{'no' if thresholds is None else len(thresholds)} thresholds; several labels need one for each"
            )
        if (number is not None) != one or (count == 1) != one or not count:
            raise ValueError(
                f"the task {self.task} with {count} labels and {'no' if number is None else 'the'} options of a "
                "number; a number needs these and one name, and others two labels or more"
            )
        if one and self.runtime.abstain is not None:
            raise ValueError(f"the task {self.task} with a confidence to abstain below; a number has no confidence")
        return self

    @model_validator(mode="after")
    def _pairs_are_cut(self) -> Self:
        if self.inputs == "pairs" and self.runtime.long_texts is not None:
            raise ValueError("long_texts is for single texts, and inputs are pairs")
        return self

    def version(self) -> str:
        """sha256 over what the bundle is: the same input gives the same version on one machine, however fast it ran.

        What was measured stays out, and so do the report and the card, which say it.
        """
        identity = self.model_dump(mode="json", exclude={"figures", "files", "tools"})
        identity["files"] = {name: digest for name, digest in self.files.items() if name.startswith(_MODEL_FILES)}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def digest(self) -> str:
        """sha256 over everything above, figures and every file's sha256 included: for integrity."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The text of `bundle.json`."""
        content = {"version": self.version(), "digest": self.digest(), **self.model_dump(mode="json")}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: bytes) -> "Manifest":
        """Parses and checks a manifest.

        Raises:
            ValueError: not JSON, not this schema, or changed since it was written.
        """
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
        if content.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"schema_version is {content.get('schema_version')!r}, this Lathe reads {SCHEMA_VERSION}")
        version, digest = content.pop("version", None), content.pop("digest", None)
        manifest = cls.model_validate(content)
        if manifest.digest() != digest:
            raise ValueError(f"its content has the digest {manifest.digest()}, but it says {digest}")
        if manifest.version() != version:
            raise ValueError(f"its content has the version {manifest.version()}, but it says {version}")
        return manifest


def task_of(manifest: Manifest) -> Task:
    """The task of a bundle."""
    labels, options = manifest.labels, manifest.runtime
    if options.number is not None:
        return Number(labels, options.number.function, options.number.spread)
    return SingleLabel(labels) if options.thresholds is None else SeveralLabels(labels, options.thresholds)
