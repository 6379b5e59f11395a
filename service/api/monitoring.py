"""What watches the service: probes and metrics. BentoML's app, behind the gate, answers the probes."""

from service.api.operations import probe
from service.http.accept import accepted
from service.http.messages import Request, Response
from service.http.operation import Operation
from service.http.routing import Endpoint, Group
from service.models.registry import Serving
from service.telemetry import Format


class Metrics:
    """The handler."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def metrics(self, request: Request) -> Response:
        """GET /metrics."""
        telemetry = self._serving.telemetry
        telemetry.ready(self._serving.ready)
        form = Format.of(accepted(request.header(b"accept")))
        return Response(200, [(b"content-type", form.content_type.encode())], telemetry.exposition(form))


def routes(serving: Serving) -> Group:
    """Probes and metrics."""
    livez = probe("livez", "Whether the process can do its work.", str, "text/plain")
    readyz = probe("readyz", "Whether every model has answered a warm-up request.", str, "text/plain")
    metrics = Operation("metrics", "Metrics for Prometheus.", str, "text/plain")
    return Group(
        "Probes and metrics",
        "Probes need no key; [the metrics](metrics.md) do, where there are keys.",
        [
            Endpoint("GET", "/livez", None, livez, public=True),
            Endpoint("GET", "/healthz", None, public=True),  # as /livez, by another name
            Endpoint("GET", "/readyz", None, readyz, public=True),
            Endpoint("GET", "/metrics", Metrics(serving).metrics, metrics, scope="metrics"),
        ],
    )
