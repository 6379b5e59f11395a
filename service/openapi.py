"""The OpenAPI document of the HTTP API, from the schemas that check the bodies and the tree of errors."""

from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service import __version__, schemas
from service.errors import (
    BundleRefused,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InferenceFailed,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    NotANumber,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    ServiceError,
    Unauthorized,
    UnsupportedMediaType,
)

Json = dict[str, Any]

_REFERENCE = "#/components/schemas/{model}"
_POST_ERRORS: tuple[type[ServiceError], ...] = (
    InvalidRequest, Unauthorized, ModelNotFound, PayloadTooLarge, UnsupportedMediaType, Overloaded, InternalError,
    InferenceFailed, NotANumber, NotReady, DeadlineExceeded,
)  # fmt: skip
_CHANGE_ERRORS: tuple[type[ServiceError], ...] = (
    Unauthorized, Forbidden, ModelNotFound, Conflict, InternalError, NotReady,
)  # fmt: skip
_LOAD_ERRORS: tuple[type[ServiceError], ...] = (
    *_CHANGE_ERRORS, InvalidRequest, PayloadTooLarge, UnsupportedMediaType, BundleRefused,
)  # fmt: skip
_GET_ERRORS: tuple[type[ServiceError], ...] = (Unauthorized, InternalError)
_MODELS: tuple[type[BaseModel], ...] = (
    schemas.ClassifyRequest,
    schemas.ClassifyResponse,
    schemas.TriageRequest,
    schemas.TriageResponse,
    schemas.ModelsResponse,
    schemas.LoadRequest,
    schemas.ErrorResponse,
)


@cache
def openapi_document() -> Json:
    """The document, OpenAPI 3.1."""
    _, definitions = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Lathe", "version": __version__, "description": "Text classification and triage."},
        "security": [{}, {"key": []}],
        "paths": {
            "/v1/classify": {"post": _post("classify", "Classify texts.", "ClassifyRequest", "ClassifyResponse")},
            "/v1/triage": {
                "post": _post(
                    "triage", "Sentiment, intent and hand-over of customer messages.", "TriageRequest", "TriageResponse"
                )
            },
            "/v1/models": {"get": _get("models", "What is served.", _json("ModelsResponse"))},
            "/v1/models/{name}/load": {"post": _load()},
            "/v1/models/{name}/promote": {"post": _change("promote", "Make the version on trial the live one.")},
            "/v1/models/{name}/drop": {"post": _change("drop", "End the trial.")},
            "/v1/models/{name}/rollback": {"post": _change("rollback", "Return to the previous version.")},
            "/metrics": {
                "get": _get("metrics", "Metrics for Prometheus.", {"text/plain": {"schema": {"type": "string"}}})
            },
            "/livez": {"get": _probe("livez", "Whether the process can do its work.")},
            "/readyz": {"get": _probe("readyz", "Whether every model has answered a warm-up request.")},
        },
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _post(name: str, summary: str, request: str, response: str) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [
            {
                "name": "X-Request-Timeout-Ms",
                "in": "header",
                "description": "Time that this request may take; never more than the service's own limit.",
                "schema": {"type": "integer", "minimum": 1},
            }
        ],
        "requestBody": {"required": True, "content": _json(request)},
        "responses": {"200": {"description": "Results.", "content": _json(response)}, **_errors(_POST_ERRORS)},
    }


def _change(name: str, summary: str, errors: tuple[type[ServiceError], ...] = _CHANGE_ERRORS) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {
            "200": {"description": "The model as it is now.", "content": _json("ModelDescription")},
            **_errors(errors),
        },
    }


def _load() -> Json:
    operation = _change("load", "Load a version, and make it the live one or put it on trial.", _LOAD_ERRORS)
    return {**operation, "requestBody": {"required": True, "content": _json("LoadRequest")}}


def _get(name: str, summary: str, content: Json) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": content}, **_errors(_GET_ERRORS)},
    }


def _probe(name: str, summary: str) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "security": [{}],
        "responses": {
            "200": {"description": "Yes.", "content": {"text/plain": {"schema": {"type": "string"}}}},
            **_errors((NotReady,)),
        },
    }


def _errors(errors: tuple[type[ServiceError], ...]) -> Json:
    codes: dict[str, list[str]] = {}
    for error in errors:
        codes.setdefault(str(int(error.status)), []).append(error.code)
    return {
        status: {"description": f"error.code: {', '.join(names)}", "content": _json("ErrorResponse")}
        for status, names in codes.items()
    }


def _json(model: str) -> Json:
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=model)}}}
