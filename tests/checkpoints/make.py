"""Makes the checkpoints beside it: `python -m tests.checkpoints.make`, in an environment with transformers 4 or 5.

One of each architecture, untrained, in half precision, with a tokenizer and with what this version of transformers
answers to a few texts (`answers.json`). Where versions 4 and 5 name a field differently, its value is not the default:
whoever reads the default instead answers something else.
"""

import json
import string
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

FOLDER = Path(__file__).resolve().parent
VERSION_4 = transformers.__version__.startswith("4.")
TEXTS = (
    "a good day",
    "The café is slow, and my card has not arrived.",
    "awful service today; it was the worst bank",
    "x",
    "my card my card my card is lost or stolen, and the new one has not come in the post for a very long time",
)
WORDS = (
    "the", "a", "my", "is", "was", "it", "and", "not", "card", "bank", "service", "today", "good", "great", "awful",
    "slow", "lost", "worst", "arrived", "café", "cafe",
)  # fmt: skip
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
SIZES: dict[str, Any] = {
    "vocab_size": 160, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 130, "initializer_range": 0.3, "pad_token_id": 0,
    "id2label": {0: "negative", 1: "neutral", 2: "positive"}, "label2id": {"negative": 0, "neutral": 1, "positive": 2},
}  # fmt: skip


def word_piece() -> Tokenizer:
    """Of words and letters; its normalizer is none that a class of transformers would make."""
    letters = string.ascii_lowercase + ".,;'é"
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *WORDS]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Lowercase(), normalizers.Replace("slow", "slow slow")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def last_token(tokenizer: Tokenizer) -> Tokenizer:
    """The same without a first token, as decoders have it."""
    tokenizer.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 3)])
    return tokenizer


def model(architecture: str) -> PreTrainedModel:
    """An untrained classifier."""
    torch.manual_seed(0)
    match architecture:
        case "bert":
            return BertForSequenceClassification(BertConfig(**SIZES, layer_norm_eps=1e-3))
        case "roberta":
            return RobertaForSequenceClassification(RobertaConfig(**SIZES, hidden_act="gelu_new"))
        case "modernbert":
            rope: dict[str, Any] = (
                {"global_rope_theta": 80_000.0, "local_rope_theta": 20.0, "global_attn_every_n_layers": 2}
                if VERSION_4
                else {
                    "rope_parameters": {
                        "full_attention": {"rope_type": "default", "rope_theta": 80_000.0},
                        "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
                    },
                    "layer_types": ["full_attention", "sliding_attention"],
                }
            )
            ids = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
            return ModernBertForSequenceClassification(
                ModernBertConfig(**SIZES, **ids, **rope, local_attention=8, reference_compile=False)
            )
        case "deberta-v2":
            return DebertaV2ForSequenceClassification(
                DebertaV2Config(
                    **SIZES, relative_attention=True, position_buckets=16, pos_att_type=["p2c", "c2p"],
                    share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False,
                    max_relative_positions=-1,
                )
            )  # fmt: skip
        case _:
            rope = (
                {"rope_theta": 50.0} if VERSION_4 else {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}
            )
            sizes = {"num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 2, "eos_token_id": 3}
            return Qwen3ForSequenceClassification(Qwen3Config(**SIZES, **sizes, **rope))


def tokenizer(architecture: str) -> PreTrainedTokenizerFast:
    """The tokenizer, generic but for the class that many BERTs of version 4 name."""
    backend = last_token(word_piece()) if architecture == "qwen3" else word_piece()
    settings = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    if architecture == "bert" and VERSION_4:
        return BertTokenizerFast(tokenizer_object=backend, model_max_length=128, mask_token=None, **settings)
    names = ["input_ids", "token_type_ids", "attention_mask"][:: 1 if architecture == "bert" else 2]
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=128, model_input_names=names, **settings)


def make(architecture: str, folder: Path) -> None:
    """Writes one checkpoint, reads it again, and writes what it answers."""
    words = tokenizer(architecture)
    words.save_pretrained(folder)
    written = model(architecture).half()
    written.save_pretrained(folder)
    read = type(written).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    answers = []
    for text in TEXTS:
        ids = words(text)["input_ids"]
        with torch.inference_mode():
            logits = read(
                input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)
            ).logits
        answers.append({"text": text, "ids": ids, "logits": [round(value, 6) for value in logits[0].tolist()]})
    lines = ",\n".join(json.dumps(answer, ensure_ascii=False) for answer in answers)
    (folder / "answers.json").write_text(f"[\n{lines}\n]\n", "utf-8")


if __name__ == "__main__":
    for name in ("bert", "roberta", "modernbert", "deberta-v2", "qwen3"):
        make(name, FOLDER / f"transformers-{4 if VERSION_4 else 5}" / name)
