"""A service of BentoML's own that takes and gives what /v1/classify does, and computes nothing."""

from typing import Any

import bentoml
from pydantic import BaseModel


class Request(BaseModel):
    """What /v1/classify takes, for one text."""

    model: str
    inputs: str
    top_k: int = 1


# Without what it can do without: access log and metrics off, a coroutine and so no thread.
@bentoml.service(workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Noop:
    """Answers at once."""

    @bentoml.api(route="/v1/classify", input_spec=Request)  # type: ignore[untyped-decorator]
    async def classify(self, **request: Any) -> dict[str, Any]:
        """What /v1/classify gives, for one text."""
        result = {"label": "negative", "score": 0.5, "scores": {"negative": 0.5}, "truncated": False}
        return {"model": request["model"], "version": "0" * 64, "results": [result], "usage": {"tokens": 16}}
