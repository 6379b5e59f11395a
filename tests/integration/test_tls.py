"""The real service behind TLS of its own."""

import contextlib
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import lathe
from compression.bundle import Bundle
from loadtests.run import free_port, stop
from tests.authority import until
from tests.certificates import self_signed
from tests.integration.conftest import service_command, service_environment

pytestmark = pytest.mark.integration

BODY = b'{"model": "sentiment", "inputs": "Thank you!"}'
POST = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
ASK = POST % len(BODY) + BODY
DESCRIPTORS = 256


@dataclass(frozen=True)
class Encrypted:
    """A service that answers with TLS; `context` trusts it."""

    port: int
    context: ssl.SSLContext
    process: "subprocess.Popen[bytes]"
    log: Path

    def connect(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """A connection after its handshake."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        return (context or self.context).wrap_socket(plain, server_hostname="127.0.0.1")

    def client(self, context: ssl.SSLContext | None = None) -> httpx.Client:
        """A client that trusts it."""
        return httpx.Client(base_url=f"https://127.0.0.1:{self.port}", verify=context or self.context, timeout=10)


@contextlib.contextmanager
def encrypted(folder: Path, bundle: Bundle, client: Path | None = None, **settings: str) -> Iterator[Encrypted]:
    """Runs a service until it is left.

    Args:
        client: the certificate of the one client that is let in.
    """
    certificate, port, log = self_signed(folder), free_port(), folder / "service.log"
    context = ssl.create_default_context(cafile=certificate)
    given: Mapping[str, str] = {"LATHE_TLS_CLIENT_CA": str(client)} if client is not None else {}
    if client is not None:
        context.load_cert_chain(client)
    environment = service_environment(
        LATHE_MODELS=f"sentiment={bundle.path}", LATHE_TLS_CERTIFICATE=certificate.name, LATHE_DIRECTORY=str(folder),
        LATHE_HEAD_TIMEOUT_MS="3000", LATHE_WRITE_TIMEOUT_MS="1000", **given, **settings,
    )  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-c", f"ulimit -n {DESCRIPTORS}; exec \"$@\"", "sh", *service_command(port)],
            env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    service = Encrypted(port, context, process, log)
    try:
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError), service.client() as http:
                if http.get("/readyz").is_success:
                    break
            assert process.poll() is None, log.read_text("utf-8")
            time.sleep(0.1)
        yield service
    finally:
        stop(process)


@pytest.fixture(scope="module")
def service(sentiment_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    with encrypted(tmp_path_factory.mktemp("tls"), sentiment_bundle) as service:
        yield service


def read_answer(connection: ssl.SSLSocket) -> bytes:
    received = b""
    while not received.endswith(b"}") and (piece := connection.recv(65536)):
        received += piece
    return received


def test_requests_are_answered_and_the_certificates_end_is_known(service: Encrypted) -> None:
    with service.client() as http:
        for _ in range(3):  # on one connection
            assert http.post("/v1/classify", content=BODY, headers={"Content-Type": "application/json"}).json()[
                "results"
            ]
        assert len(http.get("/docs.json").content) > 10_000
        metrics = http.get("/metrics").text
    (line,) = (line for line in metrics.splitlines() if line.startswith("lathe_tls_certificate_expiry"))
    assert 0 < float(line.split()[1]) - time.time() <= 86_400
    assert 'lathe_connections{state="handshake"} 0.0' in metrics


def test_what_is_not_encrypted_is_not_answered(service: Encrypted) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as plain:
        plain.sendall(ASK)
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in plain.recv(65536)


def test_a_request_in_one_piece_with_the_end_of_the_handshake_is_answered(service: Encrypted) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = service.context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as plain:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(65536))
        client.write(ASK)
        plain.sendall(outgoing.read())  # both
        received = b""
        while not received.endswith(b"}"):
            incoming.write(plain.recv(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                received += client.read(65536)
    assert received.startswith(b"HTTP/1.1 200")


def test_handshakes_that_do_not_end_keep_nobody_out(service: Encrypted) -> None:
    with contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=10))
            for _ in range(DESCRIPTORS + 50)
        ]
        for one in silent[::2]:
            with contextlib.suppress(OSError):
                one.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of one
        with service.connect() as connection:
            connection.sendall(ASK)
            assert read_answer(connection).startswith(b"HTTP/1.1 200")
        start = time.monotonic()
        for one in silent:
            with contextlib.suppress(ConnectionResetError):
                assert one.recv(1) == b""
        assert time.monotonic() - start < 10
    with service.client() as http:
        closed = http.get("/metrics").text
    assert 'lathe_connections_closed_total{reason="timeout"}' in closed
    assert 'lathe_connections{state="handshake"} 0.0' in closed
    assert "Traceback" not in service.log.read_text("utf-8")


def timeouts(service: Encrypted) -> float:
    with service.client() as http:
        lines = http.get("/metrics").text.splitlines()
    (line,) = (line for line in lines if line.startswith('lathe_connections_closed_total{reason="timeout"}'))
    return float(line.split()[1])


def test_an_answer_that_nobody_fetches_ends_its_connection(service: Encrypted) -> None:
    before = timeouts(service)
    with service.connect() as connection:
        connection.sendall(b"GET /docs.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        until(lambda: timeouts(service) > before)


def test_only_a_client_with_a_certificate_is_served(sentiment_bundle: Bundle, tmp_path: Path) -> None:
    known, stranger = self_signed(tmp_path, "known"), self_signed(tmp_path, "stranger")
    with encrypted(tmp_path, sentiment_bundle, known) as service:
        with service.client() as http:
            assert http.get("/v1/models").is_success
        with lathe.Client(f"https://127.0.0.1:{service.port}", tls=service.context) as client:
            assert len(client.classify(["good", "bad"], model="sentiment")) == 2
        for certificate in (None, stranger):
            context = ssl.create_default_context(cafile=tmp_path / "certificate.pem")
            if certificate is not None:
                context.load_cert_chain(certificate)
            with pytest.raises(httpx.TransportError), service.client(context) as http:
                http.get("/v1/models")
        # What was accepted is answered when the service is told to stop, and it ends.
        with service.connect() as connection:
            connection.sendall(ASK[:-1])
            time.sleep(0.1)
            service.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            connection.sendall(ASK[-1:])
            assert read_answer(connection).startswith(b"HTTP/1.1 200")
        assert service.process.wait(30) is not None
    assert "Traceback" not in service.log.read_text("utf-8")
