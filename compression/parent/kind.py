"""What kind of model a user brings. Lathe takes those that give a text, or a pair of texts, labels or a number, and
says what another one is.

Every check is against an answer that would be wrong without a word: a number read as a class, a token that has no row
in the embedding table.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import transformers
from optimum.exporters.tasks import TasksManager
from safetensors import safe_open
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from compression.errors import CheckpointError
from compression.parent.predictions import REGRESSION, SEVERAL

_TAKES = "Lathe takes models that give labels, or a number, to a text or a pair of texts"
_TASKS = {  # optimum's names of them
    "token-classification": "labels each token",
    "question-answering": "marks an answer in a text",
    "multiple-choice": "chooses between texts",
    "next-sentence-prediction": "says whether one sentence follows another",
}
_SPARSE = {
    "big_bird": "block_sparse",
    "bigbird_pegasus": "block_sparse",
    "longformer": "",  # whatever it is set to
    "led": "",
}
_FLOATS = ("F64", "F32", "F16", "BF16")  # as safetensors names them
_PROMPTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT")
_ADAPTED = {
    "TOKEN_CLS": "labels each token",
    "QUESTION_ANS": "marks an answer in a text",
    "CAUSAL_LM": "writes text",
    "SEQ_2_SEQ_LM": "writes text",
    "FEATURE_EXTRACTION": "gives vectors",
}


def require_classifier(config: PreTrainedConfig, parent: str) -> None:
    """Refuses a config of another task.

    Raises:
        CheckpointError: says what the model does and what Lathe takes.
    """
    names = config.architectures or ()
    tasks = {name: task_of(name) for name in names}
    for name, task in tasks.items():
        if task in _TASKS:
            raise CheckpointError(f"{parent}: {name} {_TASKS[task]}; {_TAKES}")
    if "text-classification" not in tasks.values():
        raise CheckpointError(
            f"{parent}: {', '.join(names) or 'this model'} is not fine-tuned for classification; "
            "train a head first: lathe finetune"
        )
    require_answers(config, parent)


def task_of(architecture: str) -> str | None:
    """What models of this class of transformers are for, as optimum names it; None where it has no such class."""
    model_class = getattr(transformers, architecture, None)
    if model_class is None:
        return None
    try:
        return str(TasksManager.infer_task_from_model(model_class))
    except ValueError:  # of all tasks with texts, this one alone has no name there
        return "next-sentence-prediction" if architecture.endswith("ForNextSentencePrediction") else None


def require_answers(config: PreTrainedConfig, parent: str) -> None:
    """Refuses a model whose outputs are neither labels nor one number.

    Raises:
        CheckpointError: as above.
    """
    if config.problem_type == REGRESSION and config.num_labels != 1:
        raise CheckpointError(
            f"{parent}: gives {config.num_labels} numbers to a text (problem_type regression); {_TAKES}"
        )
    if config.problem_type == SEVERAL and config.num_labels == 1:
        raise CheckpointError(
            f"{parent}: has one label, and problem_type {SEVERAL} in its config.json; set that to null for a score "
            "between 0 and 1, as transformers' pipeline gives it"
        )


def require_dense_attention(config: PreTrainedConfig, parent: str) -> None:
    """Refuses a model whose attention changes with the length of a text: a graph holds one way to compute.

    Raises:
        CheckpointError: says which, and what to do.
    """
    sparse = _SPARSE.get(config.model_type)
    if sparse is None or (sparse and getattr(config, "attention_type", None) != sparse):
        return
    remedy = "set attention_type to original_full in its config.json if that is what it was trained with, or " * bool(
        sparse
    )
    raise CheckpointError(
        f"{parent}: {config.model_type} attends to parts of a long text, which an exported graph does not; "
        f"{remedy}fine-tune another encoder: lathe finetune"
    )


def require_one_rotation(config: PreTrainedConfig, window: int, parent: str) -> None:
    """Refuses rotary positions that turn otherwise where a text is long: with any such text, all of its batch would.

    Args:
        window: the longest input, in tokens.

    Raises:
        CheckpointError: says from which length on, and what to do.
    """
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    for parameters in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        limit = parameters.get("original_max_position_embeddings")
        if parameters.get("rope_type") == "longrope" and limit is not None and window > limit:
            raise CheckpointError(
                f"{parent}: its rotary positions (rope_type longrope) turn otherwise from {limit} tokens on, which an "
                f"exported graph does not; set model_max_length in tokenizer_config.json to {limit}, and longer texts "
                "are cut, or fine-tune another model"
            )


def require_float(config: PreTrainedConfig, parent: str | Path) -> None:
    """Refuses a model that somebody has quantized.

    Raises:
        CheckpointError: names the method.
    """
    quantized = getattr(config, "quantization_config", None)
    if quantized:
        method = quantized.get("quant_method", "unknown") if isinstance(quantized, dict) else quantized.quant_method
        raise CheckpointError(f"{parent}: is quantized already ({method}); pass the original, in float")


def require_float_weights(files: Iterable[Path], folder: Path) -> None:
    """Refuses weights that are whole numbers, or of 8 bits: without their scales they are another model's.

    Raises:
        CheckpointError: names one of them.
    """
    for path in files:
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118  (not a dict)
                stored = file.get_slice(name).get_dtype()
                if "weight" in name.rpartition(".")[2] and stored not in _FLOATS:
                    raise CheckpointError(
                        f"{folder}: is quantized already ({name} is stored as {stored}); pass the original, in float"
                    )


def require_classifying_adapter(folder: Path) -> None:
    """Refuses a peft adapter that was trained for another task, or that has no place in the weights.

    Raises:
        CheckpointError: as above; or its config cannot be read.
    """
    try:
        config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        task, kind = config.get("task_type"), config.get("peft_type")
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder}: its adapter_config.json is no JSON object; save the adapter again") from error
    if kind in _PROMPTS:
        raise CheckpointError(
            f"{folder}: its adapter puts what it learned beside the text (peft_type {kind}), which cannot be "
            "merged into weights; train one with LoRA: lathe finetune --lora-rank 16"
        )
    if task in _ADAPTED:
        raise CheckpointError(f"{folder}: its adapter {_ADAPTED[task]} (task_type {task}); {_TAKES}")


def require_rows_for_all_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, parent: str) -> None:
    """Refuses a tokenizer with tokens that the embedding table has no row for.

    Raises:
        CheckpointError: names one of them.
    """
    rows = len(model.get_input_embeddings().weight)
    beyond = sorted((index, token) for token, index in tokenizer.get_vocab().items() if index >= rows)
    if beyond:
        raise CheckpointError(
            f"{parent}: its tokenizer has {len(beyond)} tokens that the embedding table has no row for, "
            f"{beyond[0][1]!r} among them; remove them from the tokenizer, or train with "
            "model.resize_token_embeddings(len(tokenizer))"
        )


def require_complete(
    model: PreTrainedModel, missing: Iterable[str], unexpected: Iterable[str], folder: Path, new_head: bool
) -> None:
    """Refuses a model with weights that are not in its files, and would be random.

    Args:
        missing: names of weights that the model has and the files have not, or have in another shape.
        unexpected: names that are in the files alone.
        new_head: the head and the pooler, which feeds only the head, are going to be trained.

    Raises:
        CheckpointError: names one of them.
    """

    def of_encoder(name: str) -> bool:
        return name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name

    lacking = sorted(name for name in missing if not new_head or of_encoder(name))
    if not lacking:
        return
    if any("_orig_mod." in name for name in unexpected):
        remedy = "torch.compile had wrapped it: save model._orig_mod"
    elif any(map(of_encoder, lacking)):
        remedy = "save the model again"
    else:
        remedy = "save the model again, or train what is missing: lathe finetune"
    raise CheckpointError(f"{folder}: {len(lacking)} weights are not in its files, {lacking[0]} among them; {remedy}")
