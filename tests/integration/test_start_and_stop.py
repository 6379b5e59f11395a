"""What the service refuses to start with, who gets in, what it logs, and how it ends."""

import concurrent.futures
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from compression.bundle import Bundle
from loadtests.run import free_port, stop
from service.access.keys import add_key, revoke_key
from tests.commands import done
from tests.handmade import make_bundle
from tests.integration.conftest import LiveService, ServiceFactory, serve, service_command, service_environment

pytestmark = pytest.mark.integration

MARKER = "zanzibarium"


def refused(host: str = "127.0.0.1", port: int | None = None, **settings: str) -> str:
    """What the service says when it does not start; fails when it does."""
    process = subprocess.Popen(
        service_command(port or free_port(), host), env=service_environment(**settings),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        pytest.fail("the service started")
    finally:
        stop(process)
    assert process.returncode != 0
    return output


def test_an_open_address_without_keys_is_refused(models_setting: str) -> None:
    message = refused("0.0.0.0", LATHE_MODELS=models_setting)
    assert "0.0.0.0" in message
    assert "LATHE_KEYS_FILE" in message
    assert "Traceback" not in message


def test_a_host_that_is_no_address_and_a_port_in_use_are_one_line(
    models_setting: str, live_service: LiveService
) -> None:
    message = refused("localhost", LATHE_MODELS=models_setting)
    assert message.endswith("or start with lathe serve, which takes names\n")
    assert "Traceback" not in message
    taken = int(live_service.url.rpartition(":")[2])
    message = refused(port=taken, LATHE_MODELS=models_setting)
    assert f"port {taken}: Address already in use" in message
    assert "Traceback" not in message


def test_a_flipped_byte_is_refused_and_named(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(sentiment_bundle.path, broken)
    model = bytearray((broken / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (broken / "model.onnx").write_bytes(model)
    assert str(broken / "model.onnx") in refused(LATHE_MODELS=f"sentiment={broken}")


def test_only_signed_bundles_are_served_where_a_signature_is_asked_for(
    service_factory: ServiceFactory, tmp_path: Path
) -> None:
    signed, unsigned = make_bundle(tmp_path / "root" / "signed"), make_bundle(tmp_path / "root" / "unsigned")
    done("keys", "signing", "--out", tmp_path / "mine.key")
    done("sign", signed.path, "--key", tmp_path / "mine.key")
    public = str(tmp_path / "mine.key.pub")
    assert "is not signed" in refused(LATHE_MODELS=f"mine={unsigned.path}", LATHE_SIGNED_BY=public)
    message = refused(LATHE_MODELS=f"mine={signed.path}", LATHE_SIGNED_BY=str(tmp_path / "mine.key"))
    assert "LATHE_SIGNED_BY: " in message
    assert "the private one stays where bundles are signed" in message
    with service_factory(
        LATHE_MODELS=f"mine={signed.path}", LATHE_SIGNED_BY=public, LATHE_BUNDLES_ROOT=str(tmp_path / "root")
    ) as service:
        load = f"{service.url}/v1/models/mine/load"
        answer = httpx.post(load, json={"bundle": "unsigned"}, timeout=60)
        assert answer.status_code == 422
        assert "is not signed" in answer.json()["error"]["message"]
        assert httpx.post(load, json={"bundle": "signed"}, timeout=60).status_code == 200


def test_a_bundle_that_is_not_there_is_refused_with_the_remedy(tmp_path: Path) -> None:
    assert "lathe compress" in refused(LATHE_MODELS=f"sentiment={tmp_path / 'nowhere'}")


def test_keys_open_everything_but_the_probes_need_none(service_factory: ServiceFactory, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key, other = add_key(file, "shop"), add_key(file, "bank")
    body = {"model": "sentiment", "inputs": "good"}
    with service_factory(LATHE_KEYS_FILE=str(file)) as service, httpx.Client(base_url=service.url) as client:
        for path in ("/livez", "/readyz", "/", "/docs", "/static_content/swagger-ui.css"):
            assert client.get(path).status_code == 200
        for path in ("/v1/models", "/metrics", "/docs.json", "/schema.json", "/nope"):
            assert client.get(path).status_code == 401
        for header in ("", "Bearer", "Bearer nonsense", f"Basic {key}", f"Bearer {key}x"):
            answer = client.post("/v1/classify", json=body, headers={"Authorization": header})
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "unauthorized"
            assert answer.headers["www-authenticate"] == "Bearer"
        authorized = {"Authorization": f"Bearer {key}"}
        assert client.post("/v1/classify", json=body, headers=authorized).status_code == 200
        revoke_key(file, "shop")
        time.sleep(1.5)
        assert client.post("/v1/classify", json=body, headers=authorized).status_code == 401
        others = {"Authorization": f"Bearer {other}"}
        assert client.get("/v1/models", headers=others).status_code == 200
        file.write_text("{")
        time.sleep(1.5)
        assert "\nlathe_keys_file_readable 0.0\n" in client.get("/metrics", headers=others).text
    log = service.log.read_text()
    assert f"{file}: not a keys file" in log
    assert key not in log
    assert other not in log


def test_a_key_is_refused_what_it_was_not_made_for(service_factory: ServiceFactory, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys = {
        "prometheus": add_key(file, "prometheus", ["metrics"]),
        "shop": add_key(file, "shop", ["predict"], ["sentiment"]),
        "operator": add_key(file, "operator", ["admin"]),
        "old": add_key(file, "old", expires=datetime.now(UTC) + timedelta(seconds=1)),
    }
    body: dict[str, object] = {"model": "sentiment", "inputs": "good"}
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["good"]}
    calls: list[tuple[str, dict[str, object] | None, set[str]]] = [  # and whose key is let in
        ("/metrics", None, {"prometheus"}),
        ("/v1/models", None, {"prometheus", "shop", "operator"}),
        ("/v1/classify", body, {"shop"}),
        ("/v1/mask", {"inputs": "good"}, {"shop"}),
        ("/predict", {"inputs": "good"}, {"shop"}),
        ("/v2/models/sentiment/infer", {"inputs": [tensor]}, {"shop"}),
        ("/v1/classify", body | {"model": "banking-intents"}, set()),
        ("/v1/triage", {"inputs": "good"}, set()),
        ("/v1/models/sentiment/rollback", {}, {"operator"}),
    ]
    with service_factory(LATHE_KEYS_FILE=str(file)) as service, httpx.Client(base_url=service.url) as client:
        for path, content, welcome in calls:
            for name, key in keys.items():
                headers = {"Authorization": f"Bearer {key}"}
                answer = client.request("GET" if content is None else "POST", path, json=content, headers=headers)
                if name in welcome:  # there is nothing to roll back to
                    assert answer.status_code == (409 if "rollback" in path else 200), (path, name)
                else:
                    assert answer.status_code == (401 if name == "old" else 403), (path, name)
        headers = {"Authorization": f"Bearer {keys['prometheus']}"}
        assert "\nlathe_keys_next_expiry_timestamp_seconds +Inf\n" in client.get("/metrics", headers=headers).text


def test_nothing_that_clients_write_is_logged(service_factory: ServiceFactory) -> None:
    bodies = [
        b'{"model": "sentiment", "inputs": "%s"}',
        b'{"model": "sentiment", "inputs": ["", "%s"]}',
        b'{"model": "%s", "inputs": "good"}',
        b'{"model": "sentiment", "inputs": "good", "%s": 1}',
        b'{"model": "sentiment", "inputs": "%s',
        b"%s",
    ]
    with service_factory() as service, httpx.Client(base_url=service.url) as client:
        for body in bodies:
            for path in ("/v1/classify", "/v1/triage", f"/{MARKER}"):
                content = body.replace(b"%s", MARKER.encode())
                client.post(path, content=content, headers={"content-type": "application/json"})
        client.get("/v1/models", params={"text": MARKER})
    assert "ready" in service.log.read_text()
    assert MARKER not in service.log.read_text()


def test_a_full_queue_answers_429_at_once_and_the_rest_is_served(service_factory: ServiceFactory) -> None:
    body = {"model": "sentiment", "inputs": ["good " * 60] * 8}
    with (
        service_factory(LATHE_QUEUE_TEXTS="16", LATHE_STREAMS="1", LATHE_BATCH_TOKENS="64") as service,
        httpx.Client(base_url=service.url, timeout=60, limits=httpx.Limits(max_connections=48)) as client,
        concurrent.futures.ThreadPoolExecutor(48) as threads,
    ):
        answers = list(threads.map(lambda _: client.post("/v1/classify", json=body), range(240)))
        metrics = client.get("/metrics").text
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["retryable"]
        else:
            assert len(answer.json()["results"]) == 8
    shed = f'lathe_shed_texts_total{{model="sentiment",reason="overloaded",role="live"}} {8.0 * statuses.count(429)}'
    assert shed in metrics


def test_sigterm_answers_what_was_accepted_and_exits_with_0(models_setting: str, tmp_path: Path) -> None:
    body = {"model": "sentiment", "inputs": ["good " * 60] * 200}
    go = tmp_path / "go"
    settings = {
        "LATHE_MODELS": models_setting,
        "LATHE_STREAMS": "1",
        "LATHE_REQUEST_TIMEOUT_MS": "60000",
        "GO": str(go),
    }
    waits = {"model": "sentiment", "inputs": "good " * 8}  # until there is the file
    with (
        serve(tmp_path / "service.log", settings, "tests.integration.faulty:Lathe") as service,
        concurrent.futures.ThreadPoolExecutor(8) as threads,
    ):

        def seen(line: str) -> bool:
            return line in httpx.get(f"{service.url}/metrics", timeout=30).text

        url = f"{service.url}/v1/classify"
        sent = [threads.submit(httpx.post, url, json=waits, timeout=60)]
        while not seen('lathe_batch_texts_count{model="sentiment",role="live"} 1.0'):
            time.sleep(0.01)
        sent += [threads.submit(httpx.post, url, json=body, timeout=60) for _ in range(7)]
        while not seen('lathe_queue_texts{model="sentiment",role="live"} 1400.0'):
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        go.touch()
        statuses = [answer.result().status_code for answer in sent]
        assert service.process.wait(30) == 0
    assert statuses == [200] * 8
