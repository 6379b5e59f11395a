"""Finds and loads a parent: safetensors only, no remote code, no pickle.

PARENT ──┬─ embedded:NAME          an encoder that comes with an installed package, its digest checked
         ├─ local directory ──┬─── adapter_config.json: a peft adapter; its config names the encoder
         │                    └─── config.json: a model of its own
         └─ anything else          a hub id; only json, safetensors and tokenizer files are fetched
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import transformers
from safetensors import SafetensorError
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from compression.bundle import LongTexts, Task
from compression.bundle.tokenizer import WindowTokenizer
from compression.errors import CheckpointError
from compression.parent.adapter import (
    adapter_base,
    adapter_labels,
    adapter_weights,
    fit_vocabulary,
    merge_adapter,
    whole_weights,
)
from compression.parent.files import digest, locate, safetensors_files, settings_digest
from compression.parent.kind import (
    require_answers,
    require_classifier,
    require_classifying_adapter,
    require_complete,
    require_float_weights,
    require_rows_for_all_tokens,
)
from compression.parent.predictions import task_of
from compression.parent.quiet import quiet, reason
from compression.parent.settings import label_names, load_config, settle_padding, window
from compression.parent.tokenizer import bare, load_tokenizer


@dataclass(frozen=True)
class Parent:
    """A fine-tuned classifier in memory.

    Attributes:
        model: in evaluation mode, on the CPU, float32; an adapter is merged in.
        task: what its logits say: the labels, in their order, and how they are given.
        max_length: the model's window in tokens, special tokens included.
        long_texts: what is read of texts that are longer; None: they are cut.
        digest: sha256 over the weights that were read.
        settings_digest: sha256 over the configs that were read; they decide what the weights compute.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    task: Task
    max_length: int
    digest: str
    settings_digest: str
    long_texts: LongTexts | None = None

    @cached_property
    def window_tokenizer(self) -> WindowTokenizer:
        """The one that a bundle of it would have."""
        return WindowTokenizer(bare(self.tokenizer, self.max_length), self.max_length, self.long_texts)

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in the order of the logits."""
        return self.task.labels


def load_parent(parent: str) -> Parent:
    """Loads a fine-tuned classifier.

    Args:
        parent: a local directory (model or peft adapter), a hub id, or `embedded:NAME`.

    Raises:
        CheckpointError: it is not there, holds no safetensors, needs its own code, or is no classifier.
    """
    folder = locate(parent)
    if (folder / "adapter_config.json").is_file():
        return _load_adapter(parent, folder)
    weights = safetensors_files(folder)
    config = load_config(folder)
    require_classifier(config, parent)
    labels = label_names(config, parent)
    tokenizer = load_tokenizer(folder)
    settle_padding(config, tokenizer, parent)
    model = _finite(load_classifier(folder, config), parent)
    require_rows_for_all_tokens(model, tokenizer, parent)
    return Parent(
        name=parent,
        model=model,
        tokenizer=tokenizer,
        task=task_of(config, labels),
        max_length=window(model, tokenizer),
        digest=digest(weights),
        settings_digest=settings_digest(folder),
    )


def load_classifier(
    folder: Path, config: PreTrainedConfig, brought: frozenset[str] = frozenset(), new_head: bool = False
) -> PreTrainedModel:
    """Loads a classifier's weights in float32.

    Args:
        brought: names of weights that come from elsewhere, as an adapter's head does.
        new_head: head and pooler may be missing, or be of other labels; they are random then.

    Raises:
        CheckpointError: the files cannot be read, do not fit the config, or lack weights.
    """
    try:
        require_float_weights(safetensors_files(folder), folder)
        with quiet():
            model, found = AutoModelForSequenceClassification.from_pretrained(
                folder, config=config, use_safetensors=True, local_files_only=True, trust_remote_code=False,
                dtype="float32", output_loading_info=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder}: its weights cannot be read: {error}; save or copy the model again") from error
    except CheckpointError:
        raise
    except Exception as error:  # whatever a model's own code says of a config that it does not expect
        raise CheckpointError(
            f"{folder}: transformers {transformers.__version__} makes no {config.model_type} model of its config.json: "
            f"{reason(error)}; put config.json right"
        ) from error
    assert isinstance(model, PreTrainedModel)
    other_sizes = {name: sizes for name, *sizes in found["mismatched_keys"]}
    if other_sizes and not (new_head or brought):
        name, (in_file, by_config) = min(other_sizes.items())
        raise CheckpointError(
            f"{folder}: its weights do not fit its config.json, which lists {config.num_labels} labels: {name} is "
            f"{tuple(in_file)} in the file, and would be {tuple(by_config)}. Put right id2label, or the sizes"
        )
    require_complete(
        model, {*found["missing_keys"], *other_sizes} - brought, found["unexpected_keys"], folder, new_head
    )
    return model.eval()


def _finite(model: PreTrainedModel, parent: str) -> PreTrainedModel:
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise CheckpointError(
                f"{parent}: the weight {name} holds values that are not finite (NaN or infinity): the training broke "
                "down, or the file is damaged; take an earlier checkpoint"
            )
    return model


def weight_bytes(parent: Parent) -> int:
    """Size of a model's weights as they are in memory."""
    return sum(parameter.numel() * parameter.element_size() for parameter in parent.model.parameters())


def _load_adapter(parent: str, folder: Path) -> Parent:
    require_classifying_adapter(folder)
    weights = adapter_weights(folder)
    encoder, whole = adapter_base(folder), whole_weights(weights)
    base = locate(encoder)
    base_weights = safetensors_files(base)
    config = load_config(base, **adapter_labels(folder, base, whole))
    require_answers(config, parent)
    tokenizer = load_tokenizer(folder if (folder / "tokenizer.json").is_file() else base)
    settle_padding(config, tokenizer, parent)
    model = load_classifier(base, config, frozenset(whole))
    fit_vocabulary(model, whole)
    require_rows_for_all_tokens(model, tokenizer, parent)
    merged = merge_adapter(model, folder, encoder, whole)
    return Parent(
        name=parent,
        model=_finite(merged, parent),
        tokenizer=tokenizer,
        task=task_of(config, label_names(config, parent)),
        max_length=window(merged, tokenizer),
        digest=digest([*base_weights, *weights]),
        settings_digest=settings_digest(base, folder),
    )
