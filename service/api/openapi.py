"""The OpenAPI document, made of the endpoints that answer: their operations, and the schemas that check the bodies."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import TypeAdapter

from service import __version__
from service.errors import (
    BodyTimeout,
    Forbidden,
    InternalError,
    InvalidRequest,
    LimitsUnavailable,
    PayloadTooLarge,
    RateLimited,
    ServiceError,
    Unauthorized,
    UnsupportedEncoding,
    UnsupportedMediaType,
)
from service.http.operation import Operation, Parameter
from service.http.routing import Endpoint, Group

Json = dict[str, Any]

_BODY_ERRORS: tuple[type[ServiceError], ...] = (
    InvalidRequest, BodyTimeout, PayloadTooLarge, UnsupportedMediaType, UnsupportedEncoding,
)  # fmt: skip
_JSON = "application/json"
_BINARY: Json = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def openapi_document(groups: Sequence[Group]) -> Json:
    """The document, OpenAPI 3.1, of those that have an operation."""
    described = [
        (one, one.operation, group) for group in groups for one in group.endpoints if one.operation is not None
    ]
    schemas = _Schemas(
        [kind for one, operation, _ in described for kind in (operation.answer, operation.request, one.errors.model)]
    )
    paths: dict[str, Json] = {}
    for endpoint, operation, group in described:
        document = {"tags": [group.title], **_operation(endpoint, operation, schemas)}
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = document
    return {
        "openapi": "3.1.0",
        "info": {"title": "Lathe", "version": __version__, "description": "Text classification and triage."},
        "security": [{}, {"key": []}],
        "tags": [{"name": group.title} for group in groups],
        "paths": paths,
        "components": {
            "schemas": schemas.definitions,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def errors_of(endpoint: Endpoint) -> list[type[ServiceError]]:
    """What an endpoint may answer in place of its results, by status."""
    errors: list[type[ServiceError]] = []
    if not endpoint.public:
        errors += [Unauthorized, Forbidden, InternalError]
    if endpoint.scope == "predict":
        errors += [RateLimited, LimitsUnavailable]
    if endpoint.operation is not None:
        errors += endpoint.operation.errors
        if endpoint.operation.request is not None:
            errors += _BODY_ERRORS
    return sorted(errors, key=lambda error: error.status)


class _Schemas:
    """The JSON schemas of types: each where it is used, and the definitions that they refer to."""

    def __init__(self, types: Sequence[Any]) -> None:
        self._types: list[Any] = []
        for kind in types:
            if kind is not None and kind not in self._types:
                self._types.append(kind)
        adapters: list[tuple[str, Literal["validation"], TypeAdapter[Any]]] = [
            (str(index), "validation", TypeAdapter(kind)) for index, kind in enumerate(self._types)
        ]
        self._schemas, defined = TypeAdapter.json_schemas(adapters, ref_template="#/components/schemas/{model}")
        self.definitions: Json = defined["$defs"]

    def content(self, kind: Any, content_type: str = _JSON) -> Json:
        """A body of that type."""
        return {content_type: {"schema": self._schemas[str(self._types.index(kind)), "validation"]}}


def _operation(endpoint: Endpoint, operation: Operation, schemas: _Schemas) -> Json:
    binary = _BINARY if operation.binary else {}
    document: Json = {"operationId": operation.name, "summary": operation.summary}
    if endpoint.public:
        document["security"] = [{}]
    if operation.parameters:
        document["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.request is not None:
        document["requestBody"] = {"required": True, "content": {**schemas.content(operation.request), **binary}}
    answer = {**schemas.content(operation.answer, operation.content_type), **binary}
    document["responses"] = {
        "200": {"description": operation.description or operation.summary, "content": answer},
        **_errors(endpoint, schemas.content(endpoint.errors.model)),
    }
    return document


def _parameter(parameter: Parameter) -> Json:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _errors(endpoint: Endpoint, content: Mapping[str, Any]) -> Json:
    codes: dict[str, list[str]] = {}
    for error in errors_of(endpoint):
        codes.setdefault(str(int(error.status)), []).append(error.code)
    return {
        status: {"description": f"error.code: {', '.join(names)}", "content": content}
        for status, names in codes.items()
    }
