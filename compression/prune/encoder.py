"""One view of the encoders that can be pruned: layers, their two sublayers, and the units that each is made of.

A sublayer computes `residual + units @ output.weight.T + output.bias`. Its units are the heads' context vectors
(attention) or the activated neurons (FFN), so that removing a unit means removing rows of what makes it and columns of
`output`. Encoders normalise the sum, or, as ModernBERT does, what a sublayer reads of it:

    hidden ─┬─ attention units ─ output ─ (+) ─ LayerNorm ─┬─ neurons ─ output ─ (+) ─ LayerNorm ─▶
            └────────────────────────────┘                 └─────────────────────┘
    hidden ─┬─ LayerNorm ─ attention units ─ output ─ (+) ─┬─ LayerNorm ─ neurons ─ output ─ (+) ─▶
            └────────────────────────────────────────┘     └─────────────────────────────────┘

One linear may make several things of each unit: queries, keys and values, or a neuron and its gate. Its rows are then
as many blocks of the sublayer's width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from compression.errors import CheckpointError
from compression.prune.regression import columns_of

Kind = Literal["attention", "ffn"]


@dataclass(frozen=True)
class _Names:
    """Where an architecture keeps the parts of a layer: dotted paths below the layer."""

    layers: str  # below the base model
    attention: str  # the module of the heads
    heads: tuple[str, str] | None  # names of its attributes, number of heads and total width; None: it counts columns
    inputs: tuple[str, ...]  # below the attention module: query, key, value, or all in one
    attention_output: str
    attention_sum_reader: str
    ffn_input: str
    ffn_output: str
    ffn_sum_reader: str | None  # None: the layer gives the sum
    layers_alike: bool = True


_BERT = _Names(
    layers="encoder.layer",
    attention="attention.self",
    heads=("num_attention_heads", "all_head_size"),
    inputs=("query", "key", "value"),
    attention_output="attention.output.dense",
    attention_sum_reader="attention.output.LayerNorm",
    ffn_input="intermediate.dense",
    ffn_output="output.dense",
    ffn_sum_reader="output.LayerNorm",
)
_DISTILBERT = _Names(
    layers="transformer.layer",
    attention="attention",
    heads=("n_heads", "dim"),
    inputs=("q_lin", "k_lin", "v_lin"),
    attention_output="attention.out_lin",
    attention_sum_reader="sa_layer_norm",
    ffn_input="ffn.lin1",
    ffn_output="ffn.lin2",
    ffn_sum_reader="output_layer_norm",
)
_DEBERTA = replace(_BERT, inputs=("query_proj", "key_proj", "value_proj"))
_MODERNBERT = _Names(
    layers="layers",
    attention="attn",
    heads=None,
    inputs=("Wqkv",),
    attention_output="attn.Wo",
    attention_sum_reader="mlp_norm",
    ffn_input="mlp.Wi",
    ffn_output="mlp.Wo",
    ffn_sum_reader=None,
    layers_alike=False,  # some see all of a text, others what is near; the first has a normalisation less
)
_ARCHITECTURES = {
    "bert": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "distilbert": _DISTILBERT,
    "deberta-v2": _DEBERTA,
    "modernbert": _MODERNBERT,
}


class Shape(NamedTuple):
    """What the cost of a sublayer depends on, besides its number of units.

    Attributes:
        hidden: width of the hidden states.
        unit: columns of a unit: the size of a head, or 1.
        matrices: of `hidden` numbers that each column has: its rows in what makes it, and its column in the output.
    """

    kind: Kind
    hidden: int
    unit: int
    matrices: int


@dataclass(frozen=True)
class Sublayer:
    """Attention or FFN of one layer.

    Attributes:
        layer: position of its layer, counted from the input.
        inputs: the linears whose rows make the units.
        output: the linear whose columns read them.
        unit: columns of `output` that belong to one unit: the size of a head, or 1.
    """

    layer: int
    kind: Kind
    inputs: tuple[nn.Linear, ...]
    output: nn.Linear
    unit: int
    _sum: "_Sum"
    _resized: Callable[[int], None]

    @property
    def units(self) -> int:
        """How many units it has now."""
        return self.output.in_features // self.unit

    @property
    def shape(self) -> Shape:
        """See `Shape`."""
        rows = sum(linear.out_features for linear in self.inputs)
        return Shape(self.kind, self.output.out_features, self.unit, rows // self.output.in_features + 1)

    def columns(self, units: Sequence[int]) -> torch.Tensor:
        """The columns of `output` that read these units."""
        return columns_of(torch.tensor(units), self.unit)

    def keep(self, units: Sequence[int], output: tuple[torch.Tensor, torch.Tensor] | None = None) -> None:
        """Removes all other units.

        Args:
            output: new weight (outputs, columns that stay) and bias of `output`; None: it keeps its own.
        """
        columns, width = self.columns(units), self.output.in_features
        for linear in self.inputs:
            rows = torch.cat([columns + start for start in range(0, linear.out_features, width)])
            _set(linear, linear.weight[rows], None if linear.bias is None else linear.bias[rows])
        _set(self.output, *(output or (self.output.weight[:, columns], self.output.bias)))
        self._resized(len(units))

    def resize(self, units: int, output_bias: bool) -> None:
        """Makes room for weights of another width, which are to be loaded afterwards.

        Args:
            output_bias: whether `output` has a bias then: a refit gives it one.
        """
        width, before = units * self.unit, self.output.in_features
        for linear in self.inputs:
            rows = linear.out_features // before * width
            bias = None if linear.bias is None else linear.bias.new_zeros(rows)
            _set(linear, linear.weight.new_zeros(rows, linear.in_features), bias)
        weight = self.output.weight
        _set(self.output, weight.new_zeros(len(weight), width), weight.new_zeros(len(weight)) if output_bias else None)
        self._resized(units)

    def on_sum(self, notice: Callable[[torch.Tensor], None]) -> RemovableHandle:
        """Calls `notice` with residual and output together, whenever the model runs, until the handle is removed."""
        return self._sum.on(notice)


@dataclass(frozen=True)
class _Sum:
    """Where the sum of residual and output can be seen: what a module reads, or what it gives."""

    module: nn.Module
    is_read: bool

    def on(self, notice: Callable[[torch.Tensor], None]) -> RemovableHandle:
        if self.is_read:
            return self.module.register_forward_pre_hook(lambda _, inputs: notice(inputs[0]))
        return self.module.register_forward_hook(lambda _, __, given: notice(hidden_of(given)))


def hidden_of(given: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The hidden states in what a layer gives."""
    return given if isinstance(given, torch.Tensor) else given[0]


def sublayers(model: PreTrainedModel) -> list[Sublayer]:
    """From the input upwards: attention of layer 0, FFN of layer 0, attention of layer 1, ...

    Raises:
        CheckpointError: an architecture whose parts are not known here.
    """
    names = _names(model)
    found = []
    for index, layer in enumerate(encoder_layers(model)):
        attention: Any = layer.get_submodule(names.attention)
        reader = names.ffn_sum_reader
        found += [
            Sublayer(
                index,
                "attention",
                tuple(_linear(attention, name) for name in names.inputs),
                _linear(layer, names.attention_output),
                _head_size(attention, names.heads),
                _Sum(layer.get_submodule(names.attention_sum_reader), is_read=True),
                _head_setter(attention, names.heads),
            ),
            Sublayer(
                index,
                "ffn",
                (_linear(layer, names.ffn_input),),
                _linear(layer, names.ffn_output),
                1,
                _Sum(layer, is_read=False) if reader is None else _Sum(layer.get_submodule(reader), is_read=True),
                lambda _: None,
            ),
        ]
    return found


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The stack of layers itself; deleting from it removes a layer."""
    layers = model.base_model.get_submodule(_names(model).layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def require_layers_alike(model: PreTrainedModel) -> None:
    """Refuses an architecture whose layers differ, so that none can go without changing what the others are.

    Raises:
        CheckpointError: it is such a one, or not known here.
    """
    if not _names(model).layers_alike:
        raise CheckpointError(
            f"{model.config.model_type} models have layers of several kinds, of which none can be removed; "
            "leave out drop_layers"
        )


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


def _head_size(attention: Any, names: tuple[str, str] | None) -> int:
    if names is None:
        return int(attention.head_dim)
    heads, width = (getattr(attention, name) for name in names)
    return int(width // heads)


def _head_setter(attention: Any, names: tuple[str, str] | None) -> Callable[[int], None]:
    size = _head_size(attention, names)

    def set_heads(heads: int) -> None:
        if names is not None:
            for name, value in zip(names, (heads, heads * size), strict=True):
                setattr(attention, name, value)

    return set_heads


def _set(linear: nn.Linear, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    linear.weight = nn.Parameter(weight.detach().clone())
    linear.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))
    linear.out_features, linear.in_features = weight.shape
