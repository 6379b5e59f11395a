"""What the audit log says of one request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Record:
    """One request, a call that changes versions among them.

    Attributes:
        id: its X-Request-Id.
        key: the name of the key, or what stands for it in a token; empty where none was needed, or none was right.
        route: as the metrics name it; what a client wrote of a path that there is not is left out.
        code: of the error; `ok` where there was none.
        seconds: from when its headers were there to its answer.
        asked: models, with the version that answered.
        tokens: of its texts, as far as models read them.
        model: whose versions it asked to change.
        bundle: that it asked to load.
        trace: the trace that it is part of, as its client says.
    """

    id: str
    key: str
    route: str
    status: int
    code: str
    seconds: float
    asked: Sequence[tuple[str, str]] = ()
    tokens: int = 0
    model: str = ""
    bundle: str = ""
    trace: str = ""

    def fields(self) -> Mapping[str, Any]:
        """As JSON has them; what does not apply is left out."""
        fields: dict[str, Any] = {
            "id": self.id,
            "key": self.key,
            "route": self.route,
            "status": self.status,
            "code": self.code,
            "ms": round(1e3 * self.seconds, 2),
        }
        if self.asked:
            fields |= {"asked": [{"model": model, "version": version} for model, version in self.asked]}
            fields |= {"tokens": self.tokens}
        if self.model:
            fields |= {"model": self.model}
        if self.bundle:
            fields |= {"bundle": self.bundle}
        if self.trace:
            fields |= {"trace": self.trace}
        return fields
