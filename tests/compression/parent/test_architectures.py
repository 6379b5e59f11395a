"""Architectures beside the common ones: what each takes in, how long a text may be, and that it can be exported."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from compression.bundle import Encoded, Logits
from compression.errors import CheckpointError
from compression.graph.export import export
from compression.measure.latency import compare_latency
from compression.parent.checkpoint import load_parent
from compression.parent.classifier import ParentClassifier, predict
from compression.parent.settings import window
from tests.checkpoints.make import SIZES, last_token, word_piece

POSITIONS = 40
TEXTS = ["a good day", "my card is lost", "my card " * 100]
CONFIG: dict[str, Any] = {**SIZES, "max_position_embeddings": POSITIONS, "eos_token_id": 3}
XLM: dict[str, Any] = {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "pad_index": 0}
BART: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "encoder_ffn_dim": 48,
    "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "bos_token_id": 2, "decoder_start_token_id": 3,
}  # fmt: skip
KINDS: dict[str, tuple[dict[str, Any], int]] = {  # what its config needs besides, and the window
    "Albert": ({"embedding_size": 16}, POSITIONS),
    "Bart": (BART, POSITIONS),
    "Camembert": ({}, POSITIONS - 1),
    "Data2VecText": ({}, POSITIONS - 1),
    "Deberta": ({"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, POSITIONS),
    "Ernie": ({"use_task_id": True}, POSITIONS),
    "EuroBert": ({}, POSITIONS),
    "Flaubert": (XLM, POSITIONS),
    "FNet": ({}, POSITIONS),
    "Gemma3Text": ({"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8}, POSITIONS),
    "IBert": ({}, POSITIONS - 1),
    "Luke": ({"entity_vocab_size": 10, "entity_emb_size": 8}, POSITIONS - 1),
    "MPNet": ({}, POSITIONS - 2),  # whose padding index is 1, whatever its config says
    "RobertaPreLayerNorm": ({}, POSITIONS - 1),
    "Xmod": ({"languages": ["en_XX"], "default_language": "en_XX"}, POSITIONS - 1),
}


def saved(kind: str, folder: Path, limit: int = 10**30) -> Path:
    """A tiny one, whose weights are large enough to tell tokens and positions apart."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**CONFIG, **KINDS[kind][0])
    model: PreTrainedModel = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.25)
    model.save_pretrained(folder)
    backend = last_token(word_piece()) if kind == "Gemma3Text" else word_piece()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=limit, model_input_names=["input_ids", "attention_mask"],
        unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_answered_as_by_transformers_up_to_the_whole_window(kind: str, tmp_path: Path) -> None:
    parent = load_parent(str(saved(kind, tmp_path)))
    assert parent.max_length == KINDS[kind][1]
    assert ParentClassifier(parent).batch_exact == (kind != "FNet")  # which mixes the padding in
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    for text, got in zip(TEXTS, predict(ParentClassifier(parent), TEXTS, ""), strict=True):
        batch = parent.tokenizer(text, truncation=True, max_length=parent.max_length, return_tensors="pt")
        with torch.inference_mode():
            assert got == pytest.approx(model(**batch).logits[0].numpy(), abs=1e-4)


@pytest.mark.parametrize("kind", ["Bart", "Deberta", "Ernie", "Flaubert", "Gemma3Text"])
def test_its_graph_answers_as_it_does(kind: str, tmp_path: Path) -> None:
    assert export(load_parent(str(saved(kind, tmp_path))), 18).graph.output[0].name == "logits"


@pytest.mark.parametrize("limit", [64, 12])
def test_its_speed_is_measured_on_texts_with_special_tokens_inside_the_window(limit: int, tmp_path: Path) -> None:
    classifier = ParentClassifier(load_parent(str(saved("Bart", tmp_path, limit))))
    asked: list[Encoded] = []
    forward = classifier.forward

    def ask(batch: Sequence[Encoded]) -> Logits:
        asked.extend(batch)
        return forward(batch)

    classifier.forward = ask  # type: ignore[method-assign]
    shapes = [(one.batch, one.tokens) for one in compare_latency(classifier, classifier, TEXTS)]
    assert shapes == [(1, min(limit, 24)), (8, min(limit, 24)), (32, min(limit, 32))]
    assert {len(one) for one in asked} == {tokens for _, tokens in shapes}
    for one in asked:  # BART refuses texts without exactly one last token
        assert (one.ids[0], one.ids[-1]) == (2, 3)
        assert one.ids.count(3) == one.ids.count(2) == 1
    assert np.ptp([one.ids[1] for one in asked]) > 0


@pytest.mark.parametrize(
    ("config", "limit", "expected"),
    [
        (transformers.XLNetConfig(d_model=32, n_layer=1, n_head=4), 512, 512),
        (transformers.BloomConfig(hidden_size=32, n_layer=1), 77, 77),
    ],
)
def test_a_model_without_a_limit_takes_the_tokenizers(config: Any, limit: int, expected: int, tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=word_piece(), model_max_length=limit)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    assert window(model, tokenizer) == expected
    tokenizer.model_max_length = 10**30
    with pytest.raises(CheckpointError, match=r"write model_max_length into tokenizer_config\.json"):
        window(model, tokenizer)
