"""Triage in a service of a user's own models: on, off, and with labels of their own."""

from pathlib import Path

import httpx
import pytest

from tests.handmade import make_bundle
from tests.integration.conftest import serve

pytestmark = pytest.mark.integration


def triage(folder: Path, **settings: str) -> tuple[httpx.Response, str]:
    """The answer of POST /v1/triage with two models of one's own, `mine` and `topics`, and what was logged."""
    make_bundle(folder / "mine", labels=("LABEL_0", "LABEL_1"))
    make_bundle(folder / "topics", labels=("delivery", "price"))
    models = f"mine={folder / 'mine'},topics={folder / 'topics'}"
    with serve(folder / "log", {"LATHE_MODELS": models, **settings}) as service:
        answer = httpx.post(f"{service.url}/v1/triage", json={"inputs": "good"}, timeout=30)
    return answer, service.log.read_text("utf-8")


def test_own_models_under_other_names_are_served_without_triage_which_says_so_once(tmp_path: Path) -> None:
    answer, log = triage(tmp_path)
    assert answer.status_code == 404
    reason = "triage is off here: it needs the models 'sentiment' and 'banking-intents', which are not both served"
    assert reason in answer.json()["error"]["message"]
    assert log.count(reason) == 1


def test_own_labels_are_triaged_by_the_setting_that_says_what_they_mean(tmp_path: Path) -> None:
    answer, log = triage(
        tmp_path,
        LATHE_TRIAGE_SENTIMENT="mine",
        LATHE_TRIAGE_INTENT="topics",
        LATHE_TRIAGE_SENTIMENT_LABELS="LABEL_0=negative,LABEL_1=positive",
    )
    (result,) = answer.json()["results"]
    assert (result["sentiment"], result["intent"]) == ("positive", "price")
    assert result["sentiment_score"] == result["sentiment_probabilities"]["positive"]
    assert "triage is off" not in log


def test_triage_can_be_switched_off(tmp_path: Path) -> None:
    answer, _ = triage(tmp_path, LATHE_TRIAGE="off", LATHE_TRIAGE_SENTIMENT="mine", LATHE_TRIAGE_INTENT="topics")
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "triage is off here: LATHE_TRIAGE=off")
