"""What a request asks for besides its texts, from the route down to a model's queue."""

import math
from dataclasses import dataclass, field

from service.batching import Cancellation
from service.tenant import ANYONE, Tenant


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options of one call; every model, version and member that it is put to gets the same.

    Attributes:
        tenant: who asks; tenants share a queue fairly.
        deadline: on the clock of the batcher; there is no answer after it.
        calibrated: whether each bundle's temperature divides its logits.
        cut: whether a text that is longer than a model's window is cut; otherwise it is rejected.
        cancellation: why what is cancelled of it was.
    """

    tenant: Tenant = ANYONE
    deadline: float = math.inf
    calibrated: bool = False
    cut: bool = True
    cancellation: Cancellation = field(default_factory=Cancellation)
