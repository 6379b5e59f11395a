"""Loads a parent's tokenizer, and holds it against its tokenizer.json."""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from compression.bundle import Encoded, Input, require_extra
from compression.errors import CheckpointError
from compression.parent.quiet import quiet, reason
from compression.progress import warn

_OF_PIECES = ("*.model", "*.tiktoken")
_SAVE = "save the tokenizer there too: tokenizer.save_pretrained, in the version that it was trained with"
_ALIKE = (("ＡＢＣ", "ABC"), ("ﬁne", "fine"), ("a\tb", "a b"))  # noqa: RUF001  (they look alike)
_SETTINGS = {  # of tokenizer_config.json, and their names in a part of tokenizer.json
    "normalizer": {
        "do_lower_case": "lowercase", "strip_accents": "strip_accents",
        "tokenize_chinese_chars": "handle_chinese_chars",
    },
    "pre_tokenizer": {"add_prefix_space": "add_prefix_space"},
}  # fmt: skip
_DECIDES_IDS = ("normalizer", "pre_tokenizer", "model", "post_processor")  # parts of a tokenizer.json


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Loads a fast tokenizer, which makes of a text what its `tokenizer.json` says.

    Where there is none, transformers makes one of the vocabulary, or of the file of sentencepiece or tiktoken.

    Raises:
        CheckpointError: there is nothing to make one of, or what is made is another tokenizer.
        MissingExtra: a package that reads the file is not installed.
    """
    saved = (folder / "tokenizer.json").is_file()
    if not saved and any(file for pattern in _OF_PIECES for file in folder.glob(pattern)):
        require_extra("compress", "sentencepiece", "tiktoken")
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise CheckpointError(f"{folder}: {type(tokenizer).__name__} has no fast version, which serving needs")
        if tokenizer.split_special_tokens:
            raise CheckpointError(
                f"{folder}: split_special_tokens in its tokenizer_config.json has special tokens within a text read as "
                "any others, which no tokenizer.json does; set it to false"
            )
        if saved:
            tokenizer = _as_saved(tokenizer, folder)
        else:
            _require_made(tokenizer, folder)
    except CheckpointError:
        raise
    except Exception as error:  # tokenizers raises just that; transformers a TypeError where files are missing
        why = reason(error) if saved else f"has no tokenizer.json{_beside(folder)}; {_SAVE}"
        raise CheckpointError(f"{folder}: no usable tokenizer: {why}") from error
    for name in ("is_local", "local_files_only"):  # how it was loaded is no part of what is saved again
        tokenizer.init_kwargs.pop(name, None)
    return tokenizer


def _require_made(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Refuses what transformers 5 makes where files are missing, and where it forgets the special tokens."""
    kind = type(tokenizer).__name__
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):  # it makes one of these alone
        raise CheckpointError(f"{folder}: no usable tokenizer: has no tokenizer.json{_beside(folder)}; {_SAVE}")
    if tokenizer.cls_token is not None and not set(tokenizer("a")["input_ids"]) & set(tokenizer.all_special_ids):
        raise CheckpointError(
            f"{folder}: has no tokenizer.json, and the {kind} that transformers {transformers.__version__} makes "
            f"puts no {tokenizer.cls_token} before a text; {_SAVE}"
        )
    for pieces in sorted(folder.glob("*.model")):
        if (lost := _lost(tokenizer, pieces)) is not None:
            warn(
                f"{folder}: has no tokenizer.json, and the {kind} that transformers {transformers.__version__} makes "
                f"of {pieces.name} does not read {lost!r} as the file says, so answers to such texts are wrong; {_SAVE}"
            )


def _lost(tokenizer: PreTrainedTokenizerFast, pieces: Path) -> str | None:
    """The first text that a file of sentencepiece takes for a simpler one, and the tokenizer does not."""
    from sentencepiece import SentencePieceProcessor

    try:
        own = SentencePieceProcessor(model_file=str(pieces))
    except RuntimeError:  # a file of tiktoken can have this name
        return None
    for text, simpler in _ALIKE:
        ids = (tokenizer(one)["input_ids"] for one in (text, simpler))
        if own.encode(text) == own.encode(simpler) and next(ids) != next(ids):
            return text
    return None


def _beside(folder: Path) -> str:
    """What lies there in its place."""
    names = sorted(file.name for pattern in (*_OF_PIECES, "vocab*", "merges.txt") for file in folder.glob(pattern))
    return f", and transformers makes none of {', '.join(names)}" if names else ""


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
    saved = _with_settings(Tokenizer.from_file(str(folder / "tokenizer.json")), tokenizer, folder)
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
    generic.backend_tokenizer.normalizer = saved.normalizer
    generic.backend_tokenizer.pre_tokenizer = saved.pre_tokenizer
    return generic


def _with_settings(saved: Tokenizer, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Tokenizer:
    """What a file holds, changed as tokenizer_config.json says: every version of transformers lets that go before."""
    config = folder / "tokenizer_config.json"
    written: dict[str, Any] = json.loads(config.read_text("utf-8")) if config.is_file() else {}
    state = json.loads(saved.to_str())
    for part, settings in _SETTINGS.items():
        fields = state[part] or {}
        if part == "normalizer" and type(tokenizer) is PreTrainedTokenizerFast:  # which knows of no letters' case
            continue
        fields.update(
            {settings[name]: written[name] for name in settings if name in written and settings[name] in fields}
        )
    return Tokenizer.from_str(json.dumps(state))


def _parts(tokenizer: Tokenizer) -> dict[str, Any]:
    state = json.loads(tokenizer.to_str())
    return {name: state[name] for name in _DECIDES_IDS}
