"""What a parent's config.json says: labels, window, padding."""

import unicodedata
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from compression.errors import CheckpointError
from compression.parent.fields import require_all_read
from compression.parent.kind import require_dense_attention, require_float, require_one_rotation
from compression.parent.quiet import reason
from compression.progress import warn

_NO_WINDOW = 10**6  # transformers writes 1e30 where a tokenizer states no limit


def load_config(folder: Path, **overrides: Any) -> PreTrainedConfig:
    """Reads `config.json`; a model that brings code of its own is refused.

    Raises:
        CheckpointError: no readable config, or one that asks for remote code.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: has no config.json; name the directory that the model was saved to")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **overrides)
    except Exception as error:  # whatever a config's own code says of a value that it does not expect
        raise CheckpointError(f"{folder}: its config.json cannot be used: {reason(error)}") from error
    if getattr(config, "auto_map", None):
        raise CheckpointError(
            f"{folder}: config.json asks for code of its own (auto_map), which is never run; "
            "use an architecture that transformers has"
        )
    require_float(config, folder)
    require_dense_attention(config, str(folder))
    config._attn_implementation = None  # a file may ask for what is not installed; each answers alike
    config.return_dict = True  # else outputs are tuples, which nothing here reads
    require_all_read(config, folder, given=overrides)
    return config


def settle_padding(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast, parent: str) -> None:
    """Gives config and tokenizer one padding token: decoders look for the config's to find a text's last token.

    That is the config's, where it is a token. Where it has none, a text alone is read to its end, so that a token is
    taken that does not end one: the tokenizer's padding token, or another of its special ones, which is said.

    Raises:
        CheckpointError: there is none, or the embedding table has no row for the config's.
    """
    given = config.pad_token_id
    if given is not None and given >= 0:
        rows = getattr(config.get_text_config(), "vocab_size", None)
        if rows is not None and given >= rows:
            raise CheckpointError(
                f"{parent}: pad_token_id in its config.json is {given}, and the embedding table has {rows} rows; name "
                "the padding token that it was trained with"
            )
        if given != tokenizer.pad_token_id and given < len(tokenizer):
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(given)
        return
    last = tokenizer("a")["input_ids"][-1:]
    special = (getattr(tokenizer, f"{kind}_token") for kind in ("pad", "eos", "bos", "cls", "sep"))
    token = next((one for one in special if one and [tokenizer.convert_tokens_to_ids(one)] != last), None)
    if token is None:
        raise CheckpointError(
            f"{parent}: neither config.json nor tokenizer has a padding token, which batches need; set "
            "tokenizer.pad_token and model.config.pad_token_id as in its training, and save both again"
        )
    if token != tokenizer.pad_token:
        warn(f"{parent}: neither config.json nor tokenizer has a padding token that ends no text; {token!r} is taken")
        tokenizer.pad_token = token
    config.pad_token_id = tokenizer.pad_token_id


def label_names(config: PreTrainedConfig, parent: str) -> tuple[str, ...]:
    """Label names in the order of the logits.

    Raises:
        CheckpointError: the config's `id2label` does not name each logit once, or a name is more than a line of text.
    """
    names = tuple(str(config.id2label.get(index)) for index in range(config.num_labels))
    if not names or len(set(names)) < len(names) or set(config.id2label) != set(range(len(names))):
        raise CheckpointError(
            f"{parent}: id2label in its config.json is {config.id2label}; labels are numbered from 0 on, each with a "
            "name of its own"
        )
    for name in names:
        if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
            raise CheckpointError(
                f"{parent}: the label {name!r} in its config.json holds a control character; rename it there"
            )
    return names


def window(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> int:
    """The longest input in tokens that both model and tokenizer take.

    Raises:
        CheckpointError: neither has a limit, or it leaves no room for words.
    """
    positions = getattr(model.config, "max_position_embeddings", None) or _NO_WINDOW
    if positions < 0:  # XLNet's way to say that there is no limit
        positions = _NO_WINDOW
    positions -= _before_the_first_position(model)
    longest = int(min(positions, tokenizer.model_max_length))
    if longest >= _NO_WINDOW:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: neither config.json nor tokenizer says how long a text may be; write "
            "model_max_length into tokenizer_config.json"
        )
    special = tokenizer.num_special_tokens_to_add()
    if longest <= special:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: a text may have {longest} tokens, and {special} are special ones, so none is "
            "left for words; put right model_max_length in tokenizer_config.json"
        )
    require_one_rotation(model.config, longest, str(tokenizer.name_or_path))
    return longest


def _before_the_first_position(model: PreTrainedModel) -> int:
    """Rows of the table of positions that no token takes: RoBERTa and its kin count from behind the padding index."""
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            return int(padding) + 1
    return 0
