"""A bento: built from the store, holding no torch, served in an environment that has only what it asks for."""

import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from compression.bundle import Bundle
from service.access.keys import add_key
from tests.integration.conftest import serve, service_environment

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_bento_is_served_from_its_own_requirements(
    sentiment_bundle: Bundle, intent_bundle: Bundle, tmp_path: Path
) -> None:
    home = tmp_path / "bentoml"
    environment = service_environment(BENTOML_HOME=str(home))

    def run(*command: str) -> str:
        result = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout.strip()

    tag = run("lathe", "store", str(sentiment_bundle.path), "--name", "sentiment")
    assert tag == f"sentiment:{sentiment_bundle.version}"
    assert run("lathe", "store", str(sentiment_bundle.path), "--name", "sentiment") == tag  # a second time is no error
    run("lathe", "store", str(intent_bundle.path), "--name", "banking-intents")
    run("bentoml", "build", "--name", "lathe", "--version", "test")

    bento = home / "bentos" / "lathe" / "test"
    sources = {str(path.relative_to(bento / "src")) for path in (bento / "src").rglob("*.py")}
    assert "service/app.py" in sources
    assert {source.split("/")[0] for source in sources} == {"service", "compression"}
    assert "compression/parent/checkpoint.py" not in sources
    manifest = yaml.safe_load((bento / "bento.yaml").read_text())
    assert {model["tag"].split(":")[0] for model in manifest["models"]} == {"sentiment", "banking-intents"}

    # The environment of these tests has the checkout installed, which would stand in for a file that the bento lacks.
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    requirements = bento / "env" / "python" / "requirements.txt"
    # One hash in the file is enough: pip then installs nothing that has none.
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", str(requirements)], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    # The worker runs in the bento's directory; relative paths mean the one where the command was given all the same.
    key = add_key(empty / "keys.json", "shop")
    shutil.copytree(intent_bundle.path, empty / "intents")
    relative = {"LATHE_KEYS_FILE": "keys.json", "LATHE_MODELS": "intents=intents,sentiment=sentiment:latest"}
    with serve(
        tmp_path / "service.log", {"BENTOML_HOME": str(home), **relative}, "lathe:test", empty, python
    ) as service:
        url, headers = f"{service.url}/v1/models", {"Authorization": f"Bearer {key}"}
        assert len(httpx.get(url, headers=headers, timeout=30).json()["models"]) == 2
    shutil.rmtree(empty)
    empty.mkdir()
    # As an image has it: the models beside the bento, and a home that holds nothing.
    image = shutil.copytree(bento, tmp_path / "image")
    shutil.copytree(home / "models", image / "models")
    for target, store in (("lathe:test", home), (str(bento), home), (str(image), tmp_path / "new")):
        log = tmp_path / "service.log"
        with serve(log, {"BENTOML_HOME": str(store)}, target, empty, python) as service:
            answer = httpx.post(
                f"{service.url}/v1/triage", json={"inputs": "great the card is in the post"}, timeout=30
            )
        assert answer.status_code == 200
        assert answer.json()["models"]["sentiment"] == sentiment_bundle.version
    assert not (home / "client_id").exists()  # BentoML makes one when it reports its use
