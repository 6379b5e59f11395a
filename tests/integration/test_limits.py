"""A key's limits on the real server: what it is told, what it has used, and that others notice nothing."""

from pathlib import Path

import httpx
import pytest

from service.access.caller import Limits
from service.access.keys import add_key
from tests.integration.conftest import ServiceFactory

pytestmark = pytest.mark.integration

BODY = {"model": "sentiment", "inputs": "good " * 10}
TENSOR = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["good"]}


def test_a_key_is_told_that_it_has_no_tokens_left_and_others_notice_nothing(
    service_factory: ServiceFactory, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    limited = {"Authorization": f"Bearer {add_key(file, 'limited', limits=Limits(tokens_per_month=30))}"}
    other = {"Authorization": f"Bearer {add_key(file, 'other')}"}
    with service_factory(LATHE_KEYS_FILE=str(file)) as service, httpx.Client(base_url=service.url) as client:

        def remaining() -> int:
            answer = client.get("/v1/usage", headers=limited).json()
            assert answer["key"] == "limited"
            (limit,) = answer["limits"]
            assert (limit["name"], limit["limit"]) == ("tokens_per_month", 30)
            return int(limit["remaining"])

        assert remaining() == 30
        answer = client.post("/v1/classify", json=BODY, headers=limited)
        tokens = answer.json()["usage"]["tokens"]
        assert remaining() == 30 - tokens > 0
        while remaining():
            assert client.post("/v1/classify", json=BODY, headers=limited).status_code == 200
        for path, content in (("/v1/classify", BODY), ("/v2/models/sentiment/infer", {"inputs": [TENSOR]})):
            answer = client.post(path, json=content, headers=limited)
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) > 29 * 86400
            assert answer.headers["ratelimit-policy"] == '"tokens_per_month";q=30;w=2592000'
            assert answer.headers["ratelimit"].startswith('"tokens_per_month";r=0;t=')
        assert "30 tokens per month" in answer.json()["error"]
        answer = client.post("/v1/classify", json=BODY, headers=limited)
        assert answer.json()["error"]["code"] == "rate_limited"
        assert client.post("/v1/classify", json=BODY, headers=other).status_code == 200
        assert client.get("/v1/usage", headers=other).json() == {"key": "other", "limits": []}
        assert client.get("/v1/models", headers=limited).status_code == 200
        metrics = client.get("/metrics", headers=other).text
    assert f'lathe_key_tokens_total{{key="other"}} {float(tokens)}' in metrics
    assert 'lathe_key_requests_total{key="limited"}' in metrics
    assert "\nlathe_limits_unavailable_total 0.0\n" in metrics


def test_without_its_store_the_service_starts_and_says_so(service_factory: ServiceFactory, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    limited = {"Authorization": f"Bearer {add_key(file, 'limited', limits=Limits(requests_per_s=30))}"}
    settings = {"LATHE_KEYS_FILE": str(file), "LATHE_LIMITS_STORE": "redis://127.0.0.1:1/0"}
    with service_factory(**settings, LATHE_LIMITS_WITHOUT_STORE="closed") as service:
        answer = httpx.post(f"{service.url}/v1/classify", json=BODY, headers=limited)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "limits_unavailable"
        assert answer.json()["error"]["retryable"]
        metrics = httpx.get(f"{service.url}/metrics", headers=limited).text
        assert "\nlathe_limits_unavailable_total 1.0\n" in metrics
    assert "the store of the limits cannot be asked" in service.log.read_text()
