"""Who asks, and what they may: what a key, or where there are none this machine, is to the routes."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, PositiveInt

from service.errors import Forbidden


class Limits(BaseModel):
    """How much a key may ask for; None: as much as the service has capacity for.

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
        name: of the key; empty where none is needed.
        scopes: what it may do.
        models: which models it may ask; None: all.
        limits: None: it has none.
    """

    name: str = ""
    scopes: Collection[Scope] = SCOPES
    models: Collection[str] | None = None
    limits: Limits | None = None

    def require_scope(self, scope: Scope) -> None:
        """Refuses what the key was not made for.

        Raises:
            Forbidden: it was made for something else.
        """
        if scope not in self.scopes:
            raise Forbidden(
                f"this key may not do this; make one that may with lathe keys add NAME --scope {scope} (this one has "
                f"{', '.join(self.scopes)})"
            )

    def require_model(self, model: str) -> None:
        """Refuses a model that the key was not made for.

        Raises:
            Forbidden: it was made for others.
        """
        if self.models is not None and model not in self.models:
            raise Forbidden(
                f"this key may not ask {model[:64]!r}; it may ask {', '.join(sorted(self.models))}, and lathe keys add "
                "NAME --model makes one for others"
            )


ANYBODY = Caller()
"""Where there are no keys."""
