"""How many processes serve, as BentoML will start them: a call that changes versions must know."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("configuration", "workers"), [("", "1"), ("workers: 2", "2"), ("workers: 2\n    resources: {cpu: 1}", "2")]
)
def test_bentomls_configuration_file_counts(tmp_path: Path, configuration: str, workers: str) -> None:
    environment = {**os.environ, "BENTOML_HOME": str(tmp_path / "home")}
    if configuration:
        (tmp_path / "bentoml.yaml").write_text(f"services:\n  lathe:\n    {configuration}\n")
        environment["BENTOML_CONFIG"] = str(tmp_path / "bentoml.yaml")
    program = "from service import app; app.Lathe.inject_config(); print(app._workers())"
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    )
    assert result.stdout.split() == [workers]
