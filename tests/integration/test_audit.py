"""The audit log of the real server."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access.keys import add_key
from service.audit.chain import verify
from tests.handmade import make_bundle
from tests.integration.conftest import serve
from tests.integration.test_start_and_stop import refused

pytestmark = pytest.mark.integration

MARKER = "zanzibarium"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def test_every_request_is_recorded_without_its_text_and_nothing_was_changed(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "root" / "bundle")
    keys, log = tmp_path / "keys.json", tmp_path / "audit.jsonl"
    shop, admin = add_key(keys, "shop"), add_key(keys, "ops", scopes=("admin",))
    settings = {
        "LATHE_MODELS": f"mine={bundle.path}", "LATHE_BUNDLES_ROOT": str(tmp_path / "root"),
        "LATHE_KEYS_FILE": str(keys), "LATHE_AUDIT_FILE": "audit.jsonl", "LATHE_DIRECTORY": str(tmp_path),
    }  # fmt: skip
    with serve(tmp_path / "service.log", settings) as service, httpx.Client(base_url=service.url, timeout=60) as client:
        ask = {"model": "mine", "inputs": ["good", MARKER]}
        headers = {"Authorization": f"Bearer {shop}"}
        answered = client.post(
            "/v1/classify", json=ask, headers={**headers, "X-Request-Id": "order-7", "traceparent": PARENT}
        )
        client.post("/v1/classify", json=ask, headers={"Authorization": f"Bearer {shop}x"})
        client.post("/v1/classify", json={"model": MARKER, "inputs": "good"}, headers=headers)
        client.get(f"/{MARKER}", headers={**headers, "traceparent": f"00-{MARKER}-00f067aa0ba902b7-01"})
        client.get("/livez")
        as_admin = {"Authorization": f"Bearer {admin}"}
        client.post("/v1/models/mine/load", json={"bundle": "missing"}, headers=as_admin)
        client.post("/v1/models/mine/rollback", headers=headers)
    assert "another process" not in (tmp_path / "service.log").read_text("utf-8")
    got: list[dict[str, Any]] = [json.loads(line) for line in log.read_bytes().splitlines()]
    requests = [one for one in got if one["event"] == "request" and one["route"] != "/readyz"]
    assert [(one["key"], one["route"], one["status"], one["code"]) for one in requests] == [
        ("shop", "/v1/classify", 200, "ok"),
        ("", "/v1/classify", 401, "unauthorized"),
        ("shop", "/v1/classify", 404, "model_not_found"),
        ("shop", "other", 404, "not_found"),
        ("ops", "/v1/models/{name}/load", 422, "bundle_refused"),
        ("shop", "/v1/models/{name}/rollback", 403, "forbidden"),
    ]
    assert requests[0]["id"] == "order-7" == answered.headers["X-Request-Id"]
    assert [one.get("trace") for one in requests] == [TRACE, *[None] * 5]
    assert requests[0]["asked"] == [{"model": "mine", "version": bundle.version}]
    assert requests[0]["tokens"] == answered.json()["usage"]["tokens"]
    assert (requests[4]["model"], requests[4]["bundle"]) == ("mine", "missing")
    assert MARKER not in log.read_text("utf-8")
    verify(log)


def test_a_file_that_cannot_be_written_is_one_line_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    bundle = make_bundle(tmp_path / "bundle")
    message = refused(LATHE_MODELS=f"mine={bundle.path}", LATHE_AUDIT_FILE=str(tmp_path / "file" / "audit.jsonl"))
    assert "the audit log cannot be written" in message
    assert "Traceback" not in message
