import os
import pwd
from functools import partial
from pathlib import Path

import click
import pytest

from compression.bundle import Bundle
from service.api.triage import check_fit
from service.cli import serve
from service.environment import load_settings, provide_model_store
from service.errors import ConfigurationError
from service.listening import require_private_or_keys
from service.models.registry import check

JWT = {"LATHE_JWT_ISSUER": "https://login.example", "LATHE_JWT_AUDIENCE": "lathe", "LATHE_JWT_JWKS": "jwks.json"}


def test_defaults_serve_the_two_default_bundles() -> None:
    settings = load_settings({})
    assert settings.models == {"sentiment": "bundles/sentiment", "banking-intents": "bundles/banking-intents"}
    assert settings.keys_file is None


def test_models_are_named_with_commas() -> None:
    assert load_settings({"LATHE_MODELS": "a=x/y, b=tag:latest"}).models == {"a": "x/y", "b": "tag:latest"}
    assert load_settings({"LATHE_MODELS": "a=x/y, z/u,b=v,"}).models == {"a": "x/y, z/u", "b": "v"}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"LATHE_MODELS": "bundles/sentiment"}, "'bundles/sentiment' is not NAME=LOCATION"),
        ({"LATHE_MODELS": "bundles/a,b"}, "'bundles/a,b' is not NAME=LOCATION"),
        ({"LATHE_MODELS": "a=x,a=y"}, "'a' is named twice"),
        ({"LATHE_MODELS": "a=b/x@1e308+c/y@1e308"}, "has weights whose sum is too large"),
        ({"LATHE_STREAMS": "100000"}, "LATHE_STREAMS"),
        ({"LATHE_ALLOWED_HOSTS": "a.example,b.example:80"}, "'b.example:80' is no host name"),
        ({"LATHE_ALLOWED_HOSTS": "http://a.example/"}, "'http://a.example/' is no host name"),
        ({"LATHE_ALLOWED_HOSTS": "*.a.example"}, "'*.a.example' is no host name"),
        ({"LATHE_MODELS": "a=" + "+".join(["b/x@1"] * 17)}, "the ensemble has 17 members"),
        ({"LATHE_MODELS": ","}, "LATHE_MODELS=','"),
        ({"LATHE_STREAMS": "none"}, "LATHE_STREAMS='none'"),
        ({"LATHE_QUEUE_TEXTS": "0"}, "LATHE_QUEUE_TEXTS='0'"),
        ({"LATHE_DEVICE": "gpu"}, "'gpu' is not cpu, cuda, tensorrt"),
        ({"LATHE_STREEMS": "1"}, "LATHE_STREEMS: no such setting; did you mean LATHE_STREAMS? there are LATHE_MODELS"),
        ({"LATHE_TRIAGE": "no"}, "LATHE_TRIAGE='no'"),
        ({"LATHE_TRIAGE_SENTIMENT_LABELS": "positive"}, "'positive' is not LABEL=SENTIMENT"),
        ({"LATHE_TRIAGE_SENTIMENT_LABELS": "good=fine"}, "LATHE_TRIAGE_SENTIMENT_LABELS='good=fine'"),
        ({"LATHE_TRIAGE_INTENT": "mine"}, "LATHE_TRIAGE_INTENT='mine' is not served"),
        ({"LATHE_TRIAGE": "on", "LATHE_MODELS": "a=b"}, "LATHE_TRIAGE_SENTIMENT='sentiment' is not served"),
        (JWT | {"LATHE_JWT_JWKS": "http://login.example/jwks"}, "write https://"),
        (JWT | {"LATHE_JWT_JWKS": "ftp://login.example/jwks"}, "neither a path nor a URL of a JWKS"),
        (JWT | {"LATHE_JWT_JWKS": "https://me:secret@login.example/jwks"}, "neither a path nor a URL of a JWKS"),
        (JWT | {"LATHE_JWT_SCOPES": "use=everything"}, "LATHE_JWT_SCOPES='use=everything'"),
        (JWT | {"LATHE_JWT_SCOPES": "predict"}, "'predict' is not WORD=SCOPE"),
        (JWT | {"LATHE_JWT_LIMITS": "requests_per_s=0"}, "LATHE_JWT_LIMITS='requests_per_s=0'"),
        (JWT | {"LATHE_JWT_LIMITS": "requests=5"}, "LATHE_JWT_LIMITS='requests=5'"),
        ({"LATHE_JWT_LEEWAY_S": "5"}, "need LATHE_JWT_ISSUER and LATHE_JWT_AUDIENCE and LATHE_JWT_JWKS too"),
        (
            {"LATHE_JWT_ISSUER": "x", "LATHE_JWT_JWKS": "y"},
            "LATHE_JWT_ISSUER is set, and tokens need LATHE_JWT_AUDIENCE",
        ),
        ({"LATHE_NEUTRAL_LOW": "0.8"}, "LATHE_NEUTRAL_LOW=0.8 is above"),
    ],
)
def test_a_bad_value_is_named_with_its_remedy(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load_settings(variables)
    assert message in str(refusal.value)


def test_a_password_in_a_url_that_is_refused_is_not_repeated() -> None:
    variables = {"LATHE_LIMITS_STORE": "http://limits:s3cret@redis:6379/0"}
    with pytest.raises(ConfigurationError, match=r"LATHE_LIMITS_STORE='http://\*\*\*@redis:6379/0': ") as error:
        load_settings(variables)
    assert "s3cret" not in str(error.value)


def test_where_an_issuer_s_keys_are_is_a_url_or_a_path_and_words_may_mean_several_scopes() -> None:
    words = {"LATHE_JWT_SCOPES": "lathe:use=predict, ops=metrics,ops=admin", "LATHE_JWT_LIMITS": "requests_per_s=5"}
    settings = load_settings(JWT | words | {"LATHE_DIRECTORY": "/d"})
    assert settings.jwt_jwks == Path("/d/jwks.json")
    assert settings.jwt_scopes == {"lathe:use": ("predict",), "ops": ("metrics", "admin")}
    assert settings.jwt_limits == {"requests_per_s": 5}
    for url in (
        "https://login.example/jwks?p=1",
        "http://127.0.0.1:80/jwks",
        "http://[::1]/jwks",
        "http://localhost/a",
    ):
        assert load_settings(JWT | {"LATHE_JWT_JWKS": url}).jwt_jwks == url


def test_what_kubernetes_adds_for_a_service_of_our_name_is_no_setting() -> None:
    settings = {
        "SERVICE_HOST": "10.0.0.5",
        "SERVICE_PORT": "3000",
        "SERVICE_PORT_HTTP": "3000",
        "PORT": "tcp://10.0.0.5:3000",
        **{f"PORT_8080_{protocol}": "x://10.0.0.5:8080" for protocol in ("TCP", "UDP")},
        **{f"PORT_3000_TCP{part}": "x" for part in ("", "_PROTO", "_PORT", "_ADDR")},
        "WEB_SERVICE_HOST": "fd00::5",
        "WEB_PORT": "tcp://[fd00::5]:80",
    }
    assert load_settings({f"LATHE_{name}": value for name, value in settings.items()}) == load_settings({})
    for typo in ("LATHE_PORT", "LATHE_PORTS", "LATHE_SERVICE", "LATHE_KEYS", "LATHE_SERVICE_PORTS"):
        with pytest.raises(ConfigurationError, match=f"{typo}: no such setting"):
            load_settings({typo: "8000"})


def test_relative_paths_start_from_the_directory() -> None:
    settings = load_settings({"LATHE_KEYS_FILE": "keys.json", "LATHE_BUNDLES_ROOT": "/b", "LATHE_DIRECTORY": "/d"})
    assert (settings.keys_file, settings.bundles_root) == (Path("/d/keys.json"), Path("/b"))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::"])
def test_an_address_that_strangers_reach_needs_keys(host: str) -> None:
    with pytest.raises(ConfigurationError, match="LATHE_KEYS_FILE"):
        require_private_or_keys(host, load_settings({}))
    require_private_or_keys(host, load_settings({"LATHE_KEYS_FILE": "keys.json"}))
    require_private_or_keys(host, load_settings(JWT))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1"])
def test_the_loopback_address_needs_none(host: str) -> None:
    require_private_or_keys(host, load_settings({}))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"LATHE_DEVICE": "cuda"}, "CUDAExecutionProvider"),
        ({"LATHE_HAND_OVER_INTENTS": "card_arrival,fraud"}, "'fraud'"),
        ({"LATHE_TRIAGE_SENTIMENT": "banking-intents"}, "LATHE_TRIAGE_SENTIMENT_LABELS="),
    ],
)
def test_what_cannot_become_ready_is_refused_before_it_starts(
    variables: dict[str, str], message: str, sentiment_bundle: Bundle, intent_bundle: Bundle
) -> None:
    models = f"sentiment={sentiment_bundle.path},banking-intents={intent_bundle.path}"
    fit, unfit = (load_settings({"LATHE_MODELS": models, **more}) for more in ({}, variables))
    check(fit, Path, partial(check_fit, fit))
    with pytest.raises(ConfigurationError, match=message):
        check(unfit, Path, partial(check_fit, unfit))


@pytest.mark.parametrize("name", ["a/b", "/a", "..", ".", "a\nb", "a\x00", "a" * 101, "a.0", "a.12"])
def test_a_name_that_means_something_else_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="LATHE_MODELS"):
        load_settings({}, {"a": "bundles/a", name: "bundles/b"})


@pytest.mark.parametrize("name", ["a.previous", "a.1b", "a-1.0", "情感", "a.previously", "a b", "aa.0"])
def test_other_names_are_taken(name: str) -> None:
    assert set(load_settings({}, {"a": "bundles/a", name: "bundles/b"}).models) == {"a", name}


def without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_entry(_: int) -> None:
        raise KeyError

    for name in ("HOME", "BENTOML_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)


def test_a_user_without_a_home_directory_gets_a_model_store_for_the_time_of_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_home(monkeypatch)
    monkeypatch.chdir(tmp_path)
    provide_model_store()
    assert os.path.isdir(os.environ.pop("BENTOML_HOME"))
    assert list(tmp_path.iterdir()) == []  # no directory called ~
    monkeypatch.setenv("HOME", str(tmp_path))
    provide_model_store()
    assert "BENTOML_HOME" not in os.environ


@pytest.mark.parametrize(("given", "port"), [("", 3000), ("4000", 4000), ("tcp://10.0.0.5:3000", 3000)])
def test_the_port_is_no_address_that_kubernetes_adds(monkeypatch: pytest.MonkeyPatch, given: str, port: int) -> None:
    monkeypatch.setenv("BENTOML_PORT", given)
    assert serve.make_context("serve", []).params["port"] == port
    assert serve.make_context("serve", ["--port", "5000"]).params["port"] == 5000


@pytest.mark.parametrize("given", ["abc", "0", "70000"])
def test_a_port_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("BENTOML_PORT", given)
    with pytest.raises(click.BadParameter):
        serve.make_context("serve", [])
