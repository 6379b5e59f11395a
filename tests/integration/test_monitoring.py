"""What runs is what is shipped: the files of monitoring/, checked by the tools that read them and a real Prometheus."""

import contextlib
import json
import math
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
import yaml

pytestmark = pytest.mark.integration

MONITORING = Path(__file__).resolve().parents[2] / "monitoring"
RULES = MONITORING / "rules" / "lathe.yml"
RULE_TESTS = MONITORING / "tests" / "lathe_test.yml"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "lathe.json"
RUNBOOK = MONITORING / "RUNBOOK.md"
AUTOSCALER = MONITORING.parent / "deploy" / "kubernetes" / "keda" / "scaled-object.yaml"

# The Debian package of each tool; Debian prefixes Alertmanager's name.
PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "amtool": "prometheus-alertmanager",
    "prometheus-alertmanager": "prometheus-alertmanager",
}
WAIT_SECONDS = 30
# Queries about what goes wrong: while all goes well they are there, and 0.
TROUBLE = re.compile(r"shed|failed|overloaded|abstained|_errors|5\.\.")


class Service(Protocol):
    """What this file needs of the live_service fixture."""

    @property
    def url(self) -> str: ...


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an API answer."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def trouble_with(self, query: str) -> str | None:
        """Why the answer to a query is not what a panel could show, or None."""
        values = [float(series["value"][1]) for series in self.get("query", query=query)["result"]]
        if not values:
            return "no series"
        if not all(map(math.isfinite, values)):
            return f"not finite: {values}"
        if TROUBLE.search(query) and any(values):
            return f"not 0: {values}"
        return None


def tool(name: str) -> str:
    """The path of a tool; what is shipped must be checked, so a missing one is a failure."""
    path = shutil.which(name) or shutil.which(name.removeprefix("prometheus-"))
    if path is None:
        pytest.fail(f"{name} is not installed; on Debian: apt-get install {PACKAGES[name]}")
    return path


def output_of(*command: str | Path) -> str:
    """What a command prints; fails with it when the command does."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Polls a condition."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {WAIT_SECONDS} s")
        time.sleep(0.2)


@contextlib.contextmanager
def running(folder: Path, name: str, *options: str) -> Iterator[str]:
    """Runs Prometheus or Alertmanager on a free port of the loopback address, and gives its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    log = folder / f"{name}.log"
    command = [tool(name), f"--web.listen-address={address}", "--log.level=warn", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://{address}/-/ready").is_success
        return False

    try:
        wait_until(ready, f"{name} is ready")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(WAIT_SECONDS)


@pytest.fixture(scope="module")
def prometheus(live_service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus with the shipped configuration; only the target's address and the intervals are others."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (job,) = config["scrape_configs"]
    job["scrape_interval"] = "1s"
    job["static_configs"] = [{"targets": [live_service.url.removeprefix("http://")]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copytree(MONITORING / "rules", folder / "rules")
    options = (f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}")
    with running(folder, "prometheus", *options) as url:
        yield Prometheus(url)


def rules(kind: str) -> list[Any]:
    """The rules that have the key `alert`, or `record`."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def panels() -> list[Any]:
    """The dashboard's panels, rows left out."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def dashboard_queries() -> list[str]:
    """What the dashboard asks, as Grafana would send it."""
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [query.replace("$__rate_interval", "1m") for query in queries]


def autoscaler_queries() -> list[str]:
    """What KEDA asks."""
    return [trigger["metadata"]["query"] for trigger in yaml.safe_load(AUTOSCALER.read_text())["spec"]["triggers"]]


def send_traffic(url: str) -> None:
    """A little of everything that leaves a mark on the metrics: texts of unlike lengths, so that there is padding."""
    texts = ["thank you", "my card is lost and nobody has answered me for a week " * 3]
    for body in ({"model": "sentiment", "inputs": texts}, {"model": "banking-intents", "inputs": texts}):
        httpx.post(f"{url}/v1/classify", json=body, timeout=30).raise_for_status()
    httpx.post(f"{url}/v1/triage", json={"inputs": texts[1]}, timeout=30).raise_for_status()


@pytest.mark.parametrize(
    "command",
    [
        ("promtool", "check", "config", MONITORING / "prometheus.yml"),
        ("promtool", "check", "rules", RULES),
        ("promtool", "test", "rules", RULE_TESTS),
        ("amtool", "check-config", MONITORING / "alertmanager.yml"),
    ],
    ids=lambda command: " ".join(map(str, command[:-1])),
)
def test_the_tools_accept_the_files(command: tuple[str, ...]) -> None:
    output_of(tool(command[0]), *command[1:])


@pytest.mark.parametrize(
    ("severity", "receiver"), [("page", "page"), ("ticket", "ticket"), ("of-no-known-kind", "ticket")]
)
def test_an_alert_reaches_the_receiver_of_its_severity(severity: str, receiver: str) -> None:
    config = MONITORING / "alertmanager.yml"
    routed = output_of(tool("amtool"), "config", "routes", "test", f"--config.file={config}", f"severity={severity}")
    assert routed.strip() == receiver


@pytest.mark.parametrize("alert", rules("alert"), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: Any) -> None:
    assert alert["for"]
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert alert["annotations"]["runbook"] == f"monitoring/RUNBOOK.md#{alert['alert'].lower()}"


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    sections = re.findall(r"^## (Lathe\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert sorted(sections) == sorted(alert["alert"] for alert in rules("alert"))


@pytest.mark.parametrize("fires", [True, False], ids=["fires", "stays-quiet"])
def test_every_alert_has_a_case_where_it(fires: bool) -> None:
    cases = [
        case for group in yaml.safe_load(RULE_TESTS.read_text())["tests"] for case in group.get("alert_rule_test", [])
    ]
    tested = {case["alertname"] for case in cases if bool(case.get("exp_alerts")) is fires}
    assert tested == {alert["alert"] for alert in rules("alert")}


def test_rules_and_dashboard_use_only_metrics_that_the_service_exposes(live_service: Service) -> None:
    exposed: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", httpx.get(f"{live_service.url}/metrics").text, re.MULTILINE):
        exposed |= {f"{name}_{part}" for part in ("bucket", "count", "sum")} if kind == "histogram" else {name}
    queries = (
        [rule["expr"] for rule in [*rules("record"), *rules("alert")]] + dashboard_queries() + autoscaler_queries()
    )
    used = {name for query in queries for name in re.findall(r"(?<![\w:])(?:lathe|process)_\w+(?![\w:])", query)}
    assert used
    assert used <= exposed


def test_what_counts_requests_that_ask_a_model_counts_those_of_every_such_route(live_service: Service) -> None:
    paths = httpx.get(f"{live_service.url}/docs.json").json()["paths"]
    asking = {path for path, methods in paths.items() if "504" in methods.get("post", {}).get("responses", ())}
    queries = [str(rule["expr"]) for kind in ("record", "alert") for rule in rules(kind)] + dashboard_queries()
    patterns = {pattern for query in queries for pattern in re.findall(r'route=~"(.+?)"', query)}
    assert patterns
    for pattern in patterns:
        assert {path for path in paths if re.fullmatch(pattern, path)} - {"/"} == asking - {"/"}


def test_every_panel_asks_the_chosen_data_source() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"] == "lathe"
    assert [(one["name"], one["type"]) for one in dashboard["templating"]["list"]] == [("datasource", "datasource")]
    asked = [asker["datasource"] for panel in panels() for asker in (panel, *panel["targets"])]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in asked)
    identifiers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identifiers)) == len(identifiers)


def test_every_query_has_data_once_there_is_traffic(prometheus: Prometheus, live_service: Service) -> None:
    recorded = [rule["expr"] for rule in rules("record")]
    waiting = dict.fromkeys([*dashboard_queries(), *recorded, *autoscaler_queries()], "not asked yet")
    deadline = time.monotonic() + WAIT_SECONDS
    while waiting and time.monotonic() < deadline:
        send_traffic(live_service.url)
        time.sleep(1)  # a scrape and an evaluation
        answers = {query: prometheus.trouble_with(query) for query in waiting}
        waiting = {query: trouble for query, trouble in answers.items() if trouble is not None}
    assert waiting == {}


def test_no_alert_holds_for_a_healthy_service(prometheus: Prometheus, live_service: Service) -> None:
    send_traffic(live_service.url)
    wait_until(lambda: prometheus.trouble_with("lathe_ready") is None, "the service is scraped")
    holds = {rule["alert"] for rule in rules("alert") if prometheus.get("query", query=rule["expr"])["result"]}
    assert holds <= {"LatheLatencyHigh"}  # a machine that is busy with other tests may be slow for a moment


def test_a_service_that_is_down_silences_its_own_other_alerts(tmp_path: Path) -> None:
    def alert(name: str, instance: str | None) -> Any:
        labels = {"alertname": name, "job": "lathe", "severity": "page"}
        return {"labels": labels if instance is None else {**labels, "instance": instance}}

    def silenced(url: str) -> set[str]:
        alerts = httpx.get(f"{url}/api/v2/alerts").json()
        return {one["labels"].get("instance", "") for one in alerts if one["status"]["inhibitedBy"]}

    options = (
        f"--config.file={MONITORING / 'alertmanager.yml'}", f"--storage.path={tmp_path}", "--cluster.listen-address=",
    )  # fmt: skip
    with running(tmp_path, "prometheus-alertmanager", *options) as url:
        others = [alert("LatheErrorRatioHigh", "a"), alert("LatheShedding", "b")]
        httpx.post(f"{url}/api/v2/alerts", json=[alert("LatheDown", "a"), *others]).raise_for_status()
        wait_until(lambda: silenced(url) == {"a"}, "what is down is silenced, and nothing else")
        httpx.post(f"{url}/api/v2/alerts", json=[alert("LatheDown", None)]).raise_for_status()
        wait_until(lambda: silenced(url) == {"a", "b"}, "with no instance left, all are silenced")
