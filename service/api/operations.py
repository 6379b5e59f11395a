"""What the operations of several protocols have in common."""

from typing import Any

from service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    ModelNotFound,
    NotANumber,
    NotReady,
    Overloaded,
    ServiceError,
)
from service.http.operation import Operation, Parameter

TIMEOUT = Parameter(
    "X-Request-Timeout-Ms",
    "header",
    "Time that this request may take; never more than the service's own limit.",
    {"type": "integer", "minimum": 1},
)
ASK_ERRORS: tuple[type[ServiceError], ...] = (
    ModelNotFound, Overloaded, InferenceFailed, NotANumber, NotReady, DeadlineExceeded,
)  # fmt: skip


def asking(name: str, summary: str, answer: Any, **more: Any) -> Operation:
    """One that asks a model, within the time that the client gives it."""
    parameters = (*more.pop("parameters", ()), TIMEOUT)
    return Operation(name, summary, answer, description="Results.", parameters=parameters, errors=ASK_ERRORS, **more)


def path_parameter(name: str, description: str = "A name from GET /v1/models.") -> Parameter:
    """What stands in the path for `{name}`."""
    return Parameter(name, "path", description, {"type": "string"})


def probe(name: str, summary: str, answer: Any, content_type: str = "application/json") -> Operation:
    """One that says yes, or that the service is not ready."""
    return Operation(name, summary, answer, content_type, "Yes.", errors=(NotReady,))
