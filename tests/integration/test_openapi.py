"""The API keeps what its OpenAPI document promises, whatever is sent."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import ServiceFactory

EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "50")  # of each operation
CONFIG = Path(__file__).with_name("schemathesis.toml")

pytestmark = pytest.mark.integration


def test_schemathesis_finds_no_answer_that_the_document_does_not_describe(
    service_factory: ServiceFactory, tmp_path: Path
) -> None:
    with service_factory() as service:
        done = subprocess.run(
            [Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIG, "run", f"{service.url}/docs.json",
             "--max-examples", EXAMPLES, "--generation-deterministic", "--phases", "examples,coverage,fuzzing,stateful",
             "--no-color"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
