"""What the Open Inference Protocol's requests and answers hold."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from service.api.schemas import FromZero, LenientBody


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
    name: Literal["label", "scores", "abstained"]
    parameters: OutputParameters | None = None


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
    data: list[str] | list[bool] | list[float] | None = None


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
