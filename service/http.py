"""The HTTP API: what each path takes and answers. Errors are raised as ServiceError and rendered in one place."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.admin import admin_routes, describe
from service.errors import PayloadTooLarge, ServiceError
from service.gate import error_response
from service.lifecycle import Serving
from service.limits import ClientGone, Receive, parse, read_body, timeout_ms
from service.models import Model
from service.openapi import openapi_document
from service.schemas import (
    Classification,
    ClassifyRequest,
    ClassifyResponse,
    ModelsResponse,
    TriageRequest,
    TriageResponse,
    Usage,
)
from service.versions import Answer, together

Body = TypeVar("Body", bound=BaseModel)


class Api:
    """The handlers. `serving` gives the service's state, which does not exist yet when the routes are made."""

    def __init__(self, serving: Callable[[], Serving]) -> None:
        self._serving = serving

    async def classify(self, request: Request) -> Response:
        """POST /v1/classify."""
        body = await self._body(request, ClassifyRequest)
        texts = self._texts(body.inputs)
        model = self._serving().model(body.model)
        (answer,) = await self._ask(request, [model], texts)
        results = [
            _classification(answer.labels, row, body.top_k, truncated)
            for row, truncated in zip(answer.probabilities, answer.truncated, strict=True)
        ]
        return _json(
            ClassifyResponse.model_construct(
                model=model.name,
                version=answer.version,
                degraded=answer.degraded,
                results=results,
                usage=Usage.model_construct(tokens=answer.tokens),
            )
        )

    async def triage(self, request: Request) -> Response:
        """POST /v1/triage."""
        serving = self._serving()
        body = await self._body(request, TriageRequest)
        texts = self._texts(body.inputs)
        rules = serving.triage
        models = [serving.model(name) for name in (serving.settings.triage_sentiment, serving.settings.triage_intent)]
        sentiment, intent = await self._ask(request, models, texts, calibrated=True)
        results = [
            rules.judge(
                dict(zip(sentiment.labels, sentiment_row.tolist(), strict=True)),
                dict(zip(intent.labels, intent_row.tolist(), strict=True)),
                one_cut or other_cut,
            )
            for sentiment_row, intent_row, one_cut, other_cut in zip(
                sentiment.probabilities, intent.probabilities, sentiment.truncated, intent.truncated, strict=True
            )
        ]
        return _json(
            TriageResponse.model_construct(
                models={model.name: answer.version for model, answer in zip(models, (sentiment, intent), strict=True)},
                degraded=sentiment.degraded or intent.degraded,
                results=results,
                usage=Usage.model_construct(tokens=sentiment.tokens + intent.tokens),
            )
        )

    async def models(self, _: Request) -> Response:
        """GET /v1/models."""
        descriptions = [describe(model) for model in self._serving().models.values()]
        return _json(ModelsResponse(models=descriptions))

    async def metrics(self, _: Request) -> Response:
        """GET /metrics."""
        serving = self._serving()
        telemetry = serving.telemetry
        telemetry.ready(serving.ready)
        return Response(telemetry.exposition(), headers={"content-type": telemetry.content_type})

    async def docs(self, _: Request) -> Response:
        """GET /docs.json."""
        return Response(orjson.dumps(openapi_document()), media_type="application/json")

    async def _body(self, request: Request, model: type[Body]) -> Body:
        limit = self._serving().settings.max_body_bytes
        return parse(model, await read_body(request.headers, request.receive, limit))

    def _texts(self, inputs: str | list[str]) -> list[str]:
        texts = [inputs] if isinstance(inputs, str) else inputs
        limit = self._serving().settings.max_inputs
        if len(texts) > limit:
            raise PayloadTooLarge(f"the request has {len(texts)} inputs; send at most {limit} at a time")
        return texts

    async def _ask(
        self, request: Request, models: Sequence[Model], texts: Sequence[str], calibrated: bool = False
    ) -> list[Answer]:
        """Puts the texts to every model at once, within the request's time, for as long as its client is there.

        Raises:
            DeadlineExceeded, ClientGone: what still waited in a queue was given up.
        """
        serving = self._serving()
        deadline = time.monotonic() + timeout_ms(request.headers, serving.settings.request_timeout_ms) / 1e3
        tenant = request.scope["lathe.tenant"]
        asking = asyncio.ensure_future(together(model.ask(texts, tenant, deadline, calibrated) for model in models))
        leaving = asyncio.ensure_future(_disconnected(request.receive))
        both: list[asyncio.Future[Any]] = [asking, leaving]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
            raise ClientGone
        finally:
            asking.cancel()
            leaving.cancel()


def create_app(serving: Callable[[], Serving]) -> Starlette:
    """The routes, as an ASGI app to be mounted at the root."""
    api = Api(serving)
    return Starlette(
        routes=[
            Route("/v1/classify", api.classify, methods=["POST"]),
            Route("/v1/triage", api.triage, methods=["POST"]),
            Route("/v1/models", api.models, methods=["GET"]),
            *admin_routes(serving),
            Route("/metrics", api.metrics, methods=["GET"]),
            Route("/docs.json", api.docs, methods=["GET"]),
        ],
        exception_handlers={ServiceError: error_response},  # type: ignore[dict-item]
    )


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _classification(labels: Sequence[str], row: npt.NDArray[np.float64], top_k: int, truncated: bool) -> Classification:
    order = np.argsort(-row, kind="stable")[:top_k]
    scores = {labels[index]: float(row[index]) for index in order}
    label, score = next(iter(scores.items()))
    return Classification.model_construct(label=label, score=score, scores=scores, truncated=truncated)


def _json(body: BaseModel) -> Response:
    return Response(orjson.dumps(body.model_dump()), media_type="application/json")
