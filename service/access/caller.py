"""Who asks, and what they may: what a key or a token, or where there are none this machine, is to the routes."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, PositiveInt

from service.errors import Forbidden
from service.tenant import Priority, Tenant


class Limits(BaseModel):
    """How much a key, or the name in a token, may ask for; None: as much as the service has capacity for.

    Attributes:
        concurrent: requests that are answered at the same time, by one replica.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_s: PositiveInt | None = None
    tokens_per_min: PositiveInt | None = None
    tokens_per_month: PositiveInt | None = None
    concurrent: PositiveInt | None = None


Scope = Literal["predict", "metrics", "admin"]
"""predict: ask models, mask texts. metrics: read /metrics. admin: change which version of a model is served."""

SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True, slots=True)
class Caller:
    """One that was let in.

    Attributes:
        name: of the key, or in the token; empty where none is needed.
        scopes: what it may do.
        models: which models it may ask; None: all.
        limits: None: it has none.
        credential: what it was let in with.
        priority: its place in the queue.
    """

    name: str = ""
    scopes: Collection[Scope] = SCOPES
    models: Collection[str] | None = None
    limits: Limits | None = None
    credential: Literal["key", "token"] = "key"
    priority: Priority = "interactive"

    @property
    def tenant(self) -> Tenant:
        """Who asks, to the queue."""
        return Tenant(self.name, self.priority)

    def require_scope(self, scope: Scope) -> None:
        """Refuses what the key or token was not made for.

        Raises:
            Forbidden: it was made for something else.
        """
        if scope not in self.scopes:
            remedy = {
                "key": f"make one that may with lathe keys add NAME --scope {scope}",
                "token": f"its issuer must put into it what LATHE_JWT_SCOPES takes for {scope}",
            }[self.credential]
            raise Forbidden(f"this {self.credential} may not do this; {remedy} (this one has {', '.join(self.scopes)})")

    def require_model(self, model: str) -> None:
        """Refuses a model that the key or token was not made for.

        Raises:
            Forbidden: it was made for others.
        """
        if self.models is not None and model not in self.models:
            known = ", ".join(sorted(self.models))
            others = ", and lathe keys add NAME --model makes one for others" if self.credential == "key" else ""
            raise Forbidden(f"this {self.credential} may not ask {model[:64]!r}; it may ask {known}{others}")


ANYBODY = Caller()
"""Where there are no keys."""
