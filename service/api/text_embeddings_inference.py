"""The routes of text-embeddings-inference: POST /predict, and POST / for clients that know no path; POST /rerank; GET
/health and GET /info.

`huggingface_hub.InferenceClient(base_url).text_classification` works against the second. A server of that kind has one
model: here the one that LATHE_PREDICT_MODEL names.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from compression.bundle import Input, InputKind, Number, Task, softmax
from compression.bundle.task import sigmoid
from service import __version__
from service.api.ask import Inference
from service.api.operations import asking, probe
from service.api.schemas import FromOne, LenientBody, Text
from service.errors import InvalidRequest, NotReady, ServiceError
from service.http.body import parse, read_body
from service.http.messages import Request, Response
from service.http.operation import Operation
from service.http.routing import Endpoint, ErrorShape, Group
from service.models.model import Model
from service.models.registry import Serving
from service.models.version import Scored


def _kind(value: object) -> str | None:
    if isinstance(value, str):
        return "one text"
    if not isinstance(value, list):
        return None
    return "batch" if value and isinstance(value[0], list) else "many texts"


def _one_or_two(texts: list[str]) -> list[str]:
    if len(texts) > 2:
        raise ValueError('has more texts than the two of a pair in one list; send several as [["one"], ["two"]]')
    return texts


_One = Annotated[
    list[Text], Field(fail_fast=True, min_length=1, json_schema_extra={"maxItems": 2}), AfterValidator(_one_or_two)
]
_ONE: Mapping[InputKind, str] = {"texts": "a text", "pairs": "a pair of texts"}
_WRITTEN: Mapping[InputKind, str] = {"texts": '[["one"], ["two"]]', "pairs": '[["text", "text_pair"], ...]'}
_Inputs = Annotated[
    Annotated[Text, Tag("one text")]
    | Annotated[_One, Tag("many texts")]
    | Annotated[list[_One], Field(min_length=1, fail_fast=True), Tag("batch")],
    Discriminator(
        _kind,
        custom_error_type="inputs_type",
        custom_error_message='a text, a pair as ["text", "text_pair"], or several of either in a list of lists',
    ),
]


class PredictParameters(LenientBody):
    """What huggingface_hub sends beside the inputs."""

    top_k: FromOne | None = Field(default=None, description="How many labels an answer has. Default: all.")
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        default=None,
        description="What makes scores of logits. Default: as transformers' pipeline: sigmoid where a text may have "
        "several labels, softmax where it has one; of a number, none or sigmoid, as the model is made.",
    )


class PredictRequest(LenientBody):
    """One text, or a pair as a list of two; or several as a list of lists of one text or two."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "Thank you, that was quick!"}]})

    inputs: _Inputs = Field(
        description='A text, or several as `[["one"], ["two"]]`. Where the model reads pairs, a pair as '
        '`["text", "text_pair"]`, or several in a list.'
    )
    truncate: bool | None = Field(default=None, description="Whether longer texts are cut (the default) or refused.")
    truncation_direction: Literal["Right", "right"] = "Right"
    raw_scores: bool = Field(default=False, description="Whether scores are logits.")
    parameters: PredictParameters | None = None


class RerankRequest(LenientBody):
    """A query, and the texts to be ranked by how well they fit it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"query": "How do I reset my PIN?", "texts": ["Your PIN in three steps.", "Opening hours."]}]
        }
    )

    query: Text
    texts: list[Text] = Field(min_length=1, fail_fast=True)
    truncate: bool | None = Field(default=None, description="Whether longer pairs are cut (the default) or refused.")
    truncation_direction: Literal["Right", "right"] = "Right"
    raw_scores: bool = Field(default=False, description="Whether scores are the model's outputs; else their sigmoids.")
    return_text: bool = Field(default=False, description="Whether each rank has its text.")


class Rank(BaseModel):
    index: int = Field(description="Place of the text in the request, from 0 on.")
    score: float
    text: str | None = Field(default=None, description="Only where `return_text` is true.")


class Prediction(BaseModel):
    score: float
    label: str


class ClassifierLabels(BaseModel):
    id2label: dict[str, str]
    label2id: dict[str, int]


class Classifier(BaseModel):
    classifier: ClassifierLabels


class Reranker(BaseModel):
    reranker: ClassifierLabels


class InfoResponse(BaseModel):
    """What a router of that kind says of itself and its model."""

    model_id: str = Field(description="The model's name.")
    model_sha: str = Field(description="Its live version.")
    model_dtype: str = Field(description="What most of its weights are: float32, float16 or int8.")
    model_type: Classifier | Reranker = Field(description="A reranker gives a number to a pair of texts.")
    max_concurrent_requests: int = Field(description="LATHE_QUEUE_TEXTS.")
    max_input_length: int = Field(description="Window in tokens.")
    max_batch_tokens: int = Field(description="LATHE_BATCH_TOKENS.")
    max_batch_requests: int | None = None
    max_client_batch_size: int = Field(description="LATHE_MAX_INPUTS.")
    auto_truncate: bool = Field(description="Whether longer texts are cut unless a request says otherwise.")
    tokenization_workers: int
    version: str
    sha: str | None = None
    docker_label: str | None = None


class PredictErrorResponse(BaseModel):
    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation"]


class _Api:
    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self.inference = Inference(serving.settings, serving.models, serving.intake, _WRITTEN)

    async def predict(self, request: Request) -> Response:
        """POST /predict: every label's score, the highest first; of several texts, a list of such lists."""
        serving = self._serving
        body = parse(PredictRequest, await read_body(request, serving.settings), serving.settings.max_inputs)
        batched, texts = _inputs(body.inputs)
        model = self._model()
        task = model.live.task
        function = _function(body, task)
        calibrated = None if function == task.function else False  # a temperature is fitted to that one
        (scored,) = await self.inference.ask(request, [model], texts, calibrated, cut=body.truncate is not False)
        predictions = _predictions(scored, function, body.parameters.top_k if body.parameters else None)
        # huggingface_hub, which alone sends parameters, takes the first list of the answer as that of its one text.
        nested = body.parameters is not None or batched
        return Response.json(predictions if nested else predictions[0])

    async def rerank(self, request: Request) -> Response:
        """POST /rerank: each text's score beside the query, the highest first."""
        serving = self._serving
        body = parse(RerankRequest, await read_body(request, serving.settings), serving.settings.max_inputs)
        model = self._model()
        if not _is_reranker(model):
            raise InvalidRequest(
                f"{model.name!r} gives {model.live.task.gives} to {_ONE[model.inputs]}, and a reranker gives a number "
                "to a pair; name another model in LATHE_PREDICT_MODEL, or use /predict"
            )
        pairs: list[Input] = [(body.query, text) for text in body.texts]
        (scored,) = await self.inference.ask(request, [model], pairs, calibrated=False, cut=body.truncate is not False)
        scores = scored.logits[:, 0].astype(np.float64) if body.raw_scores else sigmoid(scored.logits)[:, 0]
        order = np.argsort(-scores, kind="stable").tolist()
        return Response.json(
            [
                {"index": at, "score": float(scores[at]), **({"text": body.texts[at]} if body.return_text else {})}
                for at in order
            ]
        )

    async def health(self, _: Request) -> Response:
        """GET /health."""
        if not self._serving.ready:
            raise self._serving.not_ready()
        return Response(200, [(b"content-type", b"text/plain")], b"")

    async def info(self, _: Request) -> Response:
        """GET /info."""
        settings, model = self._serving.settings, self._model()
        manifest, labels = model.live.bundle.manifest, model.labels
        names = ClassifierLabels(
            id2label={str(index): label for index, label in enumerate(labels)},
            label2id={label: index for index, label in enumerate(labels)},
        )
        info = InfoResponse(
            model_id=model.name,
            model_sha=model.live.id,
            model_dtype=_dtype(manifest.recipe),
            model_type=Reranker(reranker=names) if _is_reranker(model) else Classifier(classifier=names),
            max_concurrent_requests=settings.queue_texts,
            max_input_length=model.live.members[0].engine.most_tokens,
            max_batch_tokens=settings.batch_tokens,
            max_client_batch_size=settings.max_inputs,
            auto_truncate=True,
            tokenization_workers=self._serving.intake.tokenizer_threads,
            version=__version__,
        )
        return Response.json(info.model_dump())

    def _model(self) -> Model:
        settings = self._serving.settings
        return self._serving.model(settings.predict_model or next(iter(settings.models)))


def routes(serving: Serving) -> Group:
    """The routes of this protocol."""
    api = _Api(serving)

    def endpoint(path: str, name: str) -> Endpoint:
        answer = list[Prediction] | list[list[Prediction]]
        operation = asking(name, "As text-embeddings-inference's /predict.", answer, request=PredictRequest)
        return Endpoint(
            "POST", path, api.predict, operation, errors=_ERRORS, admit=api.inference.admit, scope="predict"
        )

    ranks = asking(
        "rerank",
        "Texts by how well they fit a query, the best first, of a model that gives a number to a pair.",
        list[Rank],
        request=RerankRequest,
    )
    health = probe("tei_health", "As /readyz; its answer is empty.", str, "text/plain")
    info = Operation("tei_info", "The model, and what bounds requests.", InfoResponse, errors=(NotReady,))
    return Group(
        "text-embeddings-inference",
        "For its clients, and for `huggingface_hub.InferenceClient(base_url).text_classification`: the model that "
        "`LATHE_PREDICT_MODEL` names.",
        [
            endpoint("/predict", "predict"),
            endpoint("/", "predict_at_root"),
            Endpoint("POST", "/rerank", api.rerank, ranks, errors=_ERRORS, admit=api.inference.admit, scope="predict"),
            Endpoint("GET", "/health", api.health, health, public=True, errors=_ERRORS),
            Endpoint("GET", "/info", api.info, info, errors=_ERRORS),
        ],
    )


def _is_reranker(model: Model) -> bool:
    return model.inputs == "pairs" and isinstance(model.live.task, Number)


def _inputs(inputs: str | list[str] | list[list[str]]) -> tuple[bool, list[Input]]:
    """Whether there is a list of several, and each: a text, or the pair that a list of two is."""
    if isinstance(inputs, str):
        return False, [inputs]
    rows = [inputs] if isinstance(inputs[0], str) else inputs
    return rows is inputs, [row[0] if len(row) == 1 else (row[0], row[1]) for row in rows]


def _dtype(recipe: Mapping[str, Any]) -> str:
    """What a recipe makes of the weights."""
    steps = [str(step.get("step")) for step in recipe.get("steps", ())]
    if any(step.startswith("quantize") for step in steps):
        return "int8"
    return "float16" if "float16" in steps else "float32"


def _function(body: PredictRequest, task: Task) -> str:
    """What makes scores of logits."""
    asked = body.parameters.function_to_apply if body.parameters else None
    return "none" if body.raw_scores else asked or task.function


def _predictions(scored: Scored, function: str, top_k: int | None) -> list[list[dict[str, Any]]]:
    if function == "none":
        scores = scored.logits.astype(np.float64)
    else:
        scores = {"sigmoid": sigmoid, "softmax": softmax}[function](scored.logits)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    return [
        [{"score": float(row[index]), "label": scored.labels[index]} for index in indices]
        for row, indices in zip(scores, order, strict=True)
    ]


def _error_body(error: ServiceError, _: str) -> Mapping[str, object]:
    kinds = {429: "Overloaded", 503: "Unhealthy"}
    kind = kinds.get(error.status, "Backend" if error.status >= 500 else "Validation")
    return PredictErrorResponse.model_validate({"error": error.message, "error_type": kind}).model_dump()


_ERRORS = ErrorShape(PredictErrorResponse, _error_body)
