"""Models asked for one request: real engines, batchers and versions behind handmade bundles."""

import asyncio
from pathlib import Path
from typing import Any

from service.access.caller import ANYBODY
from service.api.ask import Inference
from service.batching import BatchLimits
from service.http.messages import Request
from service.models.intake import Intake
from service.models.loading import Loader
from service.models.version import Version
from service.settings import Settings
from service.telemetry import Telemetry
from tests.handmade import make_bundle

LIMITS = BatchLimits(
    streams=1, batch_texts=64, batch_tokens=4096, batch_ms=25, window=64, queue_texts=64, queue_tokens=4096
)
LONG = "good " * 65


async def never() -> Any:
    await asyncio.sleep(60)


def request() -> Request:
    return Request("1", {}, never, ANYBODY, {})


def inference() -> Inference:
    return Inference(Settings(), {}, Intake(Settings(), Telemetry()))


def version(folder: Path, location: str, telemetry: Telemetry) -> Version:
    """One of `good`, `opposite` or an ensemble of them."""
    make_bundle(folder / "good")
    make_bundle(folder / "opposite", {"good": (1.0, -1.0), "bad": (-1.0, 1.0)})
    return Loader(Settings(streams=1), telemetry).load("shop", location, folder.joinpath, degraded=True)
