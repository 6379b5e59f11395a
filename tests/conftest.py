"""Tiny models, made here in seconds by the project's own commands: a real tokenizer, real training, real bundles."""

import csv
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from compression.bundle import Bundle, open_bundle
from compression.data import read_examples
from compression.parent.checkpoint import Parent, load_parent
from compression.pipeline import compress
from compression.recipe import load_recipe
from compression.train.finetune import FinetuneOptions, finetune

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"

SENTIMENT = {
    "negative": ["awful", "terrible", "bad", "slow", "angry", "worst", "useless", "broken"],
    "positive": ["great", "lovely", "good", "fast", "happy", "best", "helpful", "perfect"],
}
INTENTS = {
    "card_arrival": ["card", "arrive", "post", "delivery", "waiting", "envelope"],
    "change_pin": ["pin", "change", "number", "digits", "code", "reset"],
    "lost_or_stolen_card": ["lost", "stolen", "wallet", "thief", "gone", "missing"],
}
FILLER = (
    "the", "a", "my", "is", "was", "it", "and", "very", "really", "this", "that", "bank", "app", "today", "service",
    "they", "i", "so", "you", "with",
)  # fmt: skip


def pytest_configure() -> None:
    """A shell starts what it runs in the background with SIGINT ignored, as would be all that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes begin first; one that began last would go on alone while other processes have nothing."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def write_rows(path: Path, words: dict[str, list[str]], count: int, seed: int) -> Path:
    """A csv of made-up texts whose label follows from the words of that label in them."""
    choose = random.Random(seed)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for index in range(count):
            label = sorted(words)[index % len(words)]
            text = choose.choices(FILLER, k=choose.randint(2, 20)) + choose.choices(
                words[label], k=choose.randint(1, 3)
            )
            choose.shuffle(text)
            writer.writerow([" ".join(text), label])
    return path


def make_encoder(folder: Path) -> Path:
    """An untrained BERT of two layers with a WordPiece tokenizer that knows the words above and all letters."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = [*FILLER, *(word for group in (SENTIMENT, INTENTS) for row in group.values() for word in row)]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters), *words]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=64, model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=128, max_position_embeddings=64, pad_token_id=0,
        )
    ).save_pretrained(folder)  # fmt: skip
    return folder


def made_once(path: Path, make: Callable[[Path], object]) -> Path:
    """A file or directory that one of the processes which run the tests makes, and all of them use."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            make(path)
    return path


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A directory for what the whole session shares, in all its processes."""
    base = tmp_path_factory.getbasetemp()
    return (base if worker_id == "master" else base.parent) / "workspace"


@pytest.fixture(scope="session")
def encoder(workspace: Path) -> Path:
    """Directory of the untrained encoder."""
    return made_once(workspace / "encoder", make_encoder)


@pytest.fixture(scope="session")
def sentiment_data(workspace: Path) -> Path:
    """400 labelled texts for the tiny sentiment model."""
    return made_once(workspace / "sentiment.csv", lambda path: write_rows(path, SENTIMENT, 400, seed=1))


def _train(encoder: Path, words: dict[str, list[str]], out: Path, data: Path) -> None:
    validation = write_rows(out.with_suffix(".validation.csv"), words, 60, seed=2)
    options = FinetuneOptions(epochs=4, batch_size=16, learning_rate=3e-3, precision="fp32")
    finetune(str(encoder), read_examples(data), read_examples(validation), out, options)


@pytest.fixture(scope="session")
def sentiment_parent(workspace: Path, encoder: Path, sentiment_data: Path) -> Path:
    """Directory of a fully fine-tuned sentiment classifier."""
    return made_once(workspace / "sentiment-parent", lambda out: _train(encoder, SENTIMENT, out, sentiment_data))


@pytest.fixture(scope="session")
def parent(sentiment_parent: Path) -> Parent:
    """The sentiment classifier in memory."""
    return load_parent(str(sentiment_parent))


def _bundle(parent: Path, data: Path, out: Path) -> Bundle:
    return open_bundle(made_once(out, lambda out: compress(str(parent), data, load_recipe("safe"), out)))


@pytest.fixture(scope="session")
def sentiment_bundle(workspace: Path, sentiment_parent: Path, sentiment_data: Path) -> Bundle:
    """The sentiment classifier as an int8 bundle."""
    return _bundle(sentiment_parent, sentiment_data, workspace / "bundles" / "sentiment")


@pytest.fixture(scope="session")
def intent_bundle(workspace: Path, encoder: Path) -> Bundle:
    """A classifier of three intents as an int8 bundle."""
    data = made_once(workspace / "intents.csv", lambda path: write_rows(path, INTENTS, 400, seed=3))
    parent = made_once(workspace / "intent-parent", lambda out: _train(encoder, INTENTS, out, data))
    return _bundle(parent, data, workspace / "bundles" / "intents")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The labelled public data sets that the shipped adapters are measured on; they are not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the labelled data sets are not beside this repository")
    return SHARED_DATA
