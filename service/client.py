"""A client of the service: retries what may succeed later, inside one deadline that it passes on.

    with Client("http://127.0.0.1:3000", key) as client:
        client.classify(["Thank you!"], model="sentiment")[0].label

What is sent and when is decided once, in `_exchange`, which does no I/O; `Client` and `AsyncClient` carry it out.
"""

import asyncio
import itertools
import random
import ssl
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from pydantic import ConfigDict

from compression.bundle import Classification, Input, extra
from service.api import schemas

if TYPE_CHECKING:  # an extra
    import httpx

_RETRIED = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
_BACKOFF_S = 0.1


class RequestFailed(Exception):
    """A question that got no answer.

    Attributes:
        code: as docs/errors.md lists them; `unreachable` where no HTTP answer came, `deadline_exceeded` where none came
            in time.
        status: of HTTP; None where there was no answer.
        retryable: whether the same question may be answered later.
        request_id: under which the service's log has it; empty where there was no answer.
    """

    def __init__(
        self, message: str, code: str, status: int | None = None, retryable: bool = False, request_id: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retryable = retryable
        self.request_id = request_id


class Triage(schemas.TriageResult):
    """One customer message: sentiment, intent, and whether a person should take over."""

    model_config = ConfigDict(extra="ignore")  # a newer service may say more


@dataclass(frozen=True)
class _Send:
    """One attempt, for which there are so many seconds."""

    timeout_s: float


@dataclass(frozen=True)
class _Wait:
    seconds: float


_Exchange = Generator[_Send | _Wait, "httpx.Response | httpx.TransportError | None", Any]


class _Base:
    """What both clients have in common.

    Args:
        url: of the service, as `https://lathe.example.com`.
        key: made by `lathe keys add`; None where the service asks for none.
        timeout_s: for one question, all attempts and the waits between them included.
        retries: attempts after the first.
        tls: which authorities it trusts, and the certificate that it has; None: the usual ones, and none.

    Raises:
        MissingExtra: httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 3,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        with extra("client", "lathe.Client"):
            import httpx

        self._httpx = httpx
        self._timeout_s = timeout_s
        self._retries = retries
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._open(base_url=url, headers=headers, verify=True if tls is None else tls)

    def _open(self, **options: Any) -> None:
        """Makes httpx's client."""
        raise NotImplementedError

    def _exchange(self, count: int) -> _Exchange:
        """Decides what is done next; is sent what came of it, and returns the results, of which there are so many.

        Raises:
            RequestFailed: there is none, and no use or no time to try again.
        """
        deadline = time.monotonic() + self._timeout_s
        for attempt in itertools.count():
            outcome = yield _Send(max(0.001, deadline - time.monotonic()))
            assert outcome is not None
            failure = _failure(outcome)
            if failure is None:
                return _results(outcome, count)  # type: ignore[arg-type]  # a TransportError is a failure
            wait = max(_retry_after_s(outcome), _BACKOFF_S * 2**attempt * random.uniform(0.5, 1))  # noqa: S311
            if not failure.retryable or attempt >= self._retries or time.monotonic() + wait >= deadline:
                raise failure
            yield _Wait(wait)


class Client(_Base):
    """Asks a service; a context manager, whose connections several threads may share."""

    def _open(self, **options: Any) -> None:
        self._http = self._httpx.Client(**options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def classify(
        self, texts: str | Sequence[Input], model: str, top_k: int | None = 1, calibrated: bool | None = None
    ) -> list[Classification]:
        """Asks `/v1/classify` for texts, or one; the answers are in their order.

        Args:
            texts: where the model reads pairs, a list of (text, text_pair).
            top_k: how many labels `scores` holds; None for all.
            calibrated: what scores are; None leaves it to the service's setting.

        Raises:
            RequestFailed: there is no answer.
        """
        return _classifications(self._ask("/v1/classify", _question(texts, model, top_k, calibrated)))

    def triage(self, texts: str | Sequence[str]) -> list[Triage]:
        """Asks `/v1/triage` for customer messages, or one; the answers are in their order.

        Raises:
            RequestFailed: there is no answer.
        """
        return _triages(self._ask("/v1/triage", _inputs(texts)))

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        exchange = self._exchange(len(body["inputs"]))
        outcome: httpx.Response | httpx.TransportError | None = None
        try:
            while True:
                step = exchange.send(outcome)
                outcome = None
                if isinstance(step, _Wait):
                    time.sleep(step.seconds)
                    continue
                try:
                    outcome = self._post(path, body, step)
                except self._httpx.TransportError as error:
                    outcome = error
        except StopIteration as end:
            return end.value

    def _post(self, path: str, body: dict[str, Any], step: _Send) -> "httpx.Response":
        """httpx's own limit is for each part that comes, so that is looked at here, too."""
        deadline = time.monotonic() + step.timeout_s
        with self._http.stream("POST", path, json=body, **_limits(step)) as response:
            parts = []
            for part in response.iter_bytes():
                parts.append(part)
                if time.monotonic() > deadline:
                    raise self._httpx.ReadTimeout("")
        status, headers = response.status_code, _plain(response)
        whole: httpx.Response = self._httpx.Response(status, headers=headers, content=b"".join(parts))
        return whole


class AsyncClient(_Base):
    """Asks a service from asyncio; an asynchronous context manager."""

    def _open(self, **options: Any) -> None:
        self._http = self._httpx.AsyncClient(**options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def classify(
        self, texts: str | Sequence[Input], model: str, top_k: int | None = 1, calibrated: bool | None = None
    ) -> list[Classification]:
        """See `Client.classify`."""
        return _classifications(await self._ask("/v1/classify", _question(texts, model, top_k, calibrated)))

    async def triage(self, texts: str | Sequence[str]) -> list[Triage]:
        """See `Client.triage`."""
        return _triages(await self._ask("/v1/triage", _inputs(texts)))

    async def _ask(self, path: str, body: dict[str, Any]) -> Any:
        exchange = self._exchange(len(body["inputs"]))
        outcome: httpx.Response | httpx.TransportError | None = None
        try:
            while True:
                step = exchange.send(outcome)
                outcome = None
                if isinstance(step, _Wait):
                    await asyncio.sleep(step.seconds)
                    continue
                try:  # httpx's own limit is for each part that comes
                    async with asyncio.timeout(step.timeout_s):
                        outcome = await self._http.post(path, json=body, **_limits(step))
                except TimeoutError:
                    outcome = self._httpx.ReadTimeout("")
                except self._httpx.TransportError as error:
                    outcome = error
        except StopIteration as end:
            return end.value


def _limits(step: _Send) -> dict[str, Any]:
    """The time that is left, for httpx and for the service, which gives up what nobody waits for."""
    return {"timeout": step.timeout_s, "headers": {"X-Request-Timeout-Ms": str(max(1, int(1e3 * step.timeout_s)))}}


def _plain(response: "httpx.Response") -> dict[str, str]:
    """Its headers, but for those of how it was sent."""
    sent = ("content-encoding", "content-length", "transfer-encoding")
    return {name: value for name, value in response.headers.items() if name not in sent}


def _address(error: "httpx.TransportError") -> str:
    try:
        url = error.request.url
    except RuntimeError:  # it knows of none
        return "the service"
    return str(url.copy_with(path="/", query=None)).rstrip("/") or "the service"


def _failure(outcome: "httpx.Response | httpx.TransportError") -> RequestFailed | None:
    """What went wrong; None where nothing did."""
    import httpx

    if isinstance(outcome, httpx.TimeoutException):
        return RequestFailed("no answer came in time", "deadline_exceeded", retryable=True)
    if isinstance(outcome, httpx.TransportError):
        message = f"{_address(outcome)} cannot be reached: {outcome}"
        return RequestFailed(message, "unreachable", retryable=True)
    if outcome.is_success:
        return None
    try:
        error = outcome.json()["error"]
        return RequestFailed(
            error["message"], error["code"], outcome.status_code, error["retryable"], error["request_id"]
        )
    except (ValueError, TypeError, KeyError):  # something else answered, such as a proxy
        message = f"HTTP {outcome.status_code}, which is no answer of Lathe's; check the address"
        return RequestFailed(message, "unknown", outcome.status_code, outcome.status_code in _RETRIED)


def _results(outcome: "httpx.Response", count: int) -> list[Any]:
    """What a successful answer holds."""
    try:
        results = outcome.json()["results"]
        if isinstance(results, list) and len(results) == count:
            return results
    except (ValueError, TypeError, KeyError):
        pass
    message = "an answer without one result for each text, which is none of Lathe's; check the address"
    raise RequestFailed(message, "unknown", outcome.status_code)


def _retry_after_s(outcome: "httpx.Response | httpx.TransportError") -> float:
    headers = getattr(outcome, "headers", {})
    value = headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0


def _question(texts: str | Sequence[Input], model: str, top_k: int | None, calibrated: bool | None) -> dict[str, Any]:
    body = {"model": model, "top_k": top_k, **_inputs(texts)}
    return body if calibrated is None else {**body, "calibrated": calibrated}


def _inputs(texts: str | Sequence[Input]) -> dict[str, Any]:
    inputs = [texts] if isinstance(texts, str) else list(texts)
    for index, given in enumerate(inputs):
        try:
            "".join(given).encode()
        except UnicodeEncodeError:
            message = f"inputs[{index}] holds half a surrogate pair, which is no character; remove it"
            raise RequestFailed(message, "invalid_request") from None
    return {"inputs": [_input(one) for one in inputs]}


def _input(given: Input) -> Any:
    """As JSON has it."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        return given
    return {"text": given[0], "text_pair": given[1]}


def _classifications(results: list[Any]) -> list[Classification]:
    return [
        Classification(
            label=one["label"],
            score=one["score"],
            labels=tuple(one.get("labels", [one["label"]])),
            scores=one["scores"],
            truncated=one["truncated"],
            abstained=one.get("abstained"),
        )
        for one in results
    ]


def _triages(results: list[Any]) -> list[Triage]:
    return [Triage.model_validate(one) for one in results]
