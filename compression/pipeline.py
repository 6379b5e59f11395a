"""`lathe compress`: runs a recipe's steps on a parent, proves what the result cost, and writes the bundle."""

import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from tokenizers import Tokenizer

from compression import quantize
from compression.bundle import (
    Bundle,
    DataUsed,
    Figures,
    Manifest,
    ModelFigures,
    ParentModel,
    Runtime,
    RuntimeOptions,
    write_bundle,
)
from compression.bundle.runtime import Logits
from compression.bundle.storage import MODEL, TOKENIZER, require_replaceable
from compression.checkpoint import Parent, load_parent
from compression.classifier import BundleClassifier, ParentClassifier, predict
from compression.data import Columns, Examples, read_examples, require_known_labels, split_examples
from compression.errors import RecipeError, VerificationError
from compression.evaluate import agreement, batch_deviation, fit_temperature, quality
from compression.export import export
from compression.latency import compare_latency
from compression.progress import console
from compression.recipe import Budget, ExportStep, QuantizeStep, Recipe
from compression.report import model_card, report_html

BATCH_EXACT_WITHIN = 1e-4  # of a score; float32 sums in another order stay far below it
_BATCH_PROBE_TEXTS = 64
_TOOLS = ("lathe", "numpy", "onnx", "onnxruntime", "optimum", "optimum-onnx", "tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class _Measured:
    """What the candidate's logits on both splits say."""

    figures: Figures
    temperature: float


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
        measured = _measure(parent, candidate, calibration, test, len(content))
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
            "report.html": report_html(manifest).encode(),
            "README.md": model_card(manifest, out.name).encode(),
        },
    )


def require_budget(figures: Figures, budget: Budget) -> None:
    """Compares what was measured with what was allowed.

    Raises:
        VerificationError: names each bound that was not kept, with both numbers.
    """
    broken = []
    if budget.min_agreement is not None and figures.agreement < budget.min_agreement:
        broken.append(f"agreement {figures.agreement:.4f} is below min_agreement {budget.min_agreement}")
    if budget.max_size_mb is not None and figures.bundle.size_mb > budget.max_size_mb:
        broken.append(f"model.onnx has {figures.bundle.size_mb} MB, above max_size_mb {budget.max_size_mb}")
    if budget.max_accuracy_drop is not None:
        if figures.parent.accuracy is None or figures.bundle.accuracy is None:
            broken.append("max_accuracy_drop needs test texts with labels, and there are none")
        else:
            drop = 100 * (figures.parent.accuracy - figures.bundle.accuracy)
            if drop > budget.max_accuracy_drop:
                broken.append(
                    f"accuracy dropped by {drop:.2f} points, above max_accuracy_drop {budget.max_accuracy_drop}"
                )
    if broken:
        raise VerificationError(f"outside the budget, nothing was written: {'; '.join(broken)}")


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


def _measure(
    parent: Parent, candidate: BundleClassifier, calibration: Examples, test: Examples, size_bytes: int
) -> _Measured:
    reference = ParentClassifier(parent)
    expected = predict(reference, test.texts, "Judge the parent")
    got = predict(candidate, test.texts, "Judge the bundle")
    labelled = calibration.labelled
    temperature = (
        fit_temperature(predict(candidate, labelled.texts, "Fit the temperature"), parent.labels, labelled)
        if len(labelled)
        else 1.0
    )
    figures = Figures(
        parent=_model_figures(expected, parent.labels, test, _weight_bytes(parent)),
        bundle=_model_figures(got, parent.labels, test, size_bytes),
        agreement=agreement(expected, got),
        max_logit_difference=float(np.abs(expected - got).max()),
        batch_deviation=batch_deviation(candidate, test.texts[:_BATCH_PROBE_TEXTS]),
        latency=compare_latency(reference, candidate, test.texts),
    )
    return _Measured(figures, temperature)


def _model_figures(logits: Logits, labels: tuple[str, ...], test: Examples, size_bytes: int) -> ModelFigures:
    result = quality(logits, labels, test)
    return ModelFigures(size_mb=round(size_bytes / 1e6, 2), accuracy=result.accuracy, macro_f1=result.macro_f1)


def _weight_bytes(parent: Parent) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parent.model.parameters())


def _bare_tokenizer(parent: Parent) -> bytes:
    """tokenizer.json without padding or truncation of its own: the runtime does both as the manifest says."""
    tokenizer = Tokenizer.from_str(parent.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return bytes(tokenizer.to_str(), "utf-8")
