"""The service's own routes: texts, pairs and messages in, what a model or the triage says out; what is served."""

from functools import lru_cache, partial
from typing import Any

from compression.bundle import Input
from service.api.admin import describe
from service.api.ask import Inference
from service.api.operations import asking
from service.api.schemas import (
    ClassifyRequest,
    ClassifyResponse,
    ModelsResponse,
    TextPair,
    TriageRequest,
    TriageResponse,
)
from service.api.triage import Triage, why_no_triage
from service.errors import ModelNotFound
from service.http.body import parse, read_body
from service.http.messages import Request, Response
from service.http.operation import Operation
from service.http.routing import Endpoint, Group
from service.models.registry import Serving
from service.models.version import Scored


class Api:
    """The handlers."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._no_triage = why_no_triage(serving.settings)
        self._rules = lru_cache(maxsize=2)(partial(Triage, serving.settings))  # labels change with versions, rarely
        self.inference = Inference(serving.settings, serving.models, serving.intake)

    async def classify(self, request: Request) -> Response:
        """POST /v1/classify."""
        serving = self._serving
        body = parse(ClassifyRequest, await read_body(request, serving.settings), serving.settings.max_inputs)
        model = serving.model(body.model)
        (scored,) = await self.inference.ask(request, [model], _inputs(body.inputs), body.calibrated)
        return Response.json(
            {
                "model": model.name,
                "version": scored.version,
                "degraded": scored.degraded,
                "calibrated": scored.calibrated,
                "results": _classifications(scored, body.top_k),
                "usage": {"tokens": scored.tokens},
            }
        )

    async def triage(self, request: Request) -> Response:
        """POST /v1/triage."""
        serving = self._serving
        body = parse(TriageRequest, await read_body(request, serving.settings), serving.settings.max_inputs)
        if self._no_triage is not None:
            raise ModelNotFound(self._no_triage)
        models = [serving.model(name) for name in (serving.settings.triage_sentiment, serving.settings.triage_intent)]
        sentiment, intent = await self.inference.ask(request, models, _inputs(body.inputs), calibrated=True)
        rules = self._rules(sentiment.labels, intent.labels)
        results = [
            rules.judge(
                dict(zip(sentiment.labels, sentiment_row, strict=True)),
                dict(zip(intent.labels, intent_row, strict=True)),
                one_cut or other_cut,
                abstained,
            )
            for sentiment_row, intent_row, one_cut, other_cut, abstained in zip(
                sentiment.scores.tolist(),
                intent.scores.tolist(),
                sentiment.truncated,
                intent.truncated,
                intent.abstained,
                strict=True,
            )
        ]
        return Response.json(
            {
                "models": {model.name: one.version for model, one in zip(models, (sentiment, intent), strict=True)},
                "degraded": sentiment.degraded or intent.degraded,
                "calibrated": sentiment.calibrated and intent.calibrated,
                "results": [result.model_dump() for result in results],
                "usage": {"tokens": sentiment.tokens + intent.tokens},
            }
        )

    async def models(self, _: Request) -> Response:
        """GET /v1/models."""
        descriptions = [describe(model) for model in self._serving.models.values()]
        return Response.json(ModelsResponse(models=descriptions).model_dump())


def routes(serving: Serving) -> Group:
    """Answers to texts, and what gives them."""
    api = Api(serving)
    classify = asking("classify", "Classify texts.", ClassifyResponse, request=ClassifyRequest)
    triage = asking(
        "triage", "Sentiment, intent and hand-over of customer messages.", TriageResponse, request=TriageRequest
    )
    models = Operation("models", "What is served.", ModelsResponse)
    return Group(
        "Texts",
        "A text that is longer than what the model reads is cut, and says so.",
        [
            Endpoint("POST", "/v1/classify", api.classify, classify, admit=api.inference.admit, scope="predict"),
            Endpoint("POST", "/v1/triage", api.triage, triage, admit=api.inference.admit, scope="predict"),
            Endpoint("GET", "/v1/models", api.models, models),
        ],
    )


def _inputs(inputs: str | list[str] | TextPair | list[TextPair]) -> list[Input]:
    listed = inputs if isinstance(inputs, list) else [inputs]
    return [one if isinstance(one, str) else (one.text, one.text_pair) for one in listed]


def _classifications(scored: Scored, top_k: int | None) -> list[dict[str, Any]]:
    """The results as schemas.Classification describes them; plain, because this is done for every text."""
    labels, several = scored.labels, scored.task.several
    results = []
    for row, given, truncated, abstained in zip(
        scored.scores.tolist(), scored.given, scored.truncated, scored.abstained, strict=True
    ):
        best = _highest(row, top_k)
        result: dict[str, Any] = {"label": labels[best[0]], "score": row[best[0]]}
        if several:
            result["labels"] = [labels[index] for index in _highest(row, len(row)) if given[index]]
        result["scores"] = {labels[index]: row[index] for index in best}
        result["truncated"] = truncated
        if abstained is not None:
            result["abstained"] = abstained
        results.append(result)
    return results


def _highest(scores: list[float], count: int | None) -> list[int]:
    """Where the highest scores are, the highest first, and of equal ones the first; for so few, faster than numpy."""
    if count == 1:
        return [scores.index(max(scores))]
    return sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[:count]
