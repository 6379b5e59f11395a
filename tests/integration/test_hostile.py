"""Eight hostile clients at once: an honest one gets its answers. benchmarks/serving/hostile.py measures how fast."""

import asyncio
import re
import time

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from benchmarks.serving.hostile import Honest, attack, attacks, honest
from tests.integration.conftest import LiveService, ServiceFactory

pytestmark = pytest.mark.integration

SECONDS = 8.0


def memory(service: LiveService) -> int:
    processes = [psutil.Process(service.process.pid)]
    processes += processes[0].children(recursive=True)
    return sum(int(process.memory_info().rss) for process in processes)


def samples(service: LiveService, name: str) -> dict[str, float]:
    """Those of a metric that are not 0, by their labels."""
    text = httpx.get(f"{service.url}/metrics").text
    found = re.findall(rf"^{name}(\{{.*\}})? (\S+)$", text, re.MULTILINE)
    return {labels: float(value) for labels, value in found if float(value)}


def test_an_honest_client_gets_its_answers_beside_hostile_ones(service_factory: ServiceFactory) -> None:
    with service_factory() as service:
        labels: dict[str, str] = {}
        asyncio.run(honest(service.url, 2, labels))
        before = memory(service)

        async def together() -> Honest:
            hostile = attack(service.url, SECONDS, list(attacks().values()))
            _, seen = await asyncio.gather(hostile, honest(service.url, SECONDS, labels))
            return seen

        seen = asyncio.run(together())
        assert set(seen.statuses) == {200}
        assert seen.wrong == 0
        assert memory(service) - before < 300_000_000
        end = time.monotonic() + 30
        waits = ("lathe_text_bytes", "lathe_queue_texts")
        while any(samples(service, name) for name in waits) or len(samples(service, "lathe_connections")) > 1:
            assert time.monotonic() < end, httpx.get(f"{service.url}/metrics").text  # something is stuck
            time.sleep(0.2)
        assert not [labels for labels in samples(service, "lathe_requests_total") if 'status="500"' in labels]
        assert " [ERROR] " not in service.log.read_text("utf-8")
