"""What an endpoint takes and answers, as its OpenAPI document says it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from service.errors import ServiceError


@dataclass(frozen=True)
class Parameter:
    """What a request brings beside its body.

    Attributes:
        schema: JSON schema of its value.
    """

    name: str
    place: Literal["path", "header"]
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Operation:
    """What one method of a path does.

    Attributes:
        name: unique; clients that are generated from the document call it so.
        answer: type of a successful answer's body.
        content_type: the answer's.
        description: what a successful answer is; the summary where it is left out.
        request: schema of the body, in JSON; None where there is none.
        binary: whether request and answer may also be application/octet-stream.
        errors: those of its own; what comes with a key or with a body is known of every endpoint that has one.
    """

    name: str
    summary: str
    answer: Any
    content_type: str = "application/json"
    description: str = ""
    request: type[BaseModel] | None = None
    binary: bool = False
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[type[ServiceError], ...] = ()
