"""Tiny untrained classifiers of the supported architectures, and of one that cannot be pruned."""

from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

SIZES: dict[str, Any] = {
    "vocab_size": 70, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip


def classifier(architecture: str) -> PreTrainedModel:
    """An untrained classifier of two layers with four heads."""
    torch.manual_seed(0)
    if architecture == "bert":
        return BertForSequenceClassification(BertConfig(**SIZES))
    if architecture == "distilbert":
        return DistilBertForSequenceClassification(
            DistilBertConfig(vocab_size=70, dim=32, n_layers=2, n_heads=4, hidden_dim=48, initializer_range=0.3)
        )
    if architecture == "roberta":
        return RobertaForSequenceClassification(RobertaConfig(**SIZES))
    if architecture == "electra":
        return ElectraForSequenceClassification(ElectraConfig(**SIZES, embedding_size=16))
    if architecture == "mpnet":
        return MPNetForSequenceClassification(MPNetConfig(**SIZES))
    return DebertaV2ForSequenceClassification(
        DebertaV2Config(
            **SIZES, relative_attention=True, position_buckets=16, pos_att_type=["p2c", "c2p"], share_att_key=True,
            norm_rel_ebd="layer_norm", position_biased_input=False, max_relative_positions=-1,
        )
    )  # fmt: skip
