"""deploy/kubernetes, as kustomize puts it together: what Kubernetes takes, and what the service stands behind."""

from pathlib import Path
from typing import Any

import jsonpatch  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from service.environment import load_settings
from service.settings import PREFIX

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "kubernetes"
KUBERNETES = "1.31"
CUSTOM = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}  # kinds of KEDA and of Prometheus' operator
COMPONENTS = [path.name for path in FOLDER.iterdir() if path.is_dir() and path.name != "base"]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def rendered(*components: str) -> dict[str, Any]:
    """The manifests by kind, with these components, as kustomize renders what is used of it here."""
    objects = {found["kind"]: found for found in (read(FOLDER / "base" / name) for name in read_base()["resources"])}
    for component in components:
        given = read(FOLDER / component / "kustomization.yaml")
        assert given["kind"] == "Component"
        assert set(given) <= {"apiVersion", "kind", "resources", "patches"}
        for name in given.get("resources", ()):
            added = read(FOLDER / component / name)
            objects[added["kind"]] = added
        for patch in given.get("patches", ()):
            kind = patch["target"]["kind"]
            assert objects[kind]["metadata"]["name"] == patch["target"]["name"]
            objects[kind] = jsonpatch.apply_patch(objects[kind], yaml.safe_load(patch["patch"]))
    return objects


def read_base() -> Any:
    return read(FOLDER / "base" / "kustomization.yaml")


def container(objects: dict[str, Any]) -> Any:
    (found,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    return found


def environment(objects: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container(objects)["env"]}


CASES = [(), *((component,) for component in COMPONENTS), ("keda", "gpu", "own-bundles")]


@pytest.mark.parametrize("components", CASES)
def test_kubernetes_takes_every_manifest(components: tuple[str, ...]) -> None:
    for kind, found in rendered(*components).items():
        if kind not in CUSTOM:
            kubernetes_validate.validate(found, KUBERNETES, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    objects = rendered()
    container(objects)["readinessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(objects["Deployment"], KUBERNETES, strict=True)


def test_what_is_deployed_names_what_there_is() -> None:
    given = read(FOLDER / "kustomization.yaml")
    assert given["resources"] == ["base"]
    assert given["components"] == ["keda"]
    text = (FOLDER / "kustomization.yaml").read_text("utf-8")
    assert all(name in text for name in COMPONENTS)
    used = {container(rendered())["image"]}
    used |= {found["image"] for found in pod(rendered("own-bundles"))["initContainers"]}
    assert {image["name"] for image in given["images"]} == used


def pod(objects: dict[str, Any]) -> Any:
    return objects["Deployment"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("components", CASES)
def test_the_service_takes_the_settings(components: tuple[str, ...]) -> None:
    given = environment(rendered(*components))
    settings = load_settings(given)
    assert {name for name in given if not name.startswith(PREFIX)} == {"BENTOML_HOST", "BENTOML_HOME"}
    seconds = (settings.drain_pause_ms + settings.drain_timeout_ms) / 1e3
    assert pod(rendered(*components))["terminationGracePeriodSeconds"] >= seconds + 5
    assert any(
        str(settings.keys_file).startswith(mount["mountPath"]) for mount in container(rendered())["volumeMounts"]
    )
    if "gpu" in components:
        assert settings.device.kind == "cuda"


@pytest.mark.parametrize("components", CASES)
def test_nobody_is_root_and_nothing_is_written_but_temporary_files(components: tuple[str, ...]) -> None:
    found = pod(rendered(*components))
    assert found["securityContext"]["runAsNonRoot"]
    assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not found["automountServiceAccountToken"]
    for one in [*found["containers"], *found.get("initContainers", ())]:
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert one["resources"]["limits"]["memory"]
    assert Path(environment(rendered(*components))["BENTOML_HOME"]).is_relative_to("/tmp")


def test_labels_and_ports_fit_together() -> None:
    objects = rendered("keda")
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["Service"]["spec"]["selector"] == labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    monitor = objects["ServiceMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= objects["Service"]["metadata"]["labels"].items()
    assert objects["Service"]["metadata"]["labels"][monitor["jobLabel"]] == "lathe"  # as rules and dashboard have it
    assert objects["ScaledObject"]["spec"]["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]
    (port,) = container(objects)["ports"]
    assert objects["Service"]["spec"]["ports"][0]["targetPort"] == port["name"] == monitor["endpoints"][0]["port"]


def test_probes_ask_what_needs_no_key() -> None:
    probes = [container(rendered())[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")]
    assert probes == ["/readyz", "/readyz", "/livez"]


def test_with_tls_whoever_asks_does_so_with_tls() -> None:
    objects = rendered("tls")
    found = container(objects)
    assert {found[probe]["httpGet"]["scheme"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} == {
        "HTTPS"
    }
    assert objects["ServiceMonitor"]["spec"]["endpoints"][0]["scheme"] == "https"
    given, mounts = environment(objects), {mount["mountPath"] for mount in found["volumeMounts"]}
    for name in ("LATHE_TLS_CERTIFICATE", "LATHE_TLS_KEY"):
        assert str(Path(given[name]).parent) in mounts


def test_both_autoscalers_grow_and_shrink_alike() -> None:
    horizontal = rendered("cpu-autoscaler")["HorizontalPodAutoscaler"]["spec"]
    scaled = rendered("keda")["ScaledObject"]["spec"]
    assert horizontal["behavior"] == scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert (horizontal["minReplicas"], horizontal["maxReplicas"]) == (
        scaled["minReplicaCount"],
        scaled["maxReplicaCount"],
    )


def test_compose_and_systemd_start_the_service_with_keys_and_give_it_time_to_end() -> None:
    compose = read(FOLDER.parent / "compose.yaml")["services"]["lathe"]
    settings = load_settings(compose["environment"])
    assert settings.keys_file is not None
    assert settings.keys_file.name in compose["secrets"]
    seconds = (settings.drain_pause_ms + settings.drain_timeout_ms) / 1e3
    assert int(compose["stop_grace_period"].removesuffix("s")) > seconds
    unit = (FOLDER.parent / "systemd" / "lathe.service").read_text("utf-8").splitlines()
    given = dict(line.removeprefix("Environment=").split("=", 1) for line in unit if line.startswith("Environment="))
    assert load_settings(given).keys_file is not None
    (stop,) = (line for line in unit if line.startswith("TimeoutStopSec="))
    assert int(stop.partition("=")[2]) > seconds
