"""Fake quantization: while it trains, a PyTorch model computes with the int8 that its graph will have.

Weights and inputs of the linears are rounded as `quantize_linears` will round them; gradients pass straight through the
rounding (Bengio et al. 2013; Jacob et al. 2018), and stop where an input was clipped. The weights' scales follow the
weights. The inputs' ranges stay as `calibrate` chose them: learning them (LSQ, Esser et al. 2020) would be for nothing,
since `quantize` chooses ranges anew for the model that comes out, which is an ordinary float one.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from compression.quantize.search import Activation


@contextmanager
def fake_quantized(model: PreTrainedModel, activations: Mapping[str, Activation]) -> Iterator[None]:
    """Inside the context, the linears that have a shift in `activations` compute as in int8; outside, as before.

    Args:
        activations: what `calibrate` chose on the model's exported graph, whose linears carry the modules' paths and
            compute what the modules do (in a fused one, the queries are scaled).
    """
    found = []
    for activation in activations.values():
        for name, shift in activation.shifts.items():
            linear = model.get_submodule(name.strip("/").rpartition("/")[0].replace("/", "."))
            assert isinstance(linear, nn.Linear)
            found.append((linear, partial(_forward, linear, activation, torch.tensor(shift))))
    for linear, forward in found:
        linear.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        for linear, _ in found:
            del linear.forward


def _forward(linear: nn.Linear, activation: Activation, shift: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    inputs, weight = inputs.float(), linear.weight  # under autocast, inputs come in bfloat16, too coarse to round
    if activation.smoothing is not None:
        smoothing = torch.tensor(activation.smoothing)
        inputs, weight = inputs / smoothing, weight * smoothing
    scale, zero_point = activation.range.scale, activation.range.zero_point
    rounded = torch.fake_quantize_per_tensor_affine(inputs, scale, zero_point, 0, 255)
    bias = shift if linear.bias is None else linear.bias + shift
    return functional.linear(rounded, fake_quantized_weight(weight), bias)


def fake_quantized_weight(weight: torch.Tensor) -> torch.Tensor:
    """What int8 leaves of a weight (outputs, inputs): symmetric, one scale per output, as `quantize_weight`."""
    largest = weight.detach().abs().amax(dim=1)
    scales = torch.where(largest > 0, largest / 127, 1.0)
    return torch.fake_quantize_per_channel_affine(
        weight, scales, torch.zeros(len(weight), dtype=torch.int32), 0, -127, 127
    )
