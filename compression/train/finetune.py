"""Fine-tunes a model from labelled text: a thin layer over transformers' Trainer and peft.

The result is a plain Hugging Face directory (full) or a peft adapter directory (LoRA), which `lathe compress` takes
like any other parent.
"""

import json
import math
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    PreTrainedConfig,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from compression.bundle.atomic_files import explained, replacing
from compression.data import Examples
from compression.errors import CheckpointError, DataError
from compression.parent.checkpoint import load_classifier
from compression.parent.files import locate, safetensors_files
from compression.parent.inputs import require_pairs
from compression.parent.kind import require_rows_for_all_tokens, task_of
from compression.parent.quiet import quiet
from compression.parent.settings import load_config, settle_padding, window
from compression.parent.tokenizer import encode as tokenise
from compression.parent.tokenizer import load_tokenizer, model_inputs
from compression.progress import console, warn
from compression.train.destination import CHECKPOINTS, OUT_REMEDY, RECORD, require_free
from compression.train.goals import Goal, OneLabel, goal_of, wide
from compression.train.watching import EpochLines

_RATES = {"full": 5e-5, "lora": 1e-3}  # an adapter starts from nothing, with few weights: it takes larger steps
_CHECKED_ROWS = 1000  # training rows that say whether anything was learned, where there is no validation


@dataclass(frozen=True)
class FinetuneOptions:
    """How to train. `lora_rank` 0 trains every weight; otherwise only adapters, pooler and head.

    `learning_rate` None means 5e-5 for every weight, 1e-3 for adapters. `number` says that labels are numbers, which
    the model learns to give.
    """

    epochs: float = 3.0
    batch_size: int = 32
    learning_rate: float | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup_ratio: float = 0.06
    weight_decay: float = 0.01
    dropout: float | None = None  # None keeps the parent's
    label_smoothing: float = 0.0
    gradient_accumulation: int = 1
    early_stopping: int = 0  # evaluations (one an epoch) without a better accuracy before it stops; 0 never stops
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    max_length: int = 128
    seed: int = 0
    lora_rank: int = 0
    lora_alpha: int | None = None  # None means twice the rank
    lora_dropout: float = 0.0
    lora_targets: str = "all-linear"  # or comma-separated module names
    freeze_embeddings: bool = False
    number: bool = False
    number_name: str = "number"


def finetune(
    parent: str,
    train: Examples,
    validation: Examples | None,
    out: Path,
    options: FinetuneOptions,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, float]:
    """Trains, keeps the epoch with the best validation accuracy, and writes it to `out`.

    Where rows have lists of labels, the model is one that gives a text several, and the best micro F1 is kept; where
    they have numbers and `options` say so, one that gives a number, and the least mean absolute error.

    Args:
        parent: an encoder or a classifier: local directory, hub id or `embedded:NAME`.
        validation: rows that choose the epoch; None keeps the last one.
        out: the directory to write, whole or not at all; while it trains, checkpoints lie under `out/checkpoints`.
        resume: go on from the last checkpoint there.
        overwrite: an older model, or a run that was stopped, may be replaced.

    Returns:
        `accuracy` (a fraction; `micro_f1` where rows have lists of labels, `mae` of numbers) and `loss` on the
        validation rows; nothing without them.

    Raises:
        DataError: see `goal_of`; or an option does not suit what is trained.
        CheckpointError: the parent cannot be loaded or trained, `out` is taken, or there is nothing to resume.
        StorageError: `out` cannot be written.
    """
    require_free(out, resume, overwrite)
    goal = goal_of(train, validation, options.number_name if options.number else None)
    if options.label_smoothing and not isinstance(goal, OneLabel):
        have = "numbers" if options.number else "lists"
        raise DataError(f"label smoothing is for one label to a text, and these rows have {have}; leave it out")
    if options.early_stopping and validation is None:
        raise DataError("early stopping needs validation rows, which say when to stop")
    options = replace(options, learning_rate=options.learning_rate or _RATES["lora" if options.lora_rank else "full"])
    set_seed(options.seed)
    folder = locate(parent)
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"{parent}: is an adapter; fine-tune the encoder that its adapter_config.json names")
    safetensors_files(folder)
    before = load_config(folder)
    labels = _in_the_order_of(before, goal.labels, parent)
    config = load_config(
        folder,
        id2label=dict(enumerate(labels)),
        label2id={name: i for i, name in enumerate(labels)},
        problem_type=goal.problem,
    )
    _set_dropout(config, options.dropout)
    tokenizer = load_tokenizer(folder)
    settle_padding(config, tokenizer, parent)
    model = load_classifier(folder, config, new_head=True)
    require_rows_for_all_tokens(model, tokenizer, parent)
    goal.begin(model, kept=before.problem_type == goal.problem and before.num_labels == config.num_labels)
    max_length = min(options.max_length, window(model, tokenizer))
    if train.inputs == "pairs":
        require_pairs(model, tokenizer, max_length, parent)

    typed = "token_type_ids" in model_inputs(model, tokenizer)

    def encode(examples: Examples) -> list[dict[str, Any]]:
        rows = tokenise(tokenizer, examples.texts, max_length)
        targets = [goal.target(label, config) for label in examples.labels]
        return [
            {"input_ids": row.ids, "labels": target, **({"token_type_ids": row.type_ids} if typed else {})}
            for row, target in zip(rows, targets, strict=True)
        ]

    checkpoints, lines = out / CHECKPOINTS, EpochLines(goal.measure, goal.spoken)
    trainer = Trainer(
        model=_trainable(model, parent, options),
        args=_training_arguments(checkpoints, options, len(train), validation is not None, goal),
        train_dataset=encode(train),
        eval_dataset=None if validation is None else encode(validation),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=goal.measured,
        callbacks=[lines, *([EarlyStoppingCallback(options.early_stopping)] if options.early_stopping else [])],
    )
    trainer.remove_callback(PrinterCallback)
    last = get_last_checkpoint(str(checkpoints)) if resume and checkpoints.is_dir() else None
    if resume and last is None:
        raise CheckpointError(f"{checkpoints}: no checkpoint to resume from; leave out --resume")
    if not resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
    with explained(checkpoints, OUT_REMEDY), lines, quiet():
        trainer.train(resume_from_checkpoint=last)
    judges, rows = (train.head(_CHECKED_ROWS), "training rows") if validation is None else (validation, "rows")
    figures = trainer.evaluate(encode(judges))
    doubt = goal.doubt(figures[f"eval_{goal.measure}"], judges.labels, rows)
    if doubt is not None:
        warn(doubt)
    goal.end(trainer.model)
    with replacing(out, OUT_REMEDY) as staging, quiet():
        staging.mkdir()
        _save(trainer.model, config, tokenizer, staging, options, goal)
    return {} if validation is None else {name: figures[f"eval_{name}"] for name in (goal.measure, "loss")}


def _in_the_order_of(config: PreTrainedConfig, labels: list[str], parent: str) -> list[str]:
    """The labels as the parent's head has them, so that what it knows of them stays; else a new head, which is said."""
    if "text-classification" not in map(task_of, config.architectures or ()):
        return labels
    known = [str(config.id2label.get(index)) for index in range(config.num_labels)]
    if sorted(known) == labels:
        return known
    if len(known) != len(labels):
        console.print(f"{parent}: has a head of {len(known)} labels; a new one of {len(labels)} is trained")
    else:
        console.print(f"{parent}: its head of {len(known)} labels is trained on for as many others")
    return labels


def _set_dropout(config: PreTrainedConfig, dropout: float | None) -> None:
    if dropout is None:
        return
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
        if hasattr(config, name):
            setattr(config, name, dropout)


def _trainable(model: PreTrainedModel, parent: str, options: FinetuneOptions) -> Any:
    """The model with what is not to be trained frozen; wrapped by peft for LoRA."""
    if options.lora_rank == 0:
        if options.freeze_embeddings:
            model.get_input_embeddings().requires_grad_(False)
        return model
    from peft import LoraConfig, TaskType, get_peft_model

    targets = options.lora_targets
    heads = [name for name, _ in model.named_children() if name != model.base_model_prefix]
    pooler = ["pooler"] if getattr(model.base_model, "pooler", None) is not None else []
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=options.lora_rank,
        lora_alpha=options.lora_alpha or 2 * options.lora_rank,
        lora_dropout=options.lora_dropout,
        target_modules=targets if targets == "all-linear" else targets.split(","),
        exclude_modules=r".*pooler.*",
        modules_to_save=[*(name for name in heads if name != "dropout"), *pooler],
    )
    try:
        with quiet():
            wrapped = get_peft_model(model, config)
    except ValueError as error:
        raise CheckpointError(f"{parent}: LoRA targets {targets!r} do not fit this model: {error}") from error
    wrapped.peft_config["default"].base_model_name_or_path = parent
    return wrapped


def _training_arguments(
    checkpoints: Path, options: FinetuneOptions, rows: int, validate: bool, goal: Goal
) -> TrainingArguments:
    precision = options.precision
    if precision == "auto":
        precision = "bf16" if has_bf16() else "fp32"
    steps = max(1, math.ceil(rows / options.batch_size / options.gradient_accumulation))
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=64,
        learning_rate=options.learning_rate,
        optim={"adamw": "adamw_torch", "sgd": "sgd"}[options.optimizer],
        lr_scheduler_type=options.schedule,
        warmup_steps=math.ceil(options.warmup_ratio * options.epochs * steps),
        weight_decay=options.weight_decay,
        label_smoothing_factor=options.label_smoothing,
        gradient_accumulation_steps=options.gradient_accumulation,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch" if validate else "no",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=validate,
        metric_for_best_model=goal.measure,
        greater_is_better=goal.higher_is_better,
        logging_steps=max(1, steps // 10),
        seed=options.seed,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def has_bf16() -> bool:
    """Whether this machine computes in bfloat16 at full speed."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _save(
    model: Any, config: PreTrainedConfig, tokenizer: Any, out: Path, options: FinetuneOptions, goal: Goal
) -> None:
    if options.lora_rank:
        model.save_pretrained(out, save_embedding_layers=False)
        # The adapter is stored in half precision, which halves it; peft reads it back into float32.
        path = out / "adapter_model.safetensors"
        stored = {name: tensor if wide(name, goal) else tensor.half() for name, tensor in load_file(path).items()}
        save_file({name: tensor.contiguous() for name, tensor in stored.items()}, path)
        config.save_pretrained(out)  # label names
        (out / "README.md").unlink(missing_ok=True)  # peft's empty template
    else:
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
    record = out / RECORD
    record.write_text(json.dumps(asdict(options), indent=2) + "\n", "utf-8")
    for path in out.glob("*.safetensors"):  # which lets only the owner read it: like any other file instead
        path.chmod(record.stat().st_mode)
