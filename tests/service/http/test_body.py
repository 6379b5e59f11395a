"""What a body's schema refuses: at the first errors, however many there are."""

import json

import pytest
from pydantic import BaseModel

from service.api.open_inference import InferRequest
from service.api.schemas import ClassifyRequest, LoadRequest, TriageRequest
from service.api.text_embeddings_inference import PredictRequest
from service.errors import InvalidRequest
from service.http.body import parse

MANY = 1000


def tensor(data: list[object], shape: list[object], outputs: list[object]) -> dict[str, object]:
    return {"inputs": [{"name": "a", "datatype": "BYTES", "shape": shape, "data": data}], "outputs": outputs}


@pytest.mark.parametrize(
    ("model", "body", "message"),
    [
        (ClassifyRequest, {"model": "m", "inputs": [1] * MANY}, "inputs.0: Input should be a valid string"),
        (TriageRequest, {"inputs": ["a"] + [""] * MANY}, "inputs.1: text is empty"),
        (TriageRequest, {"inputs": [[[]]] * MANY}, "inputs.0: Input should be a valid string"),
        (PredictRequest, {"inputs": [1] * MANY}, "inputs.0: Input should be a valid string"),
        (PredictRequest, {"inputs": [["a"]] + [[1]] * MANY}, "inputs.1.0: Input should be a valid string"),
        (PredictRequest, {"inputs": [[1] * MANY]}, "inputs.0.0: Input should be a valid string"),
        (InferRequest, tensor([1] * MANY, [1], []), "inputs.0.data.0: Input should be a valid string"),
        (InferRequest, tensor([[1]] * MANY, [1], []), "inputs.0.data.0.0: Input should be a valid string"),
        (InferRequest, tensor(["a"], ["a"] * MANY, []), "inputs.0.shape.0: Input should be a valid integer"),
        (InferRequest, tensor(["a"], [1], [1] * MANY), "outputs.0: Input should be an object"),
    ],
)
def test_a_list_is_checked_no_further_than_to_its_first_error(
    model: type[BaseModel], body: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse(model, json.dumps(body).encode())
    assert refusal.value.message == message


@pytest.mark.parametrize(
    ("model", "known"),
    [
        (ClassifyRequest, {"model": "m", "inputs": "a"}),
        (TriageRequest, {"inputs": "a"}),
        (LoadRequest, {"bundle": "a"}),
    ],
)
def test_unknown_keys_are_no_errors_to_make_and_the_first_are_named(
    model: type[BaseModel], known: dict[str, object]
) -> None:
    unknown = {f"{number}{'x' * 100}": 1 for number in range(MANY)}
    with pytest.raises(InvalidRequest) as refusal:
        parse(model, json.dumps(known | unknown).encode())
    assert refusal.value.message.startswith(f"0{'x' * 63}: Extra inputs are not permitted; 1x")
    assert refusal.value.message.endswith("; and 997 more")
    assert model.model_json_schema()["additionalProperties"] is False


def test_errors_of_several_keys_are_named_together() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse(ClassifyRequest, b'{"inputs": [1, 2], "top_k": 0}')
    assert [problem.partition(":")[0] for problem in refusal.value.message.split("; ")] == [
        "model",
        "inputs.0",
        "top_k",
    ]
