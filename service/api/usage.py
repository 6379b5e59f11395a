"""The route that tells a key what it has used of its limits."""

from pydantic import BaseModel, Field

from service.access.limits import Limiter
from service.errors import LimitsUnavailable
from service.http.messages import Request, Response
from service.http.operation import Operation
from service.http.routing import Endpoint, Group


class LimitUsage(BaseModel):
    name: str = Field(description="requests_per_s, tokens_per_min, or tokens_per_month.")
    limit: int
    remaining: int
    resets_in_s: float = Field(description="Until what was used is forgotten.")


class UsageResponse(BaseModel):
    key: str = Field(description="Its name; empty where the service has no keys.")
    limits: list[LimitUsage]


def routes(limiter: Limiter) -> Group:
    """What there is of a key's own."""

    async def usage(request: Request) -> Response:
        limits = [limit._asdict() for limit in await limiter.usage(request.caller)]
        return Response.json({"key": request.caller.name, "limits": limits})

    operation = Operation("usage", "What the key has used of its limits.", UsageResponse, errors=(LimitsUnavailable,))
    return Group(
        "Limits",
        "A key may have limits (`lathe keys add NAME --requests-per-s 20 --tokens-per-min 100000`). At one of them the "
        "answer is 429 with Retry-After, RateLimit-Policy and RateLimit.",
        [Endpoint("GET", "/v1/usage", usage, operation)],
    )
