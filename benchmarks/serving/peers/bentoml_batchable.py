"""BentoML's own adaptive batching: `benchmarks.serving.peers.bentoml_batchable:Batchable`.

A process for each core; access log and metrics off, which cost time and are not what is compared.
"""

from typing import Any

import bentoml

from benchmarks.serving.peers.bundle_model import Model


@bentoml.service(workers=2, threads=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Batchable:
    """Texts in, answers out, batched by BentoML."""

    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api(route="/classify", batchable=True, max_batch_size=32, max_latency_ms=1000)  # type: ignore[untyped-decorator]
    def classify(self, inputs: list[str]) -> list[dict[str, Any]]:
        """Label and score of each text."""
        return self.model.classify(inputs)
