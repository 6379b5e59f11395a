"""Bodies of requests and answers: what is checked, and what the OpenAPI document says."""

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic.config import JsonDict


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; send a text, or leave it out")
    return text


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _kind(value: object) -> str | None:
    if isinstance(value, str):
        return "one text"
    if isinstance(value, dict):
        return "one pair"
    if not isinstance(value, list):
        return None
    return "many pairs" if value and isinstance(value[0], dict) else "many texts"


def _kind_of_messages(value: object) -> str | None:
    if isinstance(value, str):
        return "one text"
    return "many texts" if isinstance(value, list) else None


# What str.strip leaves something of, as a pattern for those who read the OpenAPI document.
Text = Annotated[str, AfterValidator(_not_blank), Field(json_schema_extra={"pattern": r"[^\s\x1c-\x1f\x85]"})]
_WHOLE = BeforeValidator(_whole)  # 2.0 is a whole number in JSON Schema
FromZero = Annotated[int, Field(ge=0), _WHOLE]
FromOne = Annotated[int, Field(ge=1), _WHOLE]


# Unknown keys are rejected by `parse`, which names the first: "forbid" would make an error of each.
_CLOSED: JsonDict = {"additionalProperties": False}


class StrictBody(BaseModel):
    """Takes no keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, json_schema_extra=_CLOSED)


class TextPair(BaseModel):
    """Two texts that get one answer, where the model reads pairs: a premise and a hypothesis, a query and a passage."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    text: Text
    text_pair: Text


_Texts = Annotated[list[Text], Field(min_length=1, fail_fast=True), Tag("many texts")]
_Pairs = Annotated[list[TextPair], Field(min_length=1, fail_fast=True), Tag("many pairs")]
Messages = Annotated[
    Annotated[Text, Tag("one text")] | _Texts,
    Discriminator(
        _kind_of_messages, custom_error_type="inputs_type", custom_error_message="a text, or a list of texts"
    ),
]
Inputs = Annotated[
    Annotated[Text, Tag("one text")] | _Texts | Annotated[TextPair, Tag("one pair")] | _Pairs,
    Discriminator(
        _kind,
        custom_error_type="inputs_type",
        custom_error_message='a text, or a list of texts; or pairs of them, as {"text": ..., "text_pair": ...}',
    ),
]


class LenientBody(BaseModel):
    """Ignores keys that it does not know, as the protocols of other servers have it."""

    model_config = ConfigDict(frozen=True, strict=True)


class ClassifyRequest(StrictBody):
    """One text or pair, or several, for one model."""

    model_config = ConfigDict(
        json_schema_extra={
            **_CLOSED,
            "examples": [
                {"model": "sentiment", "inputs": ["Thank you, that was quick!", "Never again."], "top_k": 2},
            ],
        }
    )

    model: str = Field(description="A name from GET /v1/models.")
    inputs: Inputs = Field(
        description="A text, or several in a list. Where the model reads pairs of texts (`inputs` in GET /v1/models), "
        'each is `{"text": ..., "text_pair": ...}`.'
    )
    top_k: FromOne | None = Field(
        default=1, description="How many labels `scores` holds, the most probable first; null for all."
    )
    calibrated: bool | None = Field(
        default=None,
        description="Whether scores are calibrated: how often answers of that score are right. Otherwise they are the "
        "model's own probabilities. Default: LATHE_CALIBRATED, which is false unless set.",
    )


class TriageRequest(StrictBody):
    """One customer message or several."""

    model_config = ConfigDict(json_schema_extra={**_CLOSED, "examples": [{"inputs": "My card still has not arrived."}]})

    inputs: Messages = Field(description="A message, or several in a list.")


class Classification(StrictBody):
    label: str = Field(
        description="The most probable label. Where a text may have several, the text need not have it: see `labels`. "
        "Of a model that gives a number, the number's name."
    )
    score: float = Field(description="Probability of the label: the model's own, or calibrated. Or the number.")
    labels: list[str] = Field(
        default=[],
        description="The labels that the text gets, the most probable first: those at or over their thresholds, maybe "
        "none. Absent where a text has one label.",
    )
    scores: dict[str, float] = Field(description="Probabilities of the `top_k` labels, the most probable first.")
    truncated: bool = Field(description="Whether the text was longer than what the model reads of one, and was cut.")
    abstained: bool = Field(
        default=False,
        description="Whether the model is less sure of the answer than it has to be (`abstain_below` in GET "
        "/v1/models): the text may be none that it was made for. Absent where it has no threshold.",
    )


class Usage(StrictBody):
    tokens: int = Field(description="Tokens of all inputs, special tokens included, as far as they were read.")


_DEGRADED = Field(default=False, description="Whether a model answered without all members of its ensemble.")


class ClassifyResponse(StrictBody):
    """Results in the order of the inputs."""

    model: str
    version: str = Field(
        description="Digest of the bundle that answered: VERSION@WEIGHT+VERSION@WEIGHT of an ensemble, with commas "
        "where several versions answered."
    )
    degraded: bool = _DEGRADED
    calibrated: bool = Field(
        description="Whether the scores are calibrated; false for a bundle that had no labelled texts to be calibrated "
        "with, whatever was asked."
    )
    results: list[Classification]
    usage: Usage


Sentiment = Literal["negative", "neutral", "positive"]
Reason = Literal["strong_anger", "listed_intent", "low_confidence"]


class TriageResult(StrictBody):
    sentiment: Sentiment
    sentiment_score: float | None = Field(
        description="Calibrated probability of that sentiment. Null where a model that knows no neutral is sure of "
        "neither: LATHE_NEUTRAL_LOW and LATHE_NEUTRAL_HIGH make that neutral, which has no probability."
    )
    sentiment_probabilities: dict[Sentiment, float] = Field(
        description="Calibrated probability of each sentiment that the model knows."
    )
    intent: str
    confidence: float = Field(description="Calibrated probability of the intent.")
    hand_to_person: bool
    reason: Reason | None = Field(description="Why a person should take over; null when none has to.")
    truncated: bool
    abstained: bool | None = Field(
        default=None,
        description="Whether the intent model is less sure of the intent than it has to be: the message may be none "
        "that it was made for. Null where it has no threshold.",
    )


class TriageResponse(StrictBody):
    """Results in the order of the inputs."""

    models: dict[str, str] = Field(description="Versions of the bundles that answered, by name.")
    degraded: bool = _DEGRADED
    calibrated: bool = Field(
        description="Whether the probabilities are calibrated; false where a model's bundle had no labelled texts to "
        "be calibrated with."
    )
    results: list[TriageResult]
    usage: Usage


EntityType = Literal[
    "API_KEY",
    "CN_LANDLINE",
    "CN_LICENSE_PLATE",
    "CN_MOBILE",
    "CN_PASSPORT",
    "CN_RESIDENT_ID",
    "CN_SOCIAL_CREDIT_CODE",
    "CREDENTIALS",
    "CREDIT_CARD",
    "EMAIL_ADDRESS",
    "IBAN_CODE",
    "IP_ADDRESS",
    "JWT",
    "PHONE_NUMBER",
    "PRIVATE_KEY",
    "URL",
    "US_DRIVER_LICENSE",
    "US_PASSPORT",
    "US_SSN",
]


class MaskRequest(StrictBody):
    """One text or several."""

    model_config = ConfigDict(
        json_schema_extra={**_CLOSED, "examples": [{"inputs": "Write to ann@example.com, card 4111 1111 1111 1111."}]}
    )

    inputs: Messages = Field(description="A text, or several in a list.")
    mode: Literal["replace", "last_four", "pseudonym", "drop"] = Field(
        default="replace",
        description="What takes an entity's place: its type, as <EMAIL_ADDRESS>; asterisks but for its last four "
        "letters and digits; its type and a keyed hash, the same for the same value (needs LATHE_PSEUDONYM_KEY_FILE); "
        "nothing.",
    )
    types: list[EntityType] | None = Field(
        default=None, max_length=100, description="Types that are masked; null for all."
    )


class MaskedEntity(StrictBody):
    type: EntityType = Field(description="As Microsoft Presidio names it; of what that lacks, in the same manner.")
    start: int = Field(description="In characters of the original.")
    end: int
    score: float = Field(description="Near 1 where a checksum holds, less where the form alone says it.")


class MaskedText(StrictBody):
    text: str
    entities: list[MaskedEntity]


class MaskResponse(StrictBody):
    """Results in the order of the inputs."""

    results: list[MaskedText]


class LoadRequest(StrictBody):
    """A new version of a model: in place of the live one, or on trial beside it."""

    model_config = ConfigDict(
        json_schema_extra={
            **_CLOSED,
            "not": {
                "required": ["canary", "shadow"],
                "properties": {"canary": {"type": "number"}, "shadow": {"const": True}},
            },
            "examples": [{"bundle": "sentiment-2", "canary": 10}],
        }
    )

    bundle: str = Field(
        min_length=1,
        description="Path below LATHE_BUNDLES_ROOT, or an ensemble of such paths: A@0.7+B@0.3.",
    )
    canary: float | None = Field(
        default=None, ge=0, le=100, description="Percentage of the texts that it answers, on trial."
    )
    shadow: bool = Field(default=False, description="Whether it is asked every text on trial, only to compare.")
    other_labels: bool = Field(default=False, description="Whether its labels may differ from the live version's.")

    @model_validator(mode="after")
    def _one_trial(self) -> Self:
        if self.shadow and self.canary is not None:
            raise ValueError("send canary or shadow, not both")
        return self

    @property
    def on_trial(self) -> bool:
        return self.shadow or self.canary is not None


class Trial(StrictBody):
    """A version on trial."""

    version: str
    canary: float | None = Field(description="Percentage of the texts that it answers; null in shadow mode.")


class ModelDescription(StrictBody):
    name: str
    version: str
    degraded: bool = _DEGRADED
    task: Literal["text-classification", "multi-label-text-classification", "text-regression"] = Field(
        description="Whether a text has one label, or any number of them, or gets a number."
    )
    inputs: Literal["texts", "pairs"] = Field(description="Whether it reads single texts or pairs of them.")
    labels: list[str] = Field(description="Of a number, its name alone.")
    thresholds: dict[str, float] | None = Field(
        description="Of each label, where a text may have several: it gets those whose own probability is that high. "
        "`calibrated` changes scores, not what a text gets."
    )
    abstain_below: float | None = Field(
        description="Calibrated confidence below which the model abstains from an answer; null where it never does."
    )
    max_length: int = Field(description="Tokens that a text may have, special tokens included; longer ones are cut.")
    batch_exact: bool = Field(description="Whether an answer is independent of the other texts in its batch.")
    figures: dict[str, object] = Field(
        description="What was measured when the bundle was made, as in its manifest, but for the figures of each "
        "label; empty for an ensemble."
    )
    trial: Trial | None = Field(default=None, description="The version on trial.")
    previous: str | None = Field(default=None, description="The version that a rollback returns to.")


class ModelsResponse(StrictBody):
    models: list[ModelDescription]
