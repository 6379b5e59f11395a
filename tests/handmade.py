"""Bundles written by hand in milliseconds, without training: a word has a weight for each label; logits are their sums.

For tests of what is done with bundles, whatever is in them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from compression.bundle import (
    GOLDEN,
    AbstainOptions,
    Bundle,
    DataUsed,
    Figures,
    GoldenAnswers,
    InputKind,
    LongTexts,
    Manifest,
    ModelFigures,
    NumberOptions,
    ParentModel,
    Runtime,
    RuntimeOptions,
    open_bundle,
    write_bundle,
)
from compression.bundle.task import TaskName

LABELS = ("negative", "positive")
WORDS = {"good": (-1.0, 1.0), "bad": (1.0, -1.0)}


def make_bundle(
    path: Path,
    words: Mapping[str, Sequence[float]] = WORDS,
    labels: Sequence[str] = LABELS,
    temperature: float = 1.0,
    golden: GoldenAnswers | None = None,
    model: bytes | None = None,
    thresholds: tuple[float, ...] | None = None,
    number: NumberOptions | None = None,
    inputs: InputKind = "texts",
    abstain: AbstainOptions | None = None,
    long_texts: LongTexts | None = None,
) -> Bundle:
    """Writes a bundle.

    Args:
        words: the weight of a word for each label; other words have none.
        golden: in place of the bundle's own golden answers.
        model: in place of one made of the words.
        thresholds: of the labels, where a text may have several.
        number: where it gives one; `labels` is its name then.
        inputs: where pairs, the words of the second text count against those of the first.
        long_texts: what is read of texts of more than 64 words.
    """
    files = {"model.onnx": model or model_of(words, len(labels), inputs), "tokenizer.json": _tokenizer(words)}
    manifest = Manifest(
        task=_task(thresholds, number),
        inputs=inputs,
        labels=tuple(labels),
        max_length=64,
        runtime=RuntimeOptions(
            pad_token_id=0, batch_exact=True, temperature=temperature, thresholds=thresholds, number=number,
            abstain=abstain,
            long_texts=long_texts,
        ),
        recipe={"name": "handmade"},
        parent=ParentModel(name="none", sha256=""),
        data=DataUsed(
            name="none", sha256="", calibration_texts=0, selection_texts=0, test_texts=0, labelled_test_texts=0
        ),
        figures=Figures(
            parent=ModelFigures(size_mb=1), bundle=ModelFigures(size_mb=1), agreement=1, agreement_low=1,
            agreement_high=1, flipped=0, max_logit_difference=0, batch_texts=0, batch_label_changes=0,
            batch_deviation=0, latency=(),
        ),
        files={},
        tools={},
    )  # fmt: skip
    if golden is None:
        runtime = Runtime.of(write_bundle(path, manifest, files))
        golden = GoldenAnswers.of(runtime.encode, runtime.logits, inputs)
    write_bundle(path, manifest, {**files, GOLDEN: golden.model_dump_json().encode()})
    return open_bundle(path)


def _task(thresholds: tuple[float, ...] | None, number: NumberOptions | None) -> TaskName:
    if number is not None:
        return "text-regression"
    return "text-classification" if thresholds is None else "multi-label-text-classification"


def without_golden(bundle: Bundle) -> Bundle:
    """The same bundle, as it was written before there were golden answers."""
    files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files if name != GOLDEN}
    write_bundle(bundle.path, bundle.manifest, files)
    return open_bundle(bundle.path)


def model_of(words: Mapping[str, Sequence[float]] = WORDS, labels: int = 2, inputs: InputKind = "texts") -> bytes:
    """logits = sum over a text's tokens of their row of the table, (tokens, labels); of a pair, the difference."""
    pairs = inputs == "pairs"
    table = np.array([[0.0] * labels] * 2 + [list(weights) for weights in words.values()], np.float32)
    texts_tokens = ["texts", "tokens"]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["unsigned" if pairs else "rows"]),
            *(_signs() if pairs else ()),
            helper.make_node("ReduceSum", ["rows", "axis"], ["logits"], keepdims=0),
        ],
        "sum_of_words",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, texts_tokens)
            for name in (("input_ids", "token_type_ids") if pairs else ("input_ids",))
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["texts", labels])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([1]), "axis"),
            *([numpy_helper.from_array(np.array([[1.0], [-1.0]], np.float32), "sign_of")] if pairs else []),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _signs() -> list[onnx.NodeProto]:
    """1 for tokens of the first text, -1 for those of the second."""
    return [
        helper.make_node("Gather", ["sign_of", "token_type_ids"], ["signs"]),
        helper.make_node("Mul", ["unsigned", "signs"], ["rows"]),
    ]


def endless_model() -> bytes:
    """A model of two labels whose answers never come: a loop of 2^62 turns."""
    truth = helper.make_tensor_value_info("again", TensorProto.BOOL, [])
    turn = helper.make_graph(
        [helper.make_node("Identity", ["again"], ["still"]), helper.make_node("Identity", ["before"], ["after"])],
        "turn",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            truth,
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    model = onnx.load_from_string(model_of())
    graph = model.graph
    graph.node[1].output[0] = "sums"
    graph.initializer.append(numpy_helper.from_array(np.array(2**62), "turns"))
    graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    graph.node.append(helper.make_node("Loop", ["turns", "yes", "sums"], ["logits"], body=turn))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _tokenizer(words: Mapping[str, Sequence[float]]) -> bytes:
    vocabulary = {"[PAD]": 0, "[UNK]": 1, **{word: number for number, word in enumerate(words, start=2)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return str(tokenizer.to_str()).encode()
