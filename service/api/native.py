"""The HTTP API: what each path takes and answers. Errors are raised as ServiceError; the gate renders them."""

from functools import lru_cache, partial
from typing import Any

from service.access.keys import Authenticator
from service.api import open_inference, text_embeddings_inference
from service.api.admin import admin_endpoints, describe
from service.api.ask import Inference
from service.api.openapi import openapi_document
from service.api.schemas import ClassifyRequest, ModelsResponse, TriageRequest
from service.api.triage import Triage, why_no_triage
from service.errors import ModelNotFound
from service.http.body import parse, read_body
from service.http.messages import Request, Response
from service.http.routing import Endpoint, Routes
from service.models.registry import Serving
from service.models.version import Scored


class Api:
    """The handlers."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._no_triage = why_no_triage(serving.settings)
        self._rules = lru_cache(maxsize=2)(partial(Triage, serving.settings))  # labels change with versions, rarely
        self.inference = Inference(serving.settings, serving.models)

    async def classify(self, request: Request) -> Response:
        """POST /v1/classify."""
        serving = self._serving
        body = parse(ClassifyRequest, await read_body(request, serving.settings))
        model = serving.model(body.model)
        (scored,) = await self.inference.ask(request, [model], _texts(body.inputs), body.calibrated)
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
        body = parse(TriageRequest, await read_body(request, serving.settings))
        if self._no_triage is not None:
            raise ModelNotFound(self._no_triage)
        models = [serving.model(name) for name in (serving.settings.triage_sentiment, serving.settings.triage_intent)]
        sentiment, intent = await self.inference.ask(request, models, _texts(body.inputs), calibrated=True)
        rules = self._rules(sentiment.labels, intent.labels)
        results = [
            rules.judge(
                dict(zip(sentiment.labels, sentiment_row, strict=True)),
                dict(zip(intent.labels, intent_row, strict=True)),
                one_cut or other_cut,
            )
            for sentiment_row, intent_row, one_cut, other_cut in zip(
                sentiment.probabilities.tolist(),
                intent.probabilities.tolist(),
                sentiment.truncated,
                intent.truncated,
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

    async def metrics(self, _: Request) -> Response:
        """GET /metrics."""
        serving = self._serving
        telemetry = serving.telemetry
        telemetry.ready(serving.ready)
        return Response(200, [(b"content-type", telemetry.content_type.encode())], telemetry.exposition())

    async def docs(self, _: Request) -> Response:
        """GET /docs.json."""
        return Response.json(openapi_document())


def create_routes(serving: Serving, authenticator: Authenticator | None) -> Routes:
    """Every route that the gate answers itself."""
    api = Api(serving)
    return Routes(
        [
            Endpoint("/v1/classify", {"POST": api.classify}, admit=api.inference.admit),
            Endpoint("/v1/triage", {"POST": api.triage}, admit=api.inference.admit),
            Endpoint("/v1/models", {"GET": api.models}),
            *admin_endpoints(serving, authenticator),
            Endpoint("/metrics", {"GET": api.metrics}),
            Endpoint("/docs.json", {"GET": api.docs}),
            *text_embeddings_inference.endpoints(serving),
            *open_inference.endpoints(serving),
        ]
    )


def _texts(inputs: str | list[str]) -> list[str]:
    return [inputs] if isinstance(inputs, str) else inputs


def _classifications(scored: Scored, top_k: int) -> list[dict[str, Any]]:
    """The results as schemas.Classification describes them; plain, because this is done for every text."""
    labels = scored.labels
    results = []
    for row, truncated in zip(scored.probabilities.tolist(), scored.truncated, strict=True):
        best = _highest(row, top_k)
        results.append(
            {
                "label": labels[best[0]],
                "score": row[best[0]],
                "scores": {labels[index]: row[index] for index in best},
                "truncated": truncated,
            }
        )
    return results


def _highest(scores: list[float], count: int) -> list[int]:
    """Where the highest scores are, the highest first, and of equal ones the first; for so few, faster than numpy."""
    if count == 1:
        return [scores.index(max(scores))]
    return sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[:count]
