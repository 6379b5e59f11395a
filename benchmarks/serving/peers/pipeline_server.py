"""FastAPI around a transformers pipeline: `python -m benchmarks.serving.peers.pipeline_server PORT PARENT`.

What is written first: float32, a handler on FastAPI's threads, uvloop and httptools, a worker for each core.
"""

import os
import sys
from typing import Any

import torch
import transformers
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Request(BaseModel):
    """Texts to classify."""

    inputs: list[str]


def create_app() -> FastAPI:
    """The app of one worker."""
    torch.set_num_threads(1)
    classify = transformers.pipeline("text-classification", model=os.environ["PARENT"], device="cpu")
    app = FastAPI()

    @app.post("/classify")  # type: ignore[untyped-decorator]  # of another environment
    def answer(request: Request) -> dict[str, Any]:
        return {"results": classify(request.inputs, batch_size=32, truncation=True)}

    return app


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.serving.peers.pipeline_server:create_app", factory=True, host="127.0.0.1", port=int(sys.argv[1]),
        workers=2, loop="uvloop", http="httptools", access_log=False, log_level="warning",
    )  # fmt: skip
