"""Exports a parent to ONNX through optimum's classic exporter, whose graphs ONNX Runtime can fuse."""

import warnings

import onnx
import onnxruntime
from optimum.exporters.onnx import onnx_export_from_model

from compression.bundle.atomic_files import scratch
from compression.errors import CheckpointError
from compression.parent.checkpoint import Parent


def export(parent: Parent, opset: int) -> onnx.ModelProto:
    """Exports in float32 with dynamic batch and sequence axes, constants folded and identities removed.

    Raises:
        CheckpointError: optimum has no exporter for this architecture.
    """
    with scratch() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracer warnings about the shapes of masks, which the dynamic axes cover
        try:
            onnx_export_from_model(
                parent.model,
                folder,
                opset=opset,
                task="text-classification",
                library_name="transformers",
                do_validation=False,  # the pipeline compares the final model with the parent, on real text
            )
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{parent.name}: {parent.model.config.model_type} cannot be exported: {error}"
            ) from error
        return simplify(onnx.load(folder / "model.onnx"))


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Folds constants and removes what computes nothing; the operators stay those of the ONNX standard."""
    with scratch() as folder:
        path = folder / "simplified.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)
