"""`POST /v1/mask` on the real service, and that nothing which it masks is written down anywhere."""

import os
from pathlib import Path

import httpx
import pytest

from compression.bundle import Bundle
from service.environment import load_settings
from service.errors import ConfigurationError
from tests.handmade import make_bundle
from tests.integration.conftest import LiveService, serve
from tests.integration.test_start_and_stop import refused

pytestmark = pytest.mark.integration

TEXT = "Ann: ann.lee@example.com, 4111 1111 1111 1111，手机13800138000"
PLANTED = ("ann.lee@example.com", "4111 1111 1111 1111", "13800138000", "s3cret-passw0rd")


def mask(url: str, **body: object) -> httpx.Response:
    return httpx.post(f"{url}/v1/mask", json=body, timeout=30)


def test_places_are_those_of_the_original(live_service: LiveService) -> None:
    (result,) = mask(live_service.url, inputs=TEXT).json()["results"]
    assert result["text"] == "Ann: <EMAIL_ADDRESS>, <CREDIT_CARD>，手机<CN_MOBILE>"
    assert [TEXT[one["start"] : one["end"]] for one in result["entities"]] == list(PLANTED[:3])


def test_texts_keep_their_order_and_types_can_be_chosen(live_service: LiveService) -> None:
    texts = [f"{number} ann@example.com 4111111111111111" for number in range(20)]
    results = mask(live_service.url, inputs=texts, types=["CREDIT_CARD"], mode="last_four").json()["results"]
    assert [one["text"] for one in results] == [f"{number} ann@example.com ************1111" for number in range(20)]


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        ({"inputs": "x", "types": ["EMAIL"]}, 400, "send 'API_KEY', "),
        ({"inputs": "x", "mode": "hide"}, 400, "mode"),
        ({"inputs": "x", "mode": "pseudonym"}, 409, "LATHE_PSEUDONYM_KEY_FILE"),
        ({"inputs": "x" * 100_001}, 413, "send at most 100000"),
        ({}, 400, "inputs"),
    ],
    ids=repr,
)
def test_what_cannot_be_masked_says_why(
    live_service: LiveService, body: dict[str, object], status: int, part: str
) -> None:
    answer = mask(live_service.url, **body)
    assert answer.status_code == status
    assert part in answer.json()["error"]["message"]


def test_pseudonyms_come_from_the_key_and_nothing_planted_is_written(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("00" * 32)
    log = tmp_path / "service.log"
    settings = {"LATHE_MODELS": f"sentiment={sentiment_bundle.path}", "LATHE_PSEUDONYM_KEY_FILE": str(key)}
    with serve(log, settings) as service:
        one, other = (
            mask(service.url, inputs=[TEXT, "4111-1111-1111-1111"], mode="pseudonym").json()["results"]
            for _ in range(2)
        )
        assert one == other
        (card,) = (part for part in one[0]["text"].split("，")[0].split(", ") if part.startswith("<CREDIT_CARD:"))
        assert one[1]["text"] == card
        secret = f"{TEXT} password={PLANTED[3]}"
        answers = [mask(service.url, inputs=secret), httpx.get(f"{service.url}/metrics", timeout=30)]
        for body in ({"inputs": [secret, 1]}, {"inputs": secret, "mode": secret}, {"inputs": secret, "types": [1]}):
            answers.append(mask(service.url, **body))
        answers.append(
            httpx.post(
                f"{service.url}/v1/classify", json={"model": "sentiment", "inputs": secret, "top_k": "x"}, timeout=30
            )
        )
    written = log.read_text("utf-8") + "".join(answer.text for answer in answers)
    assert [planted for planted in PLANTED if planted in written] == []


@pytest.mark.parametrize(
    ("content", "part"),
    [(None, "cannot be read"), ("short", "has 5 bytes, and needs 32"), ("a pipe", "it is no regular file")],
)
def test_a_key_that_is_none_is_said_at_start(content: str | None, part: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    if content == "a pipe":
        os.mkfifo(key)
    elif content is not None:
        key.write_text(content)
    bundle = make_bundle(tmp_path / "bundle")
    message = refused(LATHE_MODELS=f"mine={bundle.path}", LATHE_PSEUDONYM_KEY_FILE=str(key))
    assert part in message
    assert "Traceback" not in message


def test_a_model_reads_texts_masked_where_that_is_set_and_others_do_not(tmp_path: Path) -> None:
    words = {"CREDIT_CARD": (1.0, -1.0), "4111": (-2.0, 2.0), "good": (-1.0, 1.0)}
    bundle = make_bundle(tmp_path / "bundle", words).path
    pairs = make_bundle(tmp_path / "pairs", words, inputs="pairs").path
    settings = {
        "LATHE_MODELS": f"masked={bundle},plain={bundle},both={bundle}@1+{bundle}@1,pairs={pairs}",
        "LATHE_MASK_BEFORE_PREDICT": "masked,both,pairs",
    }
    card = "my card 4111 1111 1111 1111"
    with serve(tmp_path / "service.log", settings) as service:

        def ask(model: str, *inputs: object) -> list[float]:
            body = {"model": model, "inputs": inputs, "top_k": 2}
            answer = httpx.post(f"{service.url}/v1/classify", json=body, timeout=30)
            assert answer.status_code == 200, answer.text
            return [result["scores"]["negative"] for result in answer.json()["results"]]

        (plain, shown, harmless) = ask("plain", card, "my card <CREDIT_CARD>", "good")
        assert plain < 0.5 < shown
        for model in ("masked", "both"):
            assert ask(model, card, "my card <CREDIT_CARD>", "good") == pytest.approx([shown, shown, harmless])
        assert ask("pairs", {"text": card, "text_pair": card}, {"text": "good", "text_pair": card}) == ask(
            "pairs",
            {"text": "<CREDIT_CARD>", "text_pair": "<CREDIT_CARD>"},
            {"text": "good", "text_pair": "<CREDIT_CARD>"},
        )
        for model, status in (("plain", 200), ("masked", 413)):
            body = {"model": model, "inputs": "1" * 100_001}
            assert httpx.post(f"{service.url}/v1/classify", json=body, timeout=30).status_code == status


def test_only_what_is_served_can_be_set_to_read_masked_texts() -> None:
    with pytest.raises(ConfigurationError, match="LATHE_MASK_BEFORE_PREDICT: 'sentimnet' is not served"):
        load_settings({"LATHE_MASK_BEFORE_PREDICT": "sentimnet"})
