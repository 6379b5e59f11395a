"""The Open Inference Protocol v2 over HTTP, as Triton, KServe and MLServer speak it; `tritonclient.http` works with it.

One input tensor of texts (BYTES, any name and shape), or two where the model reads pairs, the second texts in the one
that is called text_pair; two outputs: `label` (BYTES, one for each text; where a text may
have several, a JSON list of them; of a number, its name) and `scores` (FP32, texts x labels; the model's metadata names
the labels); and, where the model has a threshold to abstain below, `abstained` (BOOL, one for each text). Tensors may
be JSON or, with the header Inference-Header-Content-Length, binary behind the JSON.
Source: github.com/kserve/open-inference-protocol.
"""

from collections.abc import Mapping

from pydantic import BaseModel

from compression.bundle import InputKind
from service import __version__
from service.api.ask import Inference
from service.api.open_inference_schemas import (
    InferErrorResponse,
    InferParameters,
    InferRequest,
    InferResponse,
    ModelMetadata,
    ModelReady,
    ServerMetadata,
    TensorMetadata,
)
from service.api.operations import asking, path_parameter, probe
from service.api.tensors import SECOND_TEXT, read_inputs, write_answer
from service.errors import InvalidRequest, ModelNotFound, NotReady, ServiceError
from service.http.body import parse, read_body
from service.http.messages import Request, Response
from service.http.operation import Operation, Parameter
from service.http.routing import Endpoint, ErrorShape, Group, Handler
from service.models.model import Model
from service.models.registry import Serving

_CONTENT_TYPES = ("", "application/json", "application/octet-stream")  # tritonclient names none
_WRITTEN: Mapping[InputKind, str] = {
    "texts": "one tensor", "pairs": f"two tensors, text and {SECOND_TEXT}",
}  # fmt: skip


def _error_body(error: ServiceError, _: str) -> Mapping[str, object]:
    return {"error": error.message}


_ERRORS = ErrorShape(InferErrorResponse, _error_body)
_HEADER_LENGTH = Parameter(
    "Inference-Header-Content-Length",
    "header",
    "Bytes of the JSON, where binary tensors follow it.",
    {"type": "integer", "minimum": 0},
)


class _Api:
    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self.inference = Inference(serving.settings, serving.models, serving.intake, _WRITTEN)

    async def server(self, _: Request) -> Response:
        """GET /v2."""
        return _json(ServerMetadata(name="lathe", version=__version__, extensions=["binary_tensor_data"]))

    async def live(self, _: Request) -> Response:
        """GET /v2/health/live."""
        if not self._serving.alive:
            raise NotReady("the service can do no work; it must be restarted")
        return Response.json({"live": True})

    async def ready(self, _: Request) -> Response:
        """GET /v2/health/ready."""
        serving = self._serving
        if not serving.ready:
            raise serving.not_ready()
        return Response.json({"ready": True})

    async def model(self, request: Request) -> Response:
        """GET /v2/models/{model}."""
        model = self._model(request)
        labels = list(model.labels)
        return _json(
            ModelMetadata(
                name=model.name,
                versions=[model.live.id],
                platform="onnxruntime_onnx",
                inputs=[
                    TensorMetadata(name=name, datatype="BYTES", shape=[-1])
                    for name in (("text",) if model.inputs == "texts" else ("text", SECOND_TEXT))
                ],
                outputs=[
                    TensorMetadata(name="label", datatype="BYTES", shape=[-1]),
                    TensorMetadata(
                        name="scores", datatype="FP32", shape=[-1, len(labels)], parameters={"labels": labels}
                    ),
                    *(
                        [TensorMetadata(name="abstained", datatype="BOOL", shape=[-1])]
                        if model.live.abstain_below is not None
                        else []
                    ),
                ],
            )
        )

    async def model_ready(self, request: Request) -> Response:
        """GET /v2/models/{model}/ready."""
        return Response.json({"name": self._model(request).name, "ready": True})

    async def infer(self, request: Request) -> Response:
        """POST /v2/models/{model}/infer."""
        content = await read_body(request, self._serving.settings, _CONTENT_TYPES)
        length = _header_length(request, content)
        body = parse(InferRequest, content[:length], self._serving.settings.max_inputs)
        texts = read_inputs(body.inputs, content[length:])
        model = self._model(request)
        (scored,) = await self.inference.ask(request, [model], texts, (body.parameters or InferParameters()).calibrated)
        return write_answer(body, model.name, scored)

    def _model(self, request: Request) -> Model:
        model = self._serving.model(request.parameters["model"])
        version = request.parameters.get("version", model.live.id)
        if version != model.live.id:
            raise ModelNotFound(f"no version {version[:64]!r} of {model.name!r}; there is {model.live.id}")
        return model


def routes(serving: Serving) -> Group:
    """The routes of this protocol."""
    api = _Api(serving)
    model = path_parameter("model")
    version = path_parameter("version", "Its live version, which GET /v2/models/{model} names.")
    return Group(
        "Open Inference Protocol v2",
        "As Triton, KServe and MLServer speak it, for `tritonclient.http` and others: texts as BYTES, in JSON or, with "
        "`Inference-Header-Content-Length`, binary behind it; of a model that reads pairs, in two tensors, `text` and "
        "`text_pair`. The output `label` is a text's label; where it may have "
        'several, a JSON list of them, such as `["billing", "card"]`. Of a model that gives a number, `scores` '
        "holds that, and `label` its name. Where the model has a threshold to abstain below, the output `abstained` "
        "says of each text whether the model is less sure of its answer than that.",
        [
            _get("/v2", api.server, Operation("v2_server", "Name and version.", ServerMetadata)),
            _get("/v2/health/live", api.live, probe("v2_live", "As /livez.", dict[str, bool]), public=True),
            _get("/v2/health/ready", api.ready, probe("v2_ready", "As /readyz.", dict[str, bool]), public=True),
            *_of_a_model(api, "/v2/models/{model}", "v2_model", (model,)),
            *_of_a_model(api, "/v2/models/{model}/versions/{version}", "v2_version", (model, version)),
        ],
        below="/v2/",
    )


def _of_a_model(api: _Api, path: str, name: str, parameters: tuple[Parameter, ...]) -> list[Endpoint]:
    errors = (ModelNotFound, NotReady)
    metadata = Operation(name, "Inputs and outputs.", ModelMetadata, parameters=parameters, errors=errors)
    ready = Operation(f"{name}_ready", "Whether it answers.", ModelReady, parameters=parameters, errors=errors)
    infer = asking(
        f"{name}_infer",
        "Classify texts.",
        InferResponse,
        request=InferRequest,
        binary=True,
        parameters=(*parameters, _HEADER_LENGTH),
    )
    return [
        _get(path, api.model, metadata),
        _get(f"{path}/ready", api.model_ready, ready),
        Endpoint("POST", f"{path}/infer", api.infer, infer, errors=_ERRORS, admit=api.inference.admit, scope="predict"),
    ]


def _get(path: str, handler: Handler, operation: Operation, public: bool = False) -> Endpoint:
    return Endpoint("GET", path, handler, operation, public, _ERRORS)


def _header_length(request: Request, content: bytes) -> int:
    """Where the JSON ends and the binary tensors begin."""
    value = request.header(b"inference-header-content-length")
    if value is None:
        return len(content)
    if not (value.isascii() and value.isdecimal()) or int(value[:12]) > len(content):
        raise InvalidRequest(
            f"Inference-Header-Content-Length is {value[:32]!r}; send the bytes of the JSON, of {len(content)} in all"
        )
    return int(value[:12])


def _json(body: BaseModel) -> Response:
    return Response.json(body.model_dump())
