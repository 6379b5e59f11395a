"""`lathe compress`: runs a recipe's steps on a parent, proves what the result cost, and writes the bundle."""

import hashlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from tokenizers import Tokenizer

from compression import quantize
from compression.bundle import Bundle, DataUsed, Manifest, ParentModel, Runtime, RuntimeOptions, write_bundle
from compression.bundle.storage import MODEL, TOKENIZER, require_replaceable
from compression.checkpoint import Parent, load_parent
from compression.classifier import BundleClassifier, ParentClassifier
from compression.data import Columns, Examples, read_examples, require_known_labels, split_examples
from compression.errors import RecipeError
from compression.export import export
from compression.progress import console
from compression.recipe import ExportStep, QuantizeStep, Recipe
from compression.report import model_card, report_html
from compression.verify import BATCH_EXACT_WITHIN, measure, require_budget

_TOOLS = ("lathe", "numpy", "onnx", "onnxruntime", "optimum", "optimum-onnx", "tokenizers", "torch", "transformers")


def compress(parent_name: str, data: Path, recipe: Recipe, out: Path, columns: Columns = Columns()) -> Bundle:
    """Makes a bundle from a fine-tuned classifier. Labels are not needed; where there are some, they are counted.

    Args:
        parent_name: a local directory (model or peft adapter), a hub id, or `embedded:NAME`.
        data: text like the text to be served; one part calibrates, the other judges.

    Raises:
        LatheError: parent, data, recipe or destination cannot be used.
        VerificationError: the result is outside the recipe's budget; nothing is written.
    """
    require_replaceable(out)
    examples = read_examples(data, columns)
    calibration, test = split_examples(examples, data)
    console.print(f"Loading {parent_name}")
    parent = load_parent(parent_name)
    require_known_labels(examples, parent.labels, data)

    model = _run_steps(parent, recipe, calibration)
    content = model.SerializeToString()
    tokenizer = _bare_tokenizer(parent)
    options = RuntimeOptions(
        pad_token_id=parent.tokenizer.pad_token_id or 0,
        disabled_optimizers=("SkipLayerNormFusion",),  # slower than the nodes that it fuses, on CPU
        batch_exact=True,
    )
    with TemporaryDirectory() as folder:
        model_path, tokenizer_path = Path(folder, MODEL), Path(folder, TOKENIZER)
        model_path.write_bytes(content)
        tokenizer_path.write_bytes(tokenizer)
        runtime = Runtime(model_path, tokenizer_path, parent.max_length, options)
        candidate = BundleClassifier(str(out), runtime, parent.labels)
        measured = measure(parent, candidate, calibration, test, len(content))
    require_budget(measured.figures, recipe.budget)

    manifest = Manifest(
        labels=parent.labels,
        max_length=parent.max_length,
        runtime=options.model_copy(
            update={
                "batch_exact": measured.figures.batch_deviation <= BATCH_EXACT_WITHIN,
                "temperature": measured.temperature,
            }
        ),
        recipe=recipe.model_dump(mode="json"),
        parent=ParentModel(name=parent_name, sha256=parent.digest),
        data=DataUsed(
            name=data.name,
            sha256=hashlib.sha256(data.read_bytes()).hexdigest(),
            calibration_texts=len(calibration),
            test_texts=len(test),
            labelled_test_texts=len(test.labelled),
        ),
        figures=measured.figures,
        files={},
        tools={tool: importlib.metadata.version(tool) for tool in _TOOLS},
    )
    return write_bundle(
        out,
        manifest,
        {
            MODEL: content,
            TOKENIZER: tokenizer,
            "report.html": report_html(manifest, measured.evidence).encode(),
            "README.md": model_card(manifest, out.name).encode(),
        },
    )


def _run_steps(parent: Parent, recipe: Recipe, calibration: Examples) -> onnx.ModelProto:
    model = onnx.ModelProto()
    for step in recipe.steps:
        match step:
            case ExportStep():
                console.print("Exporting to ONNX")
                model = export(parent, step.opset)
            case QuantizeStep():
                model = _quantize(parent, model, step, calibration)
    return model


def _quantize(parent: Parent, model: onnx.ModelProto, step: QuantizeStep, calibration: Examples) -> onnx.ModelProto:
    layers = quantize.linears(model)
    for pattern in step.float_layers:
        if not any(pattern in layer.name for layer in layers):
            names = ", ".join(layer.name for layer in layers)
            raise RecipeError(f"float_layers: {pattern!r} matches none of the layers {names}")
    chosen = [layer for layer in layers if not any(pattern in layer.name for pattern in step.float_layers)]
    feeds = _feeds(parent, model, calibration.texts[: step.calibration_texts])
    model = quantize.quantize_linears(model, quantize.calibrate(model, chosen, feeds))
    return quantize.quantize_embeddings(model) if step.embeddings else model


def _feeds(parent: Parent, model: onnx.ModelProto, texts: Sequence[str]) -> list[quantize.Feed]:
    """Each text alone, as the exported model takes it."""
    classifier = ParentClassifier(parent)
    wanted = {value.name for value in model.graph.input}
    feeds = []
    for text in texts:
        encoded = classifier.encode(text)
        arrays = {
            "input_ids": np.array([encoded.ids]),
            "attention_mask": np.ones((1, len(encoded)), np.int64),
            "token_type_ids": np.array([encoded.type_ids]),
        }
        feeds.append({name: array for name, array in arrays.items() if name in wanted})
    return feeds


def _bare_tokenizer(parent: Parent) -> bytes:
    """tokenizer.json without padding or truncation of its own: the runtime does both as the manifest says."""
    tokenizer = Tokenizer.from_str(parent.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return bytes(tokenizer.to_str(), "utf-8")
