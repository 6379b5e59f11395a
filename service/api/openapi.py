"""The OpenAPI document of the HTTP API, from the schemas that check the bodies and the tree of errors."""

from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service import __version__
from service.api import open_inference, schemas, text_embeddings_inference
from service.errors import (
    BodyTimeout,
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
    InvalidRequest, Unauthorized, ModelNotFound, BodyTimeout, PayloadTooLarge, UnsupportedMediaType, Overloaded,
    InternalError, InferenceFailed, NotANumber, NotReady, DeadlineExceeded,
)  # fmt: skip
_CHANGE_ERRORS: tuple[type[ServiceError], ...] = (
    Unauthorized, Forbidden, ModelNotFound, Conflict, InternalError, NotReady,
)  # fmt: skip
_LOAD_ERRORS: tuple[type[ServiceError], ...] = (
    *_CHANGE_ERRORS, InvalidRequest, BodyTimeout, PayloadTooLarge, UnsupportedMediaType, BundleRefused,
)  # fmt: skip
_GET_ERRORS: tuple[type[ServiceError], ...] = (Unauthorized, InternalError)
_MODEL_ERRORS: tuple[type[ServiceError], ...] = (*_GET_ERRORS, ModelNotFound, NotReady)
_TEXT: Json = {"text/plain": {"schema": {"type": "string"}}}
_HEADER_LENGTH: Json = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "Bytes of the JSON, where binary tensors follow it.",
    "schema": {"type": "integer", "minimum": 0},
}
_MODELS: tuple[type[BaseModel], ...] = (
    schemas.ClassifyRequest,
    schemas.ClassifyResponse,
    schemas.TriageRequest,
    schemas.TriageResponse,
    schemas.ModelsResponse,
    schemas.LoadRequest,
    schemas.ErrorResponse,
    text_embeddings_inference.PredictRequest,
    text_embeddings_inference.Prediction,
    text_embeddings_inference.PredictErrorResponse,
    open_inference.ServerMetadata,
    open_inference.ModelMetadata,
    open_inference.InferRequest,
    open_inference.InferResponse,
    open_inference.InferErrorResponse,
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
            "/v1/classify": {
                "post": _post("classify", "Classify texts.", "ClassifyRequest", _json("ClassifyResponse"))
            },
            "/v1/triage": {
                "post": _post(
                    "triage",
                    "Sentiment, intent and hand-over of customer messages.",
                    "TriageRequest",
                    _json("TriageResponse"),
                )
            },
            "/v1/models": {"get": _get("models", "What is served.", _json("ModelsResponse"))},
            "/v1/models/{name}/load": {"post": _load()},
            "/v1/models/{name}/promote": {"post": _change("promote", "Make the version on trial the live one.")},
            "/v1/models/{name}/drop": {"post": _change("drop", "End the trial.")},
            "/v1/models/{name}/rollback": {"post": _change("rollback", "Return to the previous version.")},
            "/metrics": {"get": _get("metrics", "Metrics for Prometheus.", _TEXT)},
            "/livez": {"get": _probe("livez", "Whether the process can do its work.", _TEXT)},
            "/readyz": {"get": _probe("readyz", "Whether every model has answered a warm-up request.", _TEXT)},
            **_text_embeddings_inference(),
            **_open_inference(),
        },
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _text_embeddings_inference() -> Json:
    predictions = {"type": "array", "items": {"$ref": _REFERENCE.format(model="Prediction")}}
    content = {"application/json": {"schema": {"anyOf": [predictions, {"type": "array", "items": predictions}]}}}
    errors = "PredictErrorResponse"
    paths = {
        path: {"post": _post(name, "As text-embeddings-inference's /predict.", "PredictRequest", content, errors)}
        for path, name in (("/predict", "predict"), ("/", "predict_at_root"))
    }
    paths["/"]["get"] = _get("page", "A page to try this API.", {"text/html": {"schema": {"type": "string"}}})
    return paths


def _open_inference() -> Json:
    errors = "InferErrorResponse"
    yes = {"application/json": {"schema": {"type": "object"}}}
    paths = {
        "/v2": {"get": _get("v2_server", "Name and version.", _json("ServerMetadata"), errors)},
        "/v2/health/live": {"get": _probe("v2_live", "As /livez.", yes, errors)},
        "/v2/health/ready": {"get": _probe("v2_ready", "As /readyz.", yes, errors)},
    }
    binary = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    answer = {**_json("InferResponse"), **binary}
    for path, name in (("/v2/models/{model}", "v2_model"), ("/v2/models/{model}/versions/{version}", "v2_version")):
        parameters = [
            {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
            for part in path.split("/")
            if part.startswith("{")
        ]
        metadata = _get(name, "Inputs and outputs.", _json("ModelMetadata"), errors, _MODEL_ERRORS)
        ready = _get(f"{name}_ready", "Whether it answers.", yes, errors, _MODEL_ERRORS)
        infer = _post(f"{name}_infer", "Classify texts.", "InferRequest", answer, errors)
        infer["requestBody"]["content"].update(binary)
        infer["parameters"].append(_HEADER_LENGTH)
        for route, method, operation in (("", "get", metadata), ("/ready", "get", ready), ("/infer", "post", infer)):
            operation["parameters"] = [*parameters, *operation.get("parameters", [])]
            paths[path + route] = {method: operation}
    return paths


def _post(name: str, summary: str, request: str, content: Json, errors: str = "ErrorResponse") -> Json:
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
        "responses": {"200": {"description": "Results.", "content": content}, **_errors(_POST_ERRORS, errors)},
    }


def _change(name: str, summary: str, errors: tuple[type[ServiceError], ...] = _CHANGE_ERRORS) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {
            "200": {"description": "The model as it is now.", "content": _json("ModelDescription")},
            **_errors(errors, "ErrorResponse"),
        },
    }


def _load() -> Json:
    operation = _change("load", "Load a version, and make it the live one or put it on trial.", _LOAD_ERRORS)
    return {**operation, "requestBody": {"required": True, "content": _json("LoadRequest")}}


def _get(
    name: str,
    summary: str,
    content: Json,
    shape: str = "ErrorResponse",
    errors: tuple[type[ServiceError], ...] = _GET_ERRORS,
) -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": content}, **_errors(errors, shape)},
    }


def _probe(name: str, summary: str, content: Json, errors: str = "ErrorResponse") -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "security": [{}],
        "responses": {"200": {"description": "Yes.", "content": content}, **_errors((NotReady,), errors)},
    }


def _errors(errors: tuple[type[ServiceError], ...], shape: str) -> Json:
    codes: dict[str, list[str]] = {}
    for error in errors:
        codes.setdefault(str(int(error.status)), []).append(error.code)
    return {
        status: {"description": f"error.code: {', '.join(names)}", "content": _json(shape)}
        for status, names in codes.items()
    }


def _json(model: str) -> Json:
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=model)}}}
