"""Holds the fields of a config.json against what transformers makes of them: none may be replaced by a default unsaid.

Versions 4 and 5 of transformers name some fields differently, and a config takes any field that it does not know as an
attribute that nothing reads. What that costs is not an error but another model.
"""

import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedConfig

from compression.errors import CheckpointError
from compression.progress import warn

# Of labels and of loading, which are looked at elsewhere; of training, of generating text, and of a file's history.
_SAYS_NOTHING_OF_THE_ANSWER = frozenset(
    """
    architectures auto_map dtype id2label label2id model_type problem_type return_dict torch_dtype transformers_version
    bad_words_ids begin_suppress_tokens bos_token_id decoder_start_token_id diversity_penalty do_sample early_stopping
    encoder_no_repeat_ngram_size eos_index eos_token_id exponential_decay_length_penalty forced_bos_token_id
    forced_eos_token_id length_penalty max_length min_length no_repeat_ngram_size num_beam_groups num_beams
    num_logits_to_keep num_return_sequences output_past output_scores remove_invalid_values repetition_penalty
    return_dict_in_generate suppress_tokens temperature top_k top_p typical_p use_cache
    adapters aux_loss_alpha directionality finetuning_task gradient_checkpointing initializer_range model_max_length
    output_attentions output_hidden_states pooler_fc_size pooler_hidden_size pooler_num_attention_heads
    pooler_num_fc_layers pooler_size_per_head pooler_type prefix reference_compile repad_logits_with_grad seq_aux
    sep_token_id sparse_prediction task_specific_params tf_legacy_loss tie_encoder_decoder tie_word_embeddings
    tokenizer_class torchscript untie_r use_bfloat16 verbose
    """.split()  # noqa: SIM905  (a list of so many strings is a page)
)


def _theta(layers: str) -> Callable[[PreTrainedConfig], Any]:
    """The base of the rotary positions in this kind of layers, or in all."""

    def of(config: PreTrainedConfig) -> Any:
        rope = getattr(config, "rope_parameters", None) or {}
        return rope.get(layers, rope).get("rope_theta")

    return of


def _rotary_part(config: PreTrainedConfig) -> Any:
    rope = getattr(config, "rope_parameters", None) or {}
    return rope.get("full_attention", rope).get("partial_rotary_factor")


def _scaling(config: PreTrainedConfig) -> Any:
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    return {**rope, "type": rope.get("rope_type")}


def _layers_of_a_kind(config: PreTrainedConfig) -> Any:
    """Every how many layers one attends to the whole text; a range where only the first of them does."""
    kinds = getattr(config, "layer_types", None) or []
    every = kinds[1:].index("full_attention") + 1 if "full_attention" in kinds[1:] else None
    return range(len(kinds), sys.maxsize) if every is None else every


# Fields of version 4 that version 5 keeps elsewhere, and where.
_MOVED: dict[str, Callable[[PreTrainedConfig], Any]] = {
    "rope_theta": _theta("full_attention"),
    "rotary_emb_base": _theta("full_attention"),
    "global_rope_theta": _theta("full_attention"),
    "local_rope_theta": _theta("sliding_attention"),
    "rope_local_base_freq": _theta("sliding_attention"),
    "partial_rotary_factor": _rotary_part,
    "rotary_pct": _rotary_part,
    "rope_scaling": _scaling,
    "global_attn_every_n_layers": _layers_of_a_kind,
}
# Fields that decide what is computed wherever they are read, and the one value that means the same where they are not.
_ELSE_COMPUTES: dict[str, Any] = {"position_embedding_type": "absolute", "pruned_heads": {}, "rope_parameters": {}}


def require_all_read(config: PreTrainedConfig, folder: Path, given: Collection[str] = ()) -> None:
    """Refuses a config of which a field is read as a default, and warns of fields that nothing reads.

    Args:
        folder: where its config.json lies.
        given: names of fields that the caller has set to something else.

    Raises:
        CheckpointError: names the field, what is written, and what would be computed with.
    """
    written: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    known = inspect.signature(type(config)).parameters
    unread = []
    for name, value in written.items():
        if value is None or name in given or name in _SAYS_NOTHING_OF_THE_ANSWER or name.startswith("_"):
            continue
        if name in known or name in config.attribute_map:
            got = getattr(config, name)
            # Another value than the default is what the config has made of several fields.
            if not _holds(got, value) and name in known and _holds(known[name].default, got):
                raise _lost(folder, config, name, value, got)
        elif name in _MOVED:
            if not _holds(got := _MOVED[name](config), value):
                raise _lost(folder, config, name, value, got)
        elif name in _ELSE_COMPUTES:
            if value != _ELSE_COMPUTES[name]:
                raise _lost(folder, config, name, value, None)
        elif value and not _in_the_model(config, name):  # what is switched off needs no reader
            unread.append(name)
    if unread:
        warn(
            f"{folder}: transformers {transformers.__version__} does not read {', '.join(sorted(unread))} in its "
            f"config.json of {config.model_type}; if one of them decides what the model computes, the answers are wrong"
        )


def _in_the_model(config: PreTrainedConfig, name: str) -> bool:
    """Whether the model's own code asks for a field that its config does not declare, as DeBERTa's does."""
    spec = importlib.util.find_spec(type(config).__module__.replace(".configuration_", ".modeling_"))
    if spec is None or spec.origin is None:
        return False
    return re.search(rf"\b{re.escape(name)}\b", Path(spec.origin).read_text("utf-8")) is not None


def _holds(got: Any, written: Any) -> bool:
    """Whether a config's value is what the file has: tuples are lists there, and dicts may have become larger."""
    if isinstance(written, Mapping):
        found = got.to_dict() if isinstance(got, PreTrainedConfig) else got
        return isinstance(found, Mapping) and all(
            value is None or _holds({str(k): v for k, v in found.items()}.get(key), value)
            for key, value in written.items()
        )
    if isinstance(written, list | tuple):
        return isinstance(got, list | tuple) and len(got) == len(written) and all(map(_holds, got, written))
    return written in got if isinstance(got, range) else bool(got == written)


def _lost(folder: Path, config: PreTrainedConfig, name: str, written: Any, got: Any) -> CheckpointError:
    instead = "does not read" if got is None else f"reads as {got!r}"
    return CheckpointError(
        f"{folder}: its config.json has {name} {written!r}, which transformers {transformers.__version__} {instead} in "
        f"{config.model_type}: it would be another model; put config.json right, or fine-tune another encoder: "
        "lathe finetune"
    )
