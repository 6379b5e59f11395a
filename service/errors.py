"""Every way a request can fail; each class owns its code, its HTTP status and whether a retry can help.

ServiceError
├── InvalidRequest        400  the body is not what the schema says
├── MalformedRequest      400  not HTTP/1.1, or HTTP that could be read in two ways
├── Unauthorized          401  no key or token, or a wrong one
│   └── InvalidToken      401  the same, and the message says what is wrong with a token
├── Forbidden             403  the key, or the caller, may not do this
├── NotFound              404  no such path
├── ModelNotFound         404  no such model
├── MethodNotAllowed      405
├── BodyTimeout           408  the body did not come within the request's time
├── HeadTimeout           408  the head did not come in time
├── Conflict              409  nothing to promote, to drop or to return to
├── PayloadTooLarge       413  body or inputs beyond the limits, or more than can be computed in the request's time
├── UriTooLong            414
├── UnsupportedMediaType  415  not application/json
├── UnsupportedEncoding   415  compressed otherwise than by gzip or deflate; Accept-Encoding names them
├── BundleRefused         422  a new version that cannot take the live one's place
├── HeadersTooLarge       431  too many headers, or too long
├── Overloaded            429  the queue is full, or too long for the request's time; Retry-After says when
├── RateLimited           429  the key has used up a limit of its own; Retry-After says when to ask again
├── InternalError         500  a fault of the service
├── InferenceFailed       500  the model could not compute this text
├── NotANumber            500  the model's answer is not finite
├── UnsupportedTransfer   501  a transfer coding or a method that no server here knows
├── NotReady              503  starting or stopping
├── LimitsUnavailable     503  nobody knows what the key has used
├── DeadlineExceeded      504  the request's time was over
└── HttpVersionNotSupported 505

One shape for all, ErrorResponse: {"error": {"code", "message", "retryable", "request_id"}}.
"""

from http import HTTPStatus
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field


class ServiceError(Exception):
    """A failure that the client gets to read; its message never holds the client's text."""

    code: ClassVar[str]
    status: ClassVar[HTTPStatus]
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to the answer."""
        return {}

    def body(self, request_id: str) -> dict[str, dict[str, str | bool]]:
        """The JSON of the answer, as ErrorResponse describes it."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "retryable": self.retryable,
                "request_id": request_id,
            }
        }


class InvalidRequest(ServiceError):
    code = "invalid_request"
    status = HTTPStatus.BAD_REQUEST


class MalformedRequest(ServiceError):
    code = "malformed_request"
    status = HTTPStatus.BAD_REQUEST


class Unauthorized(ServiceError):
    code = "unauthorized"
    status = HTTPStatus.UNAUTHORIZED

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class InvalidToken(Unauthorized):
    """Source: RFC 6750, section 3.1."""

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class Forbidden(ServiceError):
    code = "forbidden"
    status = HTTPStatus.FORBIDDEN


class NotFound(ServiceError):
    code = "not_found"
    status = HTTPStatus.NOT_FOUND


class ModelNotFound(ServiceError):
    code = "model_not_found"
    status = HTTPStatus.NOT_FOUND


class MethodNotAllowed(ServiceError):
    code = "method_not_allowed"
    status = HTTPStatus.METHOD_NOT_ALLOWED

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.allow = allow

    @property
    def headers(self) -> dict[str, str]:
        return {"Allow": self.allow}


class BodyTimeout(ServiceError):
    code = "body_timeout"
    status = HTTPStatus.REQUEST_TIMEOUT
    retryable = True

    @property
    def headers(self) -> dict[str, str]:
        return {"Connection": "close"}


class HeadTimeout(ServiceError):
    code = "head_timeout"
    status = HTTPStatus.REQUEST_TIMEOUT
    retryable = True


class Conflict(ServiceError):
    code = "conflict"
    status = HTTPStatus.CONFLICT


class PayloadTooLarge(ServiceError):
    code = "payload_too_large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UriTooLong(ServiceError):
    code = "uri_too_long"
    status = HTTPStatus.REQUEST_URI_TOO_LONG


class UnsupportedMediaType(ServiceError):
    code = "unsupported_media_type"
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class UnsupportedEncoding(ServiceError):
    code = "unsupported_encoding"
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE

    @property
    def headers(self) -> dict[str, str]:
        return {"Accept-Encoding": "gzip, deflate"}


class BundleRefused(ServiceError):
    code = "bundle_refused"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class HeadersTooLarge(ServiceError):
    code = "headers_too_large"
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


class Overloaded(ServiceError):
    code = "overloaded"
    status = HTTPStatus.TOO_MANY_REQUESTS
    retryable = True

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after_s)}


class RateLimited(ServiceError):
    """A limit of the key's own.

    Source: the header fields of draft-ietf-httpapi-ratelimit-headers.

    Args:
        policy: the limit's name.
        limit: how much it is.
        window_s: within which time.
    """

    code = "rate_limited"
    status = HTTPStatus.TOO_MANY_REQUESTS
    retryable = True

    def __init__(self, message: str, policy: str, limit: int, retry_after_s: int, window_s: int | None = None) -> None:
        super().__init__(message)
        window = "" if window_s is None else f";w={window_s}"
        self._headers = {
            "Retry-After": str(retry_after_s),
            "RateLimit-Policy": f'"{policy}";q={limit}{window}',
            "RateLimit": f'"{policy}";r=0;t={retry_after_s}',
        }

    @property
    def headers(self) -> dict[str, str]:
        return self._headers


class LimitsUnavailable(ServiceError):
    code = "limits_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    retryable = True

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": "1"}


class InternalError(ServiceError):
    code = "internal_error"
    status = HTTPStatus.INTERNAL_SERVER_ERROR


class InferenceFailed(ServiceError):
    code = "inference_failed"
    status = HTTPStatus.INTERNAL_SERVER_ERROR


class NotANumber(ServiceError):
    code = "not_a_number"
    status = HTTPStatus.INTERNAL_SERVER_ERROR


class UnsupportedTransfer(ServiceError):
    code = "unsupported_transfer"
    status = HTTPStatus.NOT_IMPLEMENTED


class NotReady(ServiceError):
    code = "not_ready"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    retryable = True

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": "1"}


class DeadlineExceeded(ServiceError):
    code = "deadline_exceeded"
    status = HTTPStatus.GATEWAY_TIMEOUT
    retryable = True


class HttpVersionNotSupported(ServiceError):
    code = "http_version_not_supported"
    status = HTTPStatus.HTTP_VERSION_NOT_SUPPORTED


class ErrorDetail(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: str = Field(description="What went wrong, in one word for programs.")
    message: str = Field(description="The same for people; never quotes what was sent as a text.")
    retryable: bool = Field(description="Whether the same request may succeed later.")
    request_id: str = Field(description="As in the header X-Request-Id; the service's log has it.")


class ErrorResponse(BaseModel):
    model_config = ConfigDict(extra="forbid")

    error: ErrorDetail


def all_errors() -> list[type[ServiceError]]:
    """Every class of the tree, for the API's description and for the test that holds the docs to it."""
    return list(ServiceError.__subclasses__())


def for_status(status: int, allow: str = "") -> ServiceError:
    """The error for a status that something other than our handlers answered with; `allow` names a path's methods."""
    by_status: dict[int, ServiceError] = {
        HTTPStatus.NOT_FOUND: NotFound("no such path; GET /docs.json lists them"),
        HTTPStatus.METHOD_NOT_ALLOWED: MethodNotAllowed(
            "this path does not take that method; see GET /docs.json", allow
        ),
        HTTPStatus.SERVICE_UNAVAILABLE: NotReady("the service is not ready"),
    }
    return by_status.get(status, InternalError("the service failed; its log has the reason under this request_id"))


class ConfigurationError(Exception):
    """The service must not start like this; the message names the setting, its value and the remedy."""

    exit_code: ClassVar[int] = 1


class ScoringError(Exception):
    """A file cannot be scored; the message names the file, what is wrong with it and the remedy."""

    exit_code: ClassVar[int] = 1
