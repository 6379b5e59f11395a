"""Holds an exported graph against the model that it was exported from."""

import numpy as np
import onnx
import onnxruntime
import torch
from optimum.utils import DummyTextInputGenerator, NormalizedConfigManager, NormalizedTextConfig

from compression.bundle import Encoded
from compression.bundle.runtime import session_options
from compression.errors import CheckpointError
from compression.parent.batches import Batch, collate
from compression.parent.checkpoint import Parent

_SIZES = ((1, 1), (1, 9), (3, 17), (10, 5), (2, 200))  # texts, and tokens of the longest
_TOLERANCE = 1e-4  # of the largest logit; exporters that are right stay below 1e-6


def made_up_batch(parent: Parent, texts: int, longest: int) -> Batch:
    """Random tokens, the same for the same sizes: the first text as long as said, each other one shorter and padded.

    Where the model knows types of tokens, the second half of each text has the second type.
    """
    kind = parent.model.config.model_type
    try:
        normalized = NormalizedConfigManager.get_normalized_config_class(kind)
    except KeyError:  # an architecture that optimum has not heard of; nearly all use these names
        normalized = NormalizedTextConfig
    config = normalized(parent.model.config.get_text_config())
    longest = min(longest, parent.max_length)
    made_up = DummyTextInputGenerator("text-classification", config, batch_size=texts, sequence_length=longest)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ids = made_up.generate("input_ids")
    end = config.eos_token_id if config.has_attribute("eos_token_id") else None
    rows = [row[: max(1, longest - 2 * index)] for index, row in enumerate(ids)]
    if isinstance(end, int) and end < config.vocab_size:  # once, at the end: BART reads there
        for row in rows:
            row[row == end] = end - 1 if end else 1
            row[-1] = end
    types = getattr(parent.model.config, "type_vocab_size", None) or 1
    return collate(
        parent,
        [
            Encoded(row.tolist(), [int(types > 1 and 2 * at >= len(row)) for at in range(len(row))], False)
            for row in rows
        ],
    )


def require_exact(parent: Parent, model: onnx.ModelProto) -> None:
    """Compares the logits of graph and parent on batches of several sizes, lengths and paddings.

    Raises:
        CheckpointError: they differ, or the graph cannot be run; names the architecture.
    """
    kind = parent.model.config.model_type
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(0), ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise CheckpointError(f"{parent.name}: the exported graph of {kind} cannot be run: {error}") from error
    for texts, longest in _SIZES:
        batch = made_up_batch(parent, texts, longest)
        with torch.inference_mode():
            expected = parent.model(**batch).logits.float().numpy()
        try:
            (got,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in batch.items()})
        except Exception as error:
            raise CheckpointError(
                f"{parent.name}: the exported graph of {kind} fails on {texts} texts of {longest} tokens: {error}"
            ) from error
        difference = float(np.abs(got - expected).max())
        if got.shape != expected.shape or not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise CheckpointError(
                f"{parent.name}: the exported graph of {kind} answers {texts} texts of {longest} tokens otherwise than "
                f"the model, by {difference:.2g}; this architecture cannot be compressed"
            )
