"""What a body's schema refuses: at the first errors, however many there are."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

from service.api.open_inference_schemas import InferRequest
from service.api.schemas import ClassifyRequest, LoadRequest, TriageRequest
from service.api.text_embeddings_inference import PredictRequest
from service.errors import InvalidRequest, PayloadTooLarge, ServiceError
from service.http.body import parse

MANY = 1000


def tensor(data: list[object], shape: list[object], outputs: list[object]) -> dict[str, object]:
    return {"inputs": [{"name": "a", "datatype": "BYTES", "shape": shape, "data": data}], "outputs": outputs}


@pytest.mark.parametrize(
    ("model", "body", "message"),
    [
        (ClassifyRequest, {"model": "m", "inputs": [1] * MANY}, "inputs.0: is a number; send a string"),
        (TriageRequest, {"inputs": ["a"] + [""] * MANY}, "inputs.1: is empty; send a text, or leave it out"),
        (TriageRequest, {"inputs": [[[]]] * MANY}, "inputs.0: is a list; send a string"),
        (PredictRequest, {"inputs": [1] * MANY}, "inputs.0: is a number; send a string"),
        (PredictRequest, {"inputs": [["a"]] + [[1]] * MANY}, "inputs.1.0: is a number; send a string"),
        (PredictRequest, {"inputs": [[1] * MANY]}, "inputs.0.0: is a number; send a string"),
        (InferRequest, tensor([1] * MANY, [1], []), "inputs.0.data.0: is a number; send a string"),
        (InferRequest, tensor([[1]] * MANY, [1], []), "inputs.0.data.0.0: is a number; send a string"),
        (InferRequest, tensor(["a"], ["a"] * MANY, []), "inputs.0.shape.0: is a string; send a whole number"),
        (InferRequest, tensor(["a"], [1] * MANY, []), "inputs.0.shape: has 1000 in its list; send at most 8"),
        (InferRequest, tensor(["a"], [1], [1] * MANY), "outputs.0: is a number; send an object"),
    ],
)
def test_a_list_is_checked_no_further_than_to_its_first_error(
    model: type[BaseModel], body: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse(model, json.dumps(body).encode(), 256)
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
        parse(model, json.dumps(known | unknown).encode(), 256)
    fields = ", ".join(model.model_fields)
    assert refusal.value.message.startswith(f"0{'x' * 63}: there is no such field; send {fields}. 1x")
    assert refusal.value.message.endswith(". And 997 more")
    assert model.model_json_schema()["additionalProperties"] is False


def test_errors_of_several_keys_are_named_together() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse(ClassifyRequest, b'{"inputs": [1, 2], "top_k": 0}', 256)
    assert refusal.value.message == (
        "model: is missing; send it. inputs.0: is a number; send a string. top_k: is 0; send a number from 1 on"
    )


@pytest.mark.parametrize(
    ("model", "body", "message"),
    [
        (ClassifyRequest, '{"model": "m"}', "inputs: is missing; send it"),
        (ClassifyRequest, '{"model": 1, "inputs": "a"}', "model: is a number; send a string"),
        (ClassifyRequest, '{"model": "m", "inputs": []}', "inputs: is empty; send one or more"),
        (ClassifyRequest, '{"model": "m", "inputs": 5551234}', "inputs: is a number; send a text, or a list of texts"),
        (ClassifyRequest, '{"model": "m", "inputs": "a", "top_k": "two"}', "top_k: is a string; send a whole number"),
        (ClassifyRequest, '{"model": "m", "inputs": "a", "top_k": -3}', "top_k: is -3; send a number from 1 on"),
        (ClassifyRequest, '{"model": "m", "inputs": "a", "top_k": 1.5}', "top_k: is a number; send a whole number"),
        (ClassifyRequest, '{"model": "m", "inputs": "a", "top_k": -1e999}', "top_k: is a number; send a whole number"),
        (ClassifyRequest, '{"model": "m", "inputs": "a", "calibrated": 1}', "calibrated: is a number; send true or f"),
        (ClassifyRequest, "[1]", "body: is a list; send an object"),
        (ClassifyRequest, "secret", "body: is not JSON: expected value at line 1 column 1; send an object, in UTF-8"),
        (LoadRequest, '{"bundle": ""}', "bundle: is empty; send a character or more"),
        (LoadRequest, '{"bundle": "a", "canary": 101}', "canary: is 101; send a number up to 100"),
        (LoadRequest, '{"bundle": "a", "canary": 5, "shadow": true}', "body: send canary or shadow, not both"),
        (PredictRequest, '{"inputs": ["secret", "secret", "secret"]}', "inputs: has more texts than the two of a pair"),
        (PredictRequest, '{"inputs": "a", "truncation_direction": "l"}', "truncation_direction: is a string; send"),
        (InferRequest, '{"inputs": [1, 2, 3]}', "inputs: has 3 in its list; send at most 2"),
    ],
)
def test_an_error_names_the_field_what_stands_there_and_what_to_send(
    model: type[BaseModel], body: str, message: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse(model, body.encode(), 256)
    assert refusal.value.message.startswith(message)
    assert "secret" not in refusal.value.message
    assert "5551234" not in refusal.value.message


def filled(beginning: str, item: str, end: str) -> bytes:
    """1 MB of JSON."""
    count = 1_000_000 // len(item)
    return (beginning + (item * count).removesuffix(",") + end).encode()


@pytest.mark.parametrize("model", [ClassifyRequest, TriageRequest, LoadRequest, PredictRequest, InferRequest])
@pytest.mark.parametrize(
    ("body", "error", "says"),
    [
        (filled('{"inputs": [', "1,", "]}"), InvalidRequest, "4048 values"),
        (filled('{"inputs": "a", "junk": [', "[],", "]}"), InvalidRequest, "4048 values"),
        (filled('{"inputs": "a", "junk": [', "{},", "]}"), InvalidRequest, "4048 values"),
        (filled('{"inputs": ["\\\\", ', "1.5,", "]}"), InvalidRequest, "4048 values"),
        (filled('{"inputs": ["\\"", ', "1.5,", "]}"), InvalidRequest, "4048 values"),
        (filled('{"inputs": [', '"a",', "]}"), PayloadTooLarge, "send fewer texts"),
        (filled('{"inputs": [', '"\\\\",', "]}"), PayloadTooLarge, "send fewer texts"),
        (filled('{"inputs": [', '["a"],', "]}"), PayloadTooLarge, "send fewer texts"),
        (filled('{"inputs": "a", "', '":1,"', 'x": 1}'), PayloadTooLarge, "send fewer texts"),
    ],
)
def test_no_objects_are_made_of_more_values_than_a_request_can_have(
    model: type[BaseModel], body: bytes, error: type[ServiceError], says: str
) -> None:
    made: list[object] = []

    class Watched(model):  # type: ignore[valid-type, misc]  # a class that is a parameter
        @classmethod
        def model_validate_json(cls, *args: Any, **options: Any) -> Any:
            made.append(args)
            return super().model_validate_json(*args, **options)

    with pytest.raises(error, match=says):
        parse(Watched, body, 256)
    assert made == []


def test_a_text_without_an_end_is_looked_at_once() -> None:
    with pytest.raises(InvalidRequest, match="is not JSON"):
        parse(TriageRequest, filled('{"inputs": "', '\\"[,', "\\"), 256)


@pytest.mark.parametrize(
    "text", ["a, b; [c], {d}: " * 60_000, '"quoted", ' * 90_000, "\\" * 400_000, '\\"[' * 200_000, "\\,[{" * 100_000]
)
def test_what_stands_in_a_text_is_no_value(text: str) -> None:
    assert parse(TriageRequest, json.dumps({"inputs": [text]}).encode(), 256).inputs == [text]
    assert parse(PredictRequest, json.dumps({"inputs": [[text]] * 2}).encode(), 256).inputs == [[text]] * 2


def test_as_many_texts_as_are_allowed_pass() -> None:
    body = {"inputs": [[f"{number}, [and] so {{on}}"] for number in range(5000)]}
    assert len(parse(PredictRequest, json.dumps(body).encode(), 5000).inputs) == 5000
