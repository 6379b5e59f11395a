"""Texts and answers as tensors of the Open Inference Protocol.

Binary BYTES are a length in 4 bytes, little-endian, before each text.

Source: github.com/kserve/open-inference-protocol, and Triton's extension binary_tensor_data.
"""

import itertools
import json
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from compression.bundle import Input
from service.api.open_inference_schemas import (
    InferInput,
    InferOutput,
    InferParameters,
    InferRequest,
    InputParameters,
    OutputParameters,
)
from service.errors import InvalidRequest
from service.http.messages import Response
from service.models.version import Scored

SECOND_TEXT = "text_pair"  # the tensor's name, in any case
_LENGTH = struct.Struct("<I")
_OUTPUTS = [InferOutput(name="label"), InferOutput(name="scores")]
_ABSTAINED = InferOutput(name="abstained")
_DATATYPES = {"label": "BYTES", "scores": "FP32", "abstained": "BOOL"}
_BINARY = {"scores": "<f4", "abstained": "?"}


def read_inputs(tensors: list[InferInput], binary: bytes) -> Sequence[Input]:
    """The texts of one tensor, or the pairs of two, checked as those of the service's own routes are.

    Args:
        binary: what follows the JSON.

    Raises:
        InvalidRequest: shapes, sizes or bytes do not fit; names the tensor.
    """
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
    seconds = [number for number, tensor in enumerate(tensors) if tensor.name.casefold() == SECOND_TEXT]
    if len(seconds) != 1:
        raise InvalidRequest(
            f"inputs: has two tensors; send one, or for pairs of texts one of two called {SECOND_TEXT}"
        )
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


def _outputs(body: InferRequest, model: str, scored: Scored) -> Sequence[InferOutput]:
    """Those that are wanted, or all that there are.

    Raises:
        InvalidRequest: `abstained` is wanted, and nothing says so.
    """
    can_abstain = any(one is not None for one in scored.abstained)
    if not body.outputs:
        return [*_OUTPUTS, _ABSTAINED] if can_abstain else _OUTPUTS
    if not can_abstain and any(output.name == _ABSTAINED.name for output in body.outputs):
        raise InvalidRequest(f"outputs: {model!r} has no threshold to abstain below; leave out abstained")
    return body.outputs


def write_answer(body: InferRequest, model: str, scored: Scored) -> Response:
    """The outputs that were asked for, in JSON, or binary behind it.

    Raises:
        InvalidRequest: one of them does not exist.
    """
    labels = _labels(scored)
    arrays = {"scores": scored.scores, "abstained": np.array(list(map(bool, scored.abstained)))}
    tensors: list[dict[str, Any]] = []
    binary = b""
    all_binary = (body.parameters or InferParameters()).binary_data_output
    for output in _outputs(body, model, scored):
        array = arrays.get(output.name)
        tensor: dict[str, Any] = {
            "name": output.name,
            "datatype": _DATATYPES[output.name],
            "shape": [len(labels)] if array is None else list(array.shape),
        }
        wanted = (output.parameters or OutputParameters()).binary_data
        if all_binary if wanted is None else wanted:
            content = _packed(labels) if array is None else array.astype(_BINARY[output.name]).tobytes()
            tensor["parameters"] = {"binary_data_size": len(content)}
            binary += content
        else:
            tensor["data"] = labels if array is None else array.ravel().tolist()
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
