"""What Lathe makes of each architecture: is the export exact, the answer independent of the batch, how much is gained?

    python -m benchmarks.architectures
    python -m benchmarks.architectures --only modernbert --only deberta-v2

Twice each. A small one of four layers is trained from nothing on the sentiments in examples/customer_messages.csv,
compressed by `safe` and by `balanced`, and judged: that says what holds, not how good a published model becomes. One of
the size that people use, of random weights, is exported and quantized on a few texts: that says size and speed alone.
Results go to benchmarks/architectures.json; those of architectures that were not asked for stay.
"""

import argparse
import csv
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedTokenizerFast

from compression.data import Columns, Examples, read_examples
from compression.errors import CheckpointError
from compression.measure.latency import time_against_first
from compression.measure.machine import this_machine
from compression.parent.checkpoint import weight_bytes
from compression.parent.classifier import ParentClassifier
from compression.pipeline import build, compress, exported, opened
from compression.recipe import Budget, Recipe, load_recipe
from compression.task import open_task
from compression.train.finetune import FinetuneOptions, finetune

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "architectures.json"
MESSAGES = ROOT / "examples" / "customer_messages.csv"
_COLUMNS = Columns(label="sentiment", ignored_labels=("neutral",))
_TRAINING = FinetuneOptions(epochs=12, learning_rate=5e-4, batch_size=16)
_TIMED_TEXTS = 60
_ROUNDS = 5
_INT8 = ({"step": "export"}, {"step": "quantize"})
_SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
_IDS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
_SMALL: dict[str, Any] = {
    "vocab_size": 2000, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128,
    "max_position_embeddings": 130, **_IDS,
}  # fmt: skip
_DEBERTA: dict[str, Any] = {
    "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True, "norm_rel_ebd": "layer_norm",
    "position_biased_input": False, "max_relative_positions": -1,
}  # fmt: skip
_DECODER: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 16}


@dataclass(frozen=True)
class Architecture:
    """One that people fine-tune.

    Attributes:
        config: the name of its class in transformers.
        small: what the small one's config needs besides `_SMALL`.
        real: the name of the size that people use, and its config; None: none is timed.
        last_token: whether it reads a text's last token, and so has no first one.
    """

    config: str
    small: dict[str, Any]
    real: tuple[str, dict[str, Any]] | None = None
    last_token: bool = False


ARCHITECTURES = {
    "bert": Architecture("BertConfig", {}, ("BERT-base", {})),
    "distilbert": Architecture(
        "DistilBertConfig", {"dim": 64, "n_layers": 4, "n_heads": 4, "hidden_dim": 128}, ("DistilBERT-base", {})
    ),
    "roberta": Architecture(
        "RobertaConfig", {}, ("RoBERTa-base", {"vocab_size": 50_265, "max_position_embeddings": 514})
    ),
    "xlm-roberta": Architecture(
        "XLMRobertaConfig", {}, ("XLM-R-base", {"vocab_size": 250_002, "max_position_embeddings": 514})
    ),
    "camembert": Architecture("CamembertConfig", {}),
    "electra": Architecture("ElectraConfig", {"embedding_size": 32}),
    "mpnet": Architecture("MPNetConfig", {}),
    "albert": Architecture("AlbertConfig", {"embedding_size": 32}),
    "deberta-v2": Architecture(
        "DebertaV2Config", {**_DEBERTA, "position_buckets": 32},
        ("DeBERTa-v3-base", {
            **_DEBERTA, "vocab_size": 128_100, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
            "intermediate_size": 3072, "position_buckets": 256, "max_position_embeddings": 512, "type_vocab_size": 0,
        }),
    ),
    "modernbert": Architecture(
        "ModernBertConfig", {"cls_token_id": 2, "sep_token_id": 3, "local_attention": 16},
        ("ModernBERT-base", {"cls_token_id": 2, "sep_token_id": 3, "max_position_embeddings": 512}),
    ),
    "qwen3": Architecture("Qwen3Config", _DECODER, last_token=True),
    "llama": Architecture("LlamaConfig", _DECODER, last_token=True),
    "gemma3_text": Architecture("Gemma3TextConfig", {**_DECODER, "sliding_window": 16}, last_token=True),
}  # fmt: skip


def main() -> None:
    """Measures, and prints a table for docs/compression.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=sorted(ARCHITECTURES), help="may be given again")
    chosen = parser.parse_args().only or list(ARCHITECTURES)
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {"architectures": {}}
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            results["architectures"][name] = {**judged(name, Path(folder)), **timed(name, Path(folder))}
        results["machine"] = asdict(this_machine())
        results["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    print("\n".join(table(results["architectures"])))


def judged(name: str, folder: Path, options: FinetuneOptions = _TRAINING) -> dict[str, Any]:
    """Of a small one that was trained: what `safe` and `balanced` make of it, or why they do not."""
    examples = read_examples(MESSAGES, _COLUMNS)
    parent = trained(name, examples, folder, options)
    result: dict[str, Any] = {}
    for recipe in ("safe", "balanced"):
        try:
            bundle = compress(
                str(parent), MESSAGES, load_recipe(recipe).model_copy(update={"budget": Budget()}),
                folder / recipe, _COLUMNS,
            )  # fmt: skip
        except CheckpointError as error:
            result[recipe] = {"refused": str(error).removeprefix(f"{parent}: ")}
            continue
        figures = bundle.manifest.figures
        result[recipe] = {
            "accuracy_of_parent": figures.parent.accuracy,
            "agreement": figures.agreement,
            "batch_exact": bundle.manifest.runtime.batch_exact,
            "batch_deviation": figures.batch_deviation,
        }
    return result


def trained(name: str, examples: Examples, folder: Path, options: FinetuneOptions) -> Path:
    """Directory of a small classifier of this architecture, trained from nothing."""
    base = folder / "base"
    torch.manual_seed(0)
    AutoModel.from_config(_config(name, {**_SMALL, **ARCHITECTURES[name].small})).save_pretrained(base)
    word_pieces(examples, ARCHITECTURES[name].last_token).save_pretrained(base)
    finetune(str(base), examples.of_split("calibration").labelled, None, folder / "parent", options)
    return folder / "parent"


def timed(name: str, folder: Path) -> dict[str, Any]:
    """Of one of random weights and real size: megabytes, and how many times faster than PyTorch, by texts x tokens."""
    real = ARCHITECTURES[name].real
    if real is None:
        return {}
    examples = read_examples(MESSAGES, Columns())
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(_config(name, {**real[1], **_IDS}))
    model.save_pretrained(folder / "real")
    word_pieces(examples, ARCHITECTURES[name].last_token).save_pretrained(folder / "real")
    data = folder / "texts.csv"
    with data.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in examples.single_texts[:_TIMED_TEXTS])])
    task = open_task(str(folder / "real"), data, Columns(), folder / "cache")
    candidate = build(task, Recipe.model_validate({"schema_version": 1, "name": "int8", "steps": _INT8}))
    with opened(task, candidate) as int8, exported(task) as float32:
        assert float32 is not None  # all are smaller than an ONNX file may be
        models = (ParentClassifier(task.parent), float32, int8)
        _, *speeds = time_against_first(models, examples.texts[:_TIMED_TEXTS], _ROUNDS)
    times = [{f"{batch}x{tokens}": one.median for (batch, tokens), one in speed.items()} for speed in speeds]
    return {
        "real": {
            "size": real[0],
            "parent_mb": round(weight_bytes(task.parent) / 1e6),
            "int8_mb": round(len(candidate.model) / 1e6),
            "onnxruntime": times[0],
            "int8": times[1],
        }
    }


def _config(name: str, values: dict[str, Any]) -> PreTrainedConfig:
    config: Callable[..., PreTrainedConfig] = getattr(transformers, ARCHITECTURES[name].config)
    return config(**values)


def word_pieces(examples: Examples, last_token: bool) -> PreTrainedTokenizerFast:
    """A tokenizer of these texts' pieces; with nothing before the text where its last token is read."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=_SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=_SMALL["vocab_size"], special_tokens=list(_SPECIAL.values()))
    tokenizer.train_from_iterator(examples.single_texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP]" if last_token else "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=128,
        model_input_names=["input_ids", "attention_mask"],
        **_SPECIAL,
    )


def table(architectures: dict[str, Any]) -> Iterator[str]:
    """In Markdown, a row for each."""
    yield (
        "| architecture | `safe`: agreement | `balanced`: agreement | batch-exact | size measured | MB: float32, int8 "
        "| ONNX Runtime float32 / PyTorch | int8 / PyTorch | int8 / ONNX Runtime float32 |"
    )
    yield "| --- | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: |"
    for name, row in architectures.items():
        quality = [
            "not pruned" if "refused" in row[recipe] else f"{row[recipe]['agreement']:.1%}"
            for recipe in ("safe", "balanced")
        ]
        exact = all(row[recipe].get("batch_exact", True) for recipe in ("safe", "balanced"))
        yield "| " + " | ".join([name, *quality, "yes" if exact else "no", *_real_cells(row.get("real"))]) + " |"


def _real_cells(real: dict[str, Any] | None) -> list[str]:
    if real is None:
        return [""] * 5
    onnx, int8 = real["onnxruntime"], real["int8"]
    ratios = (onnx, int8, {shape: int8[shape] / onnx[shape] for shape in int8})
    sizes = f"{real['parent_mb']}, {real['int8_mb']}"
    return [real["size"], sizes, *(", ".join(f"{value:.1f}" for value in one.values()) for one in ratios)]


if __name__ == "__main__":
    main()
