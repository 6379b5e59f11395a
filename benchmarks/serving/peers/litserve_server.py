"""LitServe: `python -m benchmarks.serving.peers.litserve_server PORT`, in its own environment.

Two workers, one for each core; a request's texts go into the batch as one, as LitServe batches requests.
"""

import sys
from typing import Any

import litserve

from benchmarks.serving.peers.bundle_model import Model


class Api(litserve.LitAPI):  # type: ignore[misc]  # of another environment
    """A batch of requests, flattened into one of texts."""

    def setup(self, device: str) -> None:
        self.model = Model()

    def decode_request(self, request: dict[str, Any]) -> list[str]:
        return list(request["inputs"])

    def batch(self, inputs: list[list[str]]) -> list[list[str]]:
        return inputs

    def predict(self, batch: list[list[str]]) -> list[list[dict[str, Any]]]:
        answers = iter(self.model.classify([text for texts in batch for text in texts]))
        return [[next(answers) for _ in texts] for texts in batch]

    def unbatch(self, output: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        return output

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        return {"results": output}


if __name__ == "__main__":
    # Of batches of 1 to 32 and waits of 0 to 10 ms, what served 32 clients fastest.
    api = Api(max_batch_size=8, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
