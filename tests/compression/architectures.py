"""Tiny untrained classifiers of the supported architectures, and of one that cannot be pruned."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
)

SIZES: dict[str, Any] = {
    "vocab_size": 70, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip


_CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "bert": lambda: BertConfig(**SIZES),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=70, dim=32, n_layers=2, n_heads=4, hidden_dim=48, initializer_range=0.3
    ),
    "roberta": lambda: RobertaConfig(**SIZES),
    "electra": lambda: ElectraConfig(**SIZES, embedding_size=16),
    "mpnet": lambda: MPNetConfig(**SIZES),
    "deberta-v2": lambda: DebertaV2Config(
        **SIZES, relative_attention=True, position_buckets=16, pos_att_type=["p2c", "c2p"], share_att_key=True,
        norm_rel_ebd="layer_norm", position_biased_input=False, max_relative_positions=-1,
    ),
    # One layer sees all of a text, the next two tokens to either side.
    "modernbert": lambda: ModernBertConfig(
        **SIZES, initializer_cutoff_factor=10.0, global_attn_every_n_layers=2, local_attention=4,
        pad_token_id=1, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3,
    ),
}  # fmt: skip


def classifier(architecture: str) -> PreTrainedModel:
    """An untrained classifier of two layers with four heads."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(_CONFIGS[architecture]())
    return model
