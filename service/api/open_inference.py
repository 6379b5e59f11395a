"""The Open Inference Protocol v2 over HTTP, as Triton, KServe and MLServer speak it; `tritonclient.http` works with it.

One input tensor of texts (BYTES, any name and shape), or two where the model reads pairs, the second texts in the one
that is called text_pair; two outputs: `label` (BYTES, one for each text; where a text may
have several, a JSON list of them; of a number, its name) and `scores` (FP32, texts x labels; the model's metadata names
the labels). Tensors may be JSON or, with the header Inference-Header-Content-Length, binary behind the JSON: BYTES as a
length in 4 bytes, little-endian, before each text.
Source: github.com/kserve/open-inference-protocol, and Triton's extension binary_tensor_data.
"""

import itertools
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from compression.bundle import Input, InputKind
from service import __version__
from service.api.ask import Inference
from service.api.operations import asking, path_parameter, probe
from service.api.schemas import FromZero, LenientBody
from service.errors import InvalidRequest, ModelNotFound, NotReady, ServiceError
from service.http.body import parse, read_body
from service.http.messages import Request, Response
from service.http.operation import Operation, Parameter
from service.http.routing import Endpoint, ErrorShape, Group, Handler
from service.models.model import Model
from service.models.registry import Serving
from service.models.version import Scored

_CONTENT_TYPES = ("", "application/json", "application/octet-stream")  # tritonclient names none
_LENGTH = struct.Struct("<I")
_PAIR = "text_pair"  # in any case
_WRITTEN: Mapping[InputKind, str] = {
    "texts": "one tensor", "pairs": f"two tensors, text and {_PAIR}",
}  # fmt: skip


class InputParameters(LenientBody):
    binary_data_size: FromZero | None = Field(default=None, description="Bytes of this tensor behind the JSON.")


def _kind(value: object) -> str | None:
    if not isinstance(value, list):
        return None
    return "batch" if value and isinstance(value[0], list) else "many texts"


_Texts = Annotated[list[str], Field(fail_fast=True)]
_Data = Annotated[
    Annotated[_Texts, Tag("many texts")] | Annotated[list[_Texts], Field(fail_fast=True), Tag("batch")],
    Discriminator(_kind, custom_error_type="inputs_type", custom_error_message="a list of texts, or of lists of texts"),
]


class InferInput(LenientBody):
    """A tensor of texts."""

    name: str
    datatype: Literal["BYTES"]
    # Few: the product of thousands of long numbers takes a minute, in the event loop.
    shape: Annotated[list[int], Field(fail_fast=True, max_length=8)]
    parameters: InputParameters | None = None
    data: _Data | None = None


class OutputParameters(LenientBody):
    binary_data: bool | None = None
    classification: Literal[0] = Field(default=0, description="Triton's extension of that name is not offered.")


class InferOutput(LenientBody):
    name: Literal["label", "scores"]
    parameters: OutputParameters | None = None


_OUTPUTS = [InferOutput(name="label"), InferOutput(name="scores")]


class InferParameters(LenientBody):
    binary_data_output: bool = Field(
        default=False, description="Whether outputs are binary, unless one says otherwise."
    )
    calibrated: bool | None = Field(
        default=None, description="Whether `scores` are calibrated. Default: LATHE_CALIBRATED, false unless set."
    )


class InferRequest(LenientBody):
    """One tensor of texts, or two of pairs, of which one is called text_pair; `outputs` names those that are wanted.
    What is null, or an empty list of outputs, is as if it were not there: all of them, as the defaults say."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "inputs": [
                        {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["Thank you, that was quick!"]},
                    ]
                }
            ]
        }
    )

    id: str | None = None
    parameters: InferParameters | None = None
    inputs: list[InferInput] = Field(min_length=1, max_length=2)
    outputs: Annotated[list[InferOutput], Field(fail_fast=True, max_length=16)] | None = None


class OutputTensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | None = None
    data: list[str] | list[float] | None = None


class ResponseParameters(BaseModel):
    """Each is there where it is true."""

    degraded: Literal[True] | None = Field(
        default=None, description="The model answered without all members of its ensemble."
    )
    calibrated: Literal[True] | None = Field(
        default=None, description="The scores are calibrated; otherwise they are the model's own."
    )


class InferResponse(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    parameters: ResponseParameters | None = None
    outputs: list[OutputTensor]


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, list[str]] = {}


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class ModelReady(BaseModel):
    name: str
    ready: Literal[True]


class InferErrorResponse(BaseModel):
    error: str


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
                    for name in (("text",) if model.inputs == "texts" else ("text", _PAIR))
                ],
                outputs=[
                    TensorMetadata(name="label", datatype="BYTES", shape=[-1]),
                    TensorMetadata(
                        name="scores", datatype="FP32", shape=[-1, len(labels)], parameters={"labels": labels}
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
        texts = _inputs(body.inputs, content[length:])
        model = self._model(request)
        (scored,) = await self.inference.ask(request, [model], texts, (body.parameters or InferParameters()).calibrated)
        return _answer(body, model.name, scored)

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
        "holds that, and `label` its name.",
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
        Endpoint("POST", f"{path}/infer", api.infer, infer, errors=_ERRORS, admit=api.inference.admit),
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


def _inputs(tensors: list[InferInput], binary: bytes) -> Sequence[Input]:
    """The texts of one tensor, or the pairs of two, checked as those of the service's own routes are."""
    sizes = [_binary_size(tensor, number) for number, tensor in enumerate(tensors)]
    if len(binary) != sum(sizes):
        raise InvalidRequest(
            f"inputs.{len(tensors) - 1}: binary_data_size is {sum(sizes)}{' of both' * (len(tensors) > 1)}, and "
            f"{len(binary)} bytes follow the JSON; Inference-Header-Content-Length says where it ends"
        )
    starts = itertools.accumulate(sizes, initial=0)
    texts = [
        _texts(tensor, number, binary[start : start + size])
        for number, (tensor, start, size) in enumerate(zip(tensors, starts, sizes, strict=False))
    ]
    if len(texts) == 1:
        return texts[0]
    seconds = [number for number, tensor in enumerate(tensors) if tensor.name.casefold() == _PAIR]
    if len(seconds) != 1:
        raise InvalidRequest(f"inputs: has two tensors; send one, or for pairs of texts one of two called {_PAIR}")
    if len(texts[0]) != len(texts[1]):
        raise InvalidRequest(f"inputs: has {len(texts[0])} texts and {len(texts[1])}; pairs need as many of both")
    return list(zip(texts[1 - seconds[0]], texts[seconds[0]], strict=True))


def _binary_size(tensor: InferInput, number: int) -> int:
    """Of a tensor behind the JSON; 0 where it stands in it."""
    size = (tensor.parameters or InputParameters()).binary_data_size
    if (size is None) == (tensor.data is None):
        raise InvalidRequest(f"inputs.{number}: send either data or parameters.binary_data_size")
    return size or 0


def _texts(tensor: InferInput, number: int, binary: bytes) -> list[str]:
    if tensor.data is None:
        texts = list(_unpacked(binary, number))
    else:
        texts = [text for row in tensor.data for text in ([row] if isinstance(row, str) else row)]
    if not texts or min(tensor.shape, default=0) < 0 or math.prod(tensor.shape) != len(texts):
        raise InvalidRequest(
            f"inputs.{number}: shape {tensor.shape} does not fit {len(texts)} texts; send at least one"
        )
    for place, text in enumerate(texts):
        if not text.strip():
            raise InvalidRequest(f"inputs.{number}.data.{place}: is empty; send a text, or leave it out")
    return texts


def _unpacked(binary: bytes, number: int) -> Iterator[str]:
    place = 0
    while place < len(binary):
        start = place + _LENGTH.size
        end = start + _LENGTH.unpack_from(binary, place)[0] if start <= len(binary) else start
        if end > len(binary):
            raise InvalidRequest(f"inputs.{number}: the binary tensor ends within the text that begins at byte {place}")
        try:
            yield binary[start:end].decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"inputs.{number}: the text that begins at byte {place} is not UTF-8") from None
        place = end


def _packed(texts: list[str]) -> bytes:
    return b"".join(_LENGTH.pack(len(content)) + content for content in map(str.encode, texts))


def _labels(scored: Scored) -> list[str]:
    """Each text's label; where it may have several, a JSON list of them, the most probable first."""
    if not scored.task.several:
        return [scored.labels[index] for index in scored.given.argmax(axis=1).tolist()]
    orders = np.argsort(-scored.scores, axis=1, kind="stable")
    return [
        json.dumps([scored.labels[index] for index in order if given[index]], ensure_ascii=False)
        for order, given in zip(orders, scored.given, strict=True)
    ]


def _answer(body: InferRequest, model: str, scored: Scored) -> Response:
    scores = scored.scores
    labels = _labels(scored)
    tensors: list[dict[str, Any]] = []
    binary = b""
    all_binary = (body.parameters or InferParameters()).binary_data_output
    for output in body.outputs or _OUTPUTS:
        is_label = output.name == "label"
        tensor: dict[str, Any] = {
            "name": output.name,
            "datatype": "BYTES" if is_label else "FP32",
            "shape": [len(labels)] if is_label else list(scores.shape),
        }
        wanted = (output.parameters or OutputParameters()).binary_data
        if all_binary if wanted is None else wanted:
            content = _packed(labels) if is_label else scores.astype("<f4").tobytes()
            tensor["parameters"] = {"binary_data_size": len(content)}
            binary += content
        else:
            tensor["data"] = labels if is_label else scores.ravel().tolist()
        tensors.append(tensor)
    extras: dict[str, object] = {} if body.id is None else {"id": body.id}
    parameters = {"degraded": scored.degraded, "calibrated": scored.calibrated}
    if any(parameters.values()):
        extras["parameters"] = {name: value for name, value in parameters.items() if value}
    response = Response.json({"model_name": model, "model_version": scored.version, **extras, "outputs": tensors})
    if not binary:
        return response
    length = (b"inference-header-content-length", b"%d" % len(response.body))
    return Response(200, [(b"content-type", b"application/octet-stream"), length], response.body + binary)


def _json(body: BaseModel) -> Response:
    return Response.json(body.model_dump())
