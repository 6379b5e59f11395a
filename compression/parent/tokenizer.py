"""Loads a parent's tokenizer, and holds it against its tokenizer.json."""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from compression.bundle import Encoded, Input
from compression.errors import CheckpointError

_DECIDES_IDS = ("normalizer", "pre_tokenizer", "model", "post_processor")  # parts of a tokenizer.json


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Loads a fast tokenizer, which makes of a text what its `tokenizer.json` says.

    Raises:
        CheckpointError: there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise CheckpointError(f"{folder}: {type(tokenizer).__name__} has no fast version, which serving needs")
        # Where there is none, transformers 5 makes one of five pieces.
        if not any((folder / name).is_file() for name in ("tokenizer.json", *tokenizer.vocab_files_names.values())):
            raise CheckpointError(f"{folder}: no usable tokenizer: has no tokenizer.json; save the tokenizer there too")
        tokenizer = _as_saved(tokenizer, folder)
    except CheckpointError:
        raise
    except Exception as error:  # tokenizers raises just that; transformers a TypeError where files are missing
        raise CheckpointError(f"{folder}: no usable tokenizer: {error}") from error
    for name in ("is_local", "local_files_only"):  # how it was loaded is no part of what is saved again
        tokenizer.init_kwargs.pop(name, None)
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerFast, inputs: Sequence[Input], max_length: int) -> list[Encoded]:
    """Texts, or pairs, as transformers' pipeline tokenises them: special tokens included, cut to the window.

    Token types are those that the tokenizer gives, and 0 where its model is not asked for any.
    """
    texts = [one if isinstance(one, str) else one[0] for one in inputs]
    pairs = [one[1] for one in inputs if not isinstance(one, str)] or None
    batch = tokenizer(texts, pairs, truncation=True, max_length=max_length)
    ids: list[list[int]] = batch["input_ids"]
    types: list[list[int]] = batch.get("token_type_ids") or [[0] * len(row) for row in ids]
    return [Encoded(*row, truncated=False) for row in zip(ids, types, strict=True)]


def bare(tokenizer: PreTrainedTokenizerFast, max_length: int) -> bytes:
    """tokenizer.json without padding or truncation of its own: the runtime does both as the manifest says.

    But for a parent that keeps the end of a long text: tokenizer.json has a place for that, where the runtime looks.
    """
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    if tokenizer.truncation_side == "left":
        copy.enable_truncation(max_length, direction="left")
    return bytes(copy.to_str(), "utf-8")


def model_inputs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> set[str]:
    """What the model is given: a generic tokenizer names token types, whether or not its model has them."""
    return set(tokenizer.model_input_names) & inspect.signature(model.forward).parameters.keys()


def _as_saved(tokenizer: PreTrainedTokenizerFast, folder: Path) -> PreTrainedTokenizerFast:
    """Where the class makes another tokenizer than the file holds, a generic one of that file.

    Of the file, transformers 5 gives some classes (BERT's, RoBERTa's) the vocabulary alone, and they make the rest as
    they know it: another normalizer is lost without a word. The model was trained with what was saved.
    """
    if not (folder / "tokenizer.json").is_file():
        return tokenizer
    saved = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if _parts(tokenizer.backend_tokenizer) == _parts(saved):
        return tokenizer
    generic = PreTrainedTokenizerFast.from_pretrained(
        folder,
        local_files_only=True,
        model_input_names=tokenizer.model_input_names,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        **tokenizer.special_tokens_map,
    )
    generic.backend_tokenizer.post_processor = saved.post_processor  # add_bos_token in its config has it made anew
    return generic


def _parts(tokenizer: Tokenizer) -> dict[str, Any]:
    state = json.loads(tokenizer.to_str())
    return {name: state[name] for name in _DECIDES_IDS}
