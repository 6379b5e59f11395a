"""New versions by call, and what a service refuses to begin with: the routes behind the gate, without a server."""

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from compression.bundle import GoldenAnswers, read_golden
from service.access.authenticator import Authenticator
from service.access.keys import add_key
from service.access.limits import Limiter
from service.access.local import LocalOnly
from service.api.routes import create_routes
from service.api.triage import check_fit
from service.engine.engine import Engine
from service.environment import load_settings
from service.http.entrance import Entrance
from service.http.gate import Gate
from service.http.messages import Receive, Send
from service.models.loading import Loader
from service.models.registry import Serving, State, check
from service.telemetry import Telemetry
from tests.handmade import endless_model, make_bundle

OPPOSITE = {"good": (1.0, -1.0), "bad": (-1.0, 1.0)}


async def nothing(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    raise AssertionError(f"{scope['path']} is no route of the gate")


class Service:
    """A service that serves one handmade model, `mine`, and may load from a directory of further ones."""

    def __init__(self, folder: Path, client: str = "127.0.0.1", workers: int = 1, **variables: str) -> None:
        root = folder / "root"
        make_bundle(folder / "first")
        make_bundle(root / "opposite", OPPOSITE)
        make_bundle(root / "turned", labels=("positive", "negative"))
        make_bundle(root / "stranger", golden=make_golden(folder))
        (root / "link").symlink_to(folder / "first")
        environment = {
            "LATHE_MODELS": f"mine={folder / 'first'}", "LATHE_BUNDLES_ROOT": str(root), "LATHE_STREAMS": "1",
        }  # fmt: skip
        settings, telemetry = load_settings({**environment, **variables}), Telemetry()
        access = LocalOnly(()) if settings.keys_file is None else Authenticator(settings.keys_file)
        self.serving = Serving(settings, Path, telemetry, partial(check_fit, settings), workers)
        routes = create_routes(self.serving, access, Limiter())
        app = Gate(nothing, Entrance(routes, access, settings.request_timeout_ms), telemetry)
        transport = httpx.ASGITransport(app, client=(client, 1))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    async def call(self, change: str, status: int = 200, **body: object) -> dict[str, object]:
        """Calls a change of `mine`; the model as it is described then, or the error."""
        answer = await self.http.post(f"/v1/models/mine/{change}", json=body)
        assert answer.status_code == status, answer.text
        content: dict[str, object] = answer.json()
        return content if status == 200 else content["error"]  # type: ignore[return-value]

    async def classify(self) -> dict[str, object]:
        """What is answered to `good`."""
        answer = await self.http.post("/v1/classify", json={"model": "mine", "inputs": "good"})
        assert answer.status_code == 200
        content: dict[str, object] = answer.json()
        return content

    async def label(self) -> object:
        return (await self.classify())["results"][0]["label"]  # type: ignore[index]

    def metric(self, line: str) -> float:
        rows = self.serving.telemetry.exposition().decode().splitlines()
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows if line in row)


def make_golden(folder: Path) -> GoldenAnswers | None:
    """Golden answers of another model."""
    return read_golden(make_bundle(folder / "other", {"good": (0.0, 0.0), "bad": (0.0, 0.0), "not": (3.0, -3.0)}))


def play(folder: Path, scenario: Callable[[Service], Awaitable[None]], **options: object) -> None:
    """Runs a scenario against a service of its own."""

    async def main() -> None:
        service = Service(folder, **options)  # type: ignore[arg-type]
        await service.serving.start()
        async with service.http:
            await scenario(service)
        await service.serving.stop()
        assert service.serving.state is State.STOPPED

    asyncio.run(main())


def test_a_version_is_loaded_and_left_again(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        first = (await service.classify())["version"]
        changed = await service.call("load", bundle="opposite")
        assert changed["previous"] == first
        assert (await service.classify())["version"] == changed["version"] != first
        assert await service.label() == "negative"
        assert (await service.call("rollback"))["version"] == first
        assert await service.label() == "positive"
        assert (await service.call("rollback", 409))["code"] == "conflict"
        for change in ("loaded", "rolled_back"):
            assert service.metric(f'lathe_version_changes_total{{change="{change}",model="mine"}}') == 1
        for change in ("load", "rollback"):
            route = f"/v1/models/{{name}}/{change}"
            assert service.metric(f'lathe_requests_total{{code="ok",route="{route}",status="200"}}') == 1

    play(tmp_path, scenario)


def test_a_trial_is_promoted_or_dropped(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        for change in ("promote", "drop"):
            assert (await service.call(change, 409))["code"] == "conflict"
        on_trial = await service.call("load", bundle="opposite", canary=10)
        trial = on_trial["trial"]
        assert isinstance(trial, dict)
        assert trial["canary"] == 10
        (model,) = (await service.http.get("/v1/models")).json()["models"]
        assert model["trial"] == trial
        assert (await service.call("drop"))["trial"] is None
        await service.call("load", bundle="opposite", shadow=True)
        assert await service.label() == "positive"
        promoted = await service.call("promote")
        assert promoted["version"] == trial["version"]
        assert promoted["trial"] is None
        assert await service.label() == "negative"
        assert (await service.call("load", 400, bundle="opposite", shadow=True, canary=1))["code"] == "invalid_request"

    play(tmp_path, scenario)


def test_a_version_that_is_live_or_on_trial_is_not_loaded_again_and_the_way_back_stays(tmp_path: Path) -> None:
    shutil.copytree(make_bundle(tmp_path / "first").path, tmp_path / "root" / "same")

    async def scenario(service: Service) -> None:
        first = (await service.classify())["version"]
        loaded = await service.call("load", bundle="opposite")
        live = service.serving.models["mine"].live
        assert await service.call("load", bundle="opposite") == loaded
        assert loaded["previous"] == first
        assert service.serving.models["mine"].live is live
        await service.call("load", bundle="same", canary=10)
        before = service.serving.models["mine"].candidate
        again = await service.call("load", bundle="same", canary=20)
        assert again["trial"] == {"version": first, "canary": 20}
        after = service.serving.models["mine"].candidate
        assert before is not None
        assert after is not None
        assert after.version is before.version
        assert (await service.call("load", bundle="opposite"))["trial"] is None
        await service.call("load", bundle="same", shadow=True)
        assert (await service.call("load", bundle="same"))["previous"] == loaded["version"]
        assert (await service.call("rollback"))["version"] == loaded["version"]
        assert await service.label() == "negative"

    play(tmp_path, scenario)


def test_a_load_that_does_not_end_is_refused_in_time_and_holds_up_nothing_else(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        await service.call("load", bundle="opposite")
        golden = read_golden(make_bundle(tmp_path / "other"))
        make_bundle(tmp_path / "root" / "endless", golden=golden, model=endless_model())
        loading = asyncio.create_task(service.call("load", 422, bundle="endless"))
        await asyncio.sleep(0.2)
        assert (await service.call("rollback"))["previous"] is None
        assert await service.label() == "positive"
        unknown = await service.http.post("/v1/models/nobody/load", json={"bundle": "opposite"})
        assert unknown.status_code == 404
        assert not loading.done()
        assert "not loaded within 1000 ms" in str((await loading)["message"])
        while any(thread.name == "aside" for thread in threading.enumerate()):  # it ends soon after
            await asyncio.sleep(0.02)
        await service.call("load", bundle="opposite")
        assert await service.label() == "negative"

    play(tmp_path, scenario, LATHE_LOAD_TIMEOUT_MS="1000")


def test_a_load_that_was_given_up_and_goes_on_is_no_reason_to_begin_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    async def scenario(service: Service) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Loader, "make", lambda *_, **__: go_on.wait(30))
            await service.call("load", 422, bundle="opposite")
        assert "given up" in str((await service.call("load", 409, bundle="opposite"))["message"])
        assert (await service.call("rollback", 409))["code"] == "conflict"  # for the usual reason
        go_on.set()
        while any(thread.name == "aside" for thread in threading.enumerate()):
            await asyncio.sleep(0.01)
        await service.call("load", bundle="opposite")

    play(tmp_path, scenario, LATHE_LOAD_TIMEOUT_MS="300")


def test_what_was_refused_is_freed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines: list[weakref.ref[Engine]] = []
    make = Engine.__init__

    def note(self: Engine, *arguments: object) -> None:
        make(self, *arguments)  # type: ignore[arg-type]
        engines.append(weakref.ref(self))

    async def scenario(service: Service) -> None:
        for bundle in ("stranger", "turned", "opposite", "stranger"):
            await service.call("load", 200 if bundle == "opposite" else 422, bundle=bundle)
        await asyncio.sleep(0.1)
        model = service.serving.models["mine"]
        assert model.previous is not None
        served = [model.previous.members[0].engine, model.live.members[0].engine]
        assert [engine() for engine in engines if engine() is not None] == served

    monkeypatch.setattr(Engine, "__init__", note)
    gc.collect()
    gc.disable()
    try:
        play(tmp_path, scenario)
    finally:
        gc.enable()
    assert len(engines) == 5


@pytest.mark.parametrize(
    ("bundle", "reason"),
    [
        ("stranger", "golden answers"),
        ("turned", "other_labels"),
        ("", "bundle: is empty; send"),
        ("../first", "no directory below LATHE_BUNDLES_ROOT"),
        ("link", "no directory below LATHE_BUNDLES_ROOT"),
        (".", "no directory below LATHE_BUNDLES_ROOT"),
        ("/etc", "no directory below LATHE_BUNDLES_ROOT"),
        ("nowhere", "no directory below LATHE_BUNDLES_ROOT"),
        ("a\x00b", "no directory below LATHE_BUNDLES_ROOT"),
        ("opposite@0+turned@1", "weight"),
        ("opposite@1+nowhere@1", "no directory below LATHE_BUNDLES_ROOT"),
        ("broken", "model.onnx: sha256"),
        ("thorough", "golden.json"),
    ],
)
def test_a_bad_version_leaves_the_old_one_in_place(
    tmp_path: Path, bundle: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(service: Service) -> None:
        golden = GoldenAnswers.model_construct(texts=("good",) * 200_000, logits=((-1.0, 1.0),) * 200_000)
        make_bundle(tmp_path / "root" / "thorough", golden=golden)
        broken = make_bundle(tmp_path / "root" / "broken")
        broken.model_path.write_bytes(broken.model_path.read_bytes()[:-1])
        error = await service.call("load", 422 if bundle else 400, bundle=bundle)
        assert reason in str(error["message"])
        said = [record.getMessage() for record in caplog.records if "does not take" in record.getMessage()]
        assert [repr(bundle) in one and reason in one for one in said] == [True] * bool(bundle)
        assert await service.label() == "positive"
        assert service.serving.ready
        assert service.metric('lathe_version_changes_total{change="refused",model="mine"}') == bool(bundle)

    play(tmp_path, scenario, LATHE_ENSEMBLE_DEGRADED="true")


def test_other_labels_are_taken_where_that_is_asked_but_not_on_trial(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        await service.call("load", 422, bundle="turned", other_labels=True, canary=50)
        changed = await service.call("load", bundle="turned", other_labels=True)
        assert changed["labels"] == ["positive", "negative"]
        assert (await service.call("rollback"))["labels"] == ["negative", "positive"]

    play(tmp_path, scenario)


def test_keys_decide_who_may(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    shop, operator = add_key(file, "shop"), add_key(file, "operator", ["admin"])

    async def scenario(service: Service) -> None:
        assert (await service.call("load", 401, bundle="opposite"))["code"] == "unauthorized"
        service.http.headers["Authorization"] = f"Bearer {shop}"
        assert (await service.call("load", 403, bundle="opposite"))["code"] == "forbidden"
        assert (await service.call("rollback", 403))["code"] == "forbidden"
        service.http.headers["Authorization"] = f"Bearer {operator}"
        await service.call("load", bundle="opposite")
        service.http.headers["Authorization"] = f"Bearer {shop}"
        assert await service.label() == "negative"

    play(tmp_path, scenario, client="203.0.113.7", LATHE_KEYS_FILE=str(file))


def test_without_keys_only_this_machine_may(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        assert (await service.call("load", 403, bundle="opposite"))["code"] == "forbidden"

    play(tmp_path, scenario, client="203.0.113.7")


def test_without_a_root_nothing_is_loaded(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        assert "LATHE_BUNDLES_ROOT" in str((await service.call("load", 403, bundle="opposite"))["message"])

    play(tmp_path, scenario, LATHE_BUNDLES_ROOT="")


def test_with_several_workers_a_call_is_refused(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        assert "2 workers" in str((await service.call("load", 409, bundle="opposite"))["message"])
        assert await service.label() == "positive"

    play(tmp_path, scenario, workers=2)


def test_an_ensemble_is_served_and_says_when_it_is_degraded(tmp_path: Path) -> None:
    first, opposite = tmp_path / "first", tmp_path / "root" / "opposite"

    async def whole(service: Service) -> None:
        answer = await service.classify()
        assert answer["degraded"] is False
        assert str(answer["version"]).endswith("@0.3")
        assert await service.label() == "positive"

    async def degraded(service: Service) -> None:
        assert (await service.classify())["degraded"] is True
        (model,) = (await service.http.get("/v1/models")).json()["models"]
        assert model["degraded"] is True

    play(tmp_path, whole, LATHE_MODELS=f"mine={first}@0.7+{opposite}@0.3")
    location = f"mine={first}@0.7+{tmp_path / 'nowhere'}@0.3"
    (tmp_path / "root" / "link").unlink()
    play(tmp_path, degraded, LATHE_MODELS=location, LATHE_ENSEMBLE_DEGRADED="true")
    with pytest.raises(Exception, match="nowhere"):
        check(load_settings({"LATHE_MODELS": location}), Path, lambda _: None)


def test_a_bundle_that_computes_something_else_here_is_not_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(tmp_path, LATHE_MODELS=f"mine={tmp_path / 'root' / 'stranger'}")
    asyncio.run(service.serving.start())
    assert service.serving.state is State.FAILED
    assert not service.serving.alive
    assert "stranger: this machine does not give the bundle's golden answers" in caplog.text
