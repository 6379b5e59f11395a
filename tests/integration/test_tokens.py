"""Tokens of an issuer on the real server."""

from pathlib import Path

import httpx
import pytest

from service.access.keys import add_key
from tests.authority import AUDIENCE, ISSUER, authority, token, until
from tests.integration.conftest import ServiceFactory

pytestmark = pytest.mark.integration

BODY = {"model": "sentiment", "inputs": "good"}


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


def test_tokens_and_keys_are_let_in_and_the_issuer_may_change_its_keys_and_be_away(
    service_factory: ServiceFactory, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    scraper = bearer(add_key(file, "prometheus", ["metrics"]))
    shop, rotated = token("one", text="zanzibarium"), token("two", sub="bank", scope="use")
    with authority() as issuer:
        settings = {
            "LATHE_KEYS_FILE": str(file),
            "LATHE_JWT_ISSUER": ISSUER,
            "LATHE_JWT_AUDIENCE": AUDIENCE,
            "LATHE_JWT_JWKS": issuer.url,
            "LATHE_JWT_SCOPES": "predict=predict,use=predict,use=metrics",
            "LATHE_JWT_LIMITS": "tokens_per_month=1000",
        }
        with service_factory(**settings) as service, httpx.Client(base_url=service.url) as client:
            assert client.get("/readyz").status_code == 200
            answer = client.post("/v1/classify", json=BODY, headers=bearer(shop))
            assert answer.status_code == 200
            used = answer.json()["usage"]["tokens"]
            usage = client.get("/v1/usage", headers=bearer(shop)).json()
            assert (usage["key"], usage["limits"][0]["remaining"]) == ("shop", 1000 - used)
            assert client.get("/metrics", headers=bearer(shop)).status_code == 403
            for refused, reason in (
                (token("one", aud="another"), "aud"),
                (token("one", exp=1), "expired"),
                (shop[:-4] + "AAAA", "signature"),
            ):
                answer = client.post("/v1/classify", json=BODY, headers=bearer(refused))
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
                assert reason in answer.json()["error"]["message"]
            assert client.get("/v1/models").headers["www-authenticate"] == "Bearer"
            issuer.publish("two")
            until(lambda: client.post("/v1/classify", json=BODY, headers=bearer(rotated)).status_code == 200)
            metrics = client.get("/metrics", headers=scraper).text
            assert "\nlathe_issuer_readable 1.0\n" in metrics
            assert 'lathe_key_requests_total{key="shop"} 1.0' in metrics
            issuer.answer(500, b"")
            assert client.post("/v1/classify", json=BODY, headers=bearer(rotated)).status_code == 200
    log = service.log.read_text()
    for secret in (shop, rotated, *shop.split(".")[1:], *rotated.split(".")[1:], "zanzibarium"):
        assert secret not in log + metrics
