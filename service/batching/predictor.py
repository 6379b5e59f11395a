"""What answers tokenised texts: a batcher, or something in front of one."""

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

from service.batching.submissions import Cancellation, Item, Logits
from service.tenant import ANYONE, Tenant

I_contra = TypeVar("I_contra", bound=Item, contravariant=True)


class Predictor(Protocol[I_contra]):
    """Asked at each stage of a request; for what the arguments mean and what is raised see `Batcher`."""

    def has_room(self, tenant: Tenant = ANYONE, deadline: float = math.inf) -> bool:
        """Whether it would take one text; counts nothing."""
        ...

    def require_room(self, texts: int, tenant: Tenant = ANYONE, deadline: float = math.inf) -> None:
        """Rejects so many texts where `submit` would."""
        ...

    async def submit(
        self,
        items: Sequence[I_contra],
        tenant: Tenant = ANYONE,
        deadline: float = math.inf,
        cancellation: Cancellation | None = None,
    ) -> Logits:
        """The logits of items, (items, labels), in their order."""
        ...
