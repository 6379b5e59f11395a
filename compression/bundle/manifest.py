"""The manifest, `bundle.json`: what a bundle is, what it was made from, what was measured."""

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Literal[1] = 1
FileName = str


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ParentModel(_Record):
    """The model that was compressed: as it was named, and the sha256 over its weights."""

    name: str
    sha256: str


class DataUsed(_Record):
    """The text that calibrated and judged the bundle."""

    name: str
    sha256: str
    calibration_texts: int
    test_texts: int
    labelled_test_texts: int


class RuntimeOptions(_Record):
    """How the model is to be run.

    Attributes:
        pad_token_id: what fills `input_ids` behind a text that is shorter than the longest of its batch.
        disabled_optimizers: ONNX Runtime fusions that slow this model down.
        batch_exact: whether an answer is independent of the other texts in its batch.
        temperature: divides the logits to give calibrated scores (Guo et al. 2017); 1 where there were no labels.
    """

    pad_token_id: int
    disabled_optimizers: tuple[str, ...] = ()
    batch_exact: bool
    temperature: float = Field(default=1.0, gt=0)


class ModelFigures(_Record):
    """Of one model on the test texts. Fractions, not percent; None where there were no labels."""

    size_mb: float  # 10^6 bytes: weights of a parent, model.onnx of a bundle
    accuracy: float | None = None
    macro_f1: float | None = None


class Latency(_Record):
    """Time of one forward pass of the parent (PyTorch float32) over that of the bundle, one thread each.

    Attributes:
        tokens: length of each of the batch's texts.
        ratio: median of the ratios of alternating runs; above 1 the bundle is faster.
        ratio_low: lower quartile of those ratios.
        ratio_high: upper quartile.
        bundle_ms: median time of the bundle's runs, on the machine that made it.
    """

    batch: int
    tokens: int
    ratio: float
    ratio_low: float
    ratio_high: float
    bundle_ms: float


class Figures(_Record):
    """The bundle against its parent, on the test texts.

    Attributes:
        agreement: fraction of texts that both give the same label.
        max_logit_difference: largest difference of any logit of any text.
        batch_deviation: largest difference of any score between a text alone and the same text in a batch of others.
    """

    parent: ModelFigures
    bundle: ModelFigures
    agreement: float
    max_logit_difference: float
    batch_deviation: float
    latency: tuple[Latency, ...]


class Manifest(_Record):
    """`bundle.json` without its own digest, which `to_json` adds and `from_json` checks."""

    schema_version: Literal[1] = SCHEMA_VERSION
    task: Literal["text-classification"] = "text-classification"
    labels: tuple[str, ...] = Field(min_length=2)
    max_length: int = Field(ge=3)  # tokens, special tokens included
    runtime: RuntimeOptions
    recipe: dict[str, Any]
    parent: ParentModel
    data: DataUsed
    figures: Figures
    files: dict[FileName, str]  # name: sha256
    tools: dict[str, str]  # package: version

    def digest(self) -> str:
        """sha256 over everything above, the model's own sha256 included: the same content gives the same digest."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The text of `bundle.json`."""
        content = {"digest": self.digest(), **self.model_dump(mode="json")}
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
        written = content.pop("digest", None)
        manifest = cls.model_validate(content)
        if manifest.digest() != written:
            raise ValueError(f"its content has the digest {manifest.digest()}, but it says {written}")
        return manifest
