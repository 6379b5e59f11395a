"""One view of the encoders that can be pruned: layers, their two sublayers, and the units that each is made of.

A sublayer computes `residual + units @ output.weight.T + output.bias`, then normalises. Its units are the heads'
context vectors (attention) or the activated neurons (FFN), so that removing a unit means removing rows of what makes it
and columns of `output`. All encoders here are post-norm:

    hidden ─┬─ attention units ─ output ─ (+) ─ LayerNorm ─┬─ neurons ─ output ─ (+) ─ LayerNorm ─▶
            └────────────────────────────┘                 └─────────────────────┘
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from compression.errors import CheckpointError
from compression.prune.regression import columns_of

Kind = Literal["attention", "ffn"]


@dataclass(frozen=True)
class _Names:
    """Where an architecture keeps the parts of a layer: dotted paths below the layer."""

    layers: str  # below the base model
    attention: str  # the module that counts its heads
    heads: str  # names of that module's attributes: number of heads, and total width
    width: str
    inputs: tuple[str, str, str]  # below the attention module: query, key, value
    attention_output: str
    attention_norm: str
    ffn_input: str
    ffn_output: str
    ffn_norm: str


_BERT = _Names(
    layers="encoder.layer",
    attention="attention.self",
    heads="num_attention_heads",
    width="all_head_size",
    inputs=("query", "key", "value"),
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    ffn_input="intermediate.dense",
    ffn_output="output.dense",
    ffn_norm="output.LayerNorm",
)
_DISTILBERT = _Names(
    layers="transformer.layer",
    attention="attention",
    heads="n_heads",
    width="dim",
    inputs=("q_lin", "k_lin", "v_lin"),
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    ffn_input="ffn.lin1",
    ffn_output="ffn.lin2",
    ffn_norm="output_layer_norm",
)
_DEBERTA = replace(_BERT, inputs=("query_proj", "key_proj", "value_proj"))
_ARCHITECTURES = {
    "bert": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "distilbert": _DISTILBERT,
    "deberta-v2": _DEBERTA,
}


@dataclass(frozen=True)
class Sublayer:
    """Attention or FFN of one layer.

    Attributes:
        layer: position of its layer, counted from the input.
        inputs: the linears whose rows make the units.
        output: the linear whose columns read them.
        norm: what reads the sum of output and residual.
        unit: columns of `output` that belong to one unit: the size of a head, or 1.
    """

    layer: int
    kind: Kind
    inputs: tuple[nn.Linear, ...]
    output: nn.Linear
    norm: nn.Module
    unit: int
    _resized: Callable[[int], None]

    @property
    def units(self) -> int:
        """How many units it has now."""
        return self.output.in_features // self.unit

    def columns(self, units: Sequence[int]) -> torch.Tensor:
        """The columns of `output` that read these units."""
        return columns_of(torch.tensor(units), self.unit)

    def keep(self, units: Sequence[int]) -> None:
        """Removes all other units."""
        columns = self.columns(units)
        for linear in self.inputs:
            _set(linear, linear.weight[columns], linear.bias[columns])
        _set(self.output, self.output.weight[:, columns], self.output.bias)
        self._resized(len(units))

    def resize(self, units: int) -> None:
        """Makes room for weights of another width, which are to be loaded afterwards."""
        width = units * self.unit
        for linear in self.inputs:
            _set(linear, linear.weight.new_zeros(width, linear.in_features), linear.bias.new_zeros(width))
        _set(self.output, self.output.weight.new_zeros(self.output.out_features, width), self.output.bias)
        self._resized(units)


def sublayers(model: PreTrainedModel) -> list[Sublayer]:
    """From the input upwards: attention of layer 0, FFN of layer 0, attention of layer 1, ...

    Raises:
        CheckpointError: an architecture whose parts are not known here.
    """
    names = _names(model)
    found = []
    for index, layer in enumerate(encoder_layers(model)):
        attention = layer.get_submodule(names.attention)
        head_size = getattr(attention, names.width) // getattr(attention, names.heads)
        found += [
            Sublayer(
                index,
                "attention",
                tuple(_linear(attention, name) for name in names.inputs),
                _linear(layer, names.attention_output),
                layer.get_submodule(names.attention_norm),
                head_size,
                _head_setter(attention, names, head_size),
            ),
            Sublayer(
                index,
                "ffn",
                (_linear(layer, names.ffn_input),),
                _linear(layer, names.ffn_output),
                layer.get_submodule(names.ffn_norm),
                1,
                lambda _: None,
            ),
        ]
    return found


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The stack of layers itself; deleting from it removes a layer."""
    layers = model.base_model.get_submodule(_names(model).layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def remove_layer(model: PreTrainedModel, index: int) -> None:
    """Removes one whole layer."""
    del encoder_layers(model)[index]
    model.config.num_hidden_layers = len(encoder_layers(model))


def _names(model: PreTrainedModel) -> _Names:
    kind = model.config.model_type
    if kind not in _ARCHITECTURES:
        raise CheckpointError(
            f"{kind} models cannot be pruned, only {', '.join(sorted(_ARCHITECTURES))}; "
            "leave out prune_structure and drop_layers, or use the recipe safe"
        )
    return _ARCHITECTURES[kind]


def _linear(module: nn.Module, name: str) -> nn.Linear:
    linear = module.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    return linear


def _head_setter(attention: Any, names: _Names, head_size: int) -> Callable[[int], None]:
    def set_heads(heads: int) -> None:
        setattr(attention, names.heads, heads)
        setattr(attention, names.width, heads * head_size)

    return set_heads


def _set(linear: nn.Linear, weight: torch.Tensor, bias: torch.Tensor) -> None:
    linear.weight = nn.Parameter(weight.detach().clone())
    linear.bias = nn.Parameter(bias.detach().clone())
    linear.out_features, linear.in_features = weight.shape
