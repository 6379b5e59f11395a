"""A small Chinese parent, trained from scratch: no published Chinese encoder comes with this repository.

BERT of four layers with a WordPiece vocabulary of the train split: single Chinese characters, as in the published
Chinese BERT (Devlin et al. 2019), and frequent pieces of what is written in letters.
"""

from dataclasses import replace
from pathlib import Path

from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel, BertTokenizerFast, set_seed

from compression.data import Examples, read_examples
from compression.train.finetune import FinetuneOptions, finetune

_WINDOW = 128  # tokens; one review in a hundred of zh_waimai_10k is longer
_TRAINING = FinetuneOptions(epochs=4, learning_rate=5e-4, warmup_ratio=0.1)


def train_chinese_parent(data: Path, folder: Path, window: int = _WINDOW) -> None:
    """Trains the parent, where it is not there yet: a few minutes on one thread.

    Args:
        data: holds train.parquet, and validation.parquet, which chooses the epoch.
        folder: what to write; the untrained encoder is written beside it.
        window: in tokens; texts are cut to it.
    """
    if (folder / "finetune.json").is_file():
        return
    train, validation = (read_examples(data / f"{split}.parquet") for split in ("train", "validation"))
    encoder = _untrained(train, folder.with_name(f"{folder.name}-encoder"), window)
    finetune(str(encoder), train, validation, folder, replace(_TRAINING, max_length=window))


def _untrained(train: Examples, folder: Path, window: int) -> Path:
    pieces = BertWordPieceTokenizer(lowercase=True, strip_accents=False)
    pieces.train_from_iterator(train.texts, vocab_size=6000, limit_alphabet=4000, show_progress=False)
    tokenizer = BertTokenizerFast(tokenizer_object=pieces._tokenizer, model_max_length=window, strip_accents=False)
    tokenizer.save_pretrained(folder)
    set_seed(_TRAINING.seed)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=192, num_hidden_layers=4, num_attention_heads=6, intermediate_size=768,
        max_position_embeddings=window, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder, safe_serialization=True)
    return folder
