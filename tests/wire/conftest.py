"""One real service for all tests of the wire, with short deadlines and few descriptors."""

import contextlib
import resource
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from compression.bundle import Bundle
from tests.integration.conftest import LiveService, serve
from tests.wire.client import Client

DESCRIPTORS = 256
QUEUE_BYTES = 3_000_000
SHORT = {
    "LATHE_ALLOWED_HOSTS": "x",
    "LATHE_HEAD_TIMEOUT_MS": "1000",
    "LATHE_IDLE_TIMEOUT_MS": "2000",
    "LATHE_QUEUE_BYTES": str(QUEUE_BYTES),
    "LATHE_WRITE_TIMEOUT_MS": "1000",
}


@pytest.fixture(scope="session")
def wire_service(sentiment_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """The service."""
    log = tmp_path_factory.mktemp("wire") / "service.log"
    settings = {"LATHE_MODELS": f"sentiment={sentiment_bundle.path}", "LATHE_REQUEST_TIMEOUT_MS": "2000", **SHORT}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))  # is inherited
        try:
            service = stack.enter_context(serve(log, settings))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        yield service


@pytest.fixture
def wire(wire_service: LiveService) -> Iterator[Client]:
    """A new connection to it."""
    address = urlsplit(wire_service.url)
    assert address.hostname is not None
    assert address.port is not None
    with Client(address.hostname, address.port) as client:
        yield client
