"""Whether a parent reads what the data holds: texts, or pairs of them. Its files do not say which it was trained on."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from compression.bundle import Input, InputKind
from compression.errors import CheckpointError
from compression.parent.checkpoint import Parent
from compression.parent.tokenizer import encode, model_inputs
from compression.progress import warn

_PAIR_LABELS = ({"entailment", "contradiction"}, {"entailment", "not_entailment"})  # nobody gives these to one text
_COMPARED = 200  # pairs


def require_reads(parent: Parent, inputs: InputKind) -> None:
    """Refuses single texts for a model whose labels are of pairs, and pairs that it cannot read.

    Raises:
        CheckpointError: says why, and what to do.
    """
    names = {label.lower() for label in parent.labels}
    if inputs == "texts":
        if any(labels <= names for labels in _PAIR_LABELS):
            raise CheckpointError(
                f"{parent.name}: judges pairs of texts (its labels are {', '.join(sorted(names))}), and the data has "
                "single ones; name the column of the second text with --text-pair-column"
            )
        return
    require_pairs(parent.model, parent.tokenizer, parent.max_length, parent.name)


def require_pairs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, max_length: int, name: str) -> None:
    """Refuses a model that cannot read pairs; warns of a tokenizer that does not tell where the second text begins.

    Args:
        max_length: of an input, in tokens.
        name: of the model, for messages.

    Raises:
        CheckpointError: says why, and what to do.
    """
    special = tokenizer.num_special_tokens_to_add(pair=True)
    if max_length <= special:
        raise CheckpointError(
            f"{name}: an input may have {max_length} tokens, and the {special} special ones of a pair leave no room "
            "for words; put right model_max_length in tokenizer_config.json"
        )
    (probe,) = encode(tokenizer, [("a", "b")], max_length)
    known, highest = getattr(model.config, "type_vocab_size", None), max(probe.type_ids, default=0)
    if "token_type_ids" in model_inputs(model, tokenizer) and known and highest >= known:
        raise CheckpointError(
            f"{name}: its tokenizer gives the second text of a pair the token type {highest}, and the model knows "
            f"{known} types; put right the pair template of its tokenizer.json"
        )
    if not special and tokenizer.num_special_tokens_to_add():
        warn(
            f"{name}: its tokenizer puts special tokens around a text, and none around or between the two of a pair, "
            "so the model hardly sees where the second begins; look at the pair template of its tokenizer.json"
        )


def require_same_framing(parent: Parent, pairs: Sequence[Input]) -> None:
    """Makes sure that a bundle's tokenizer frames pairs as the parent's does, on the first of these.

    Raises:
        CheckpointError: it does not.
    """
    pairs = pairs[:_COMPARED]
    typed = "token_type_ids" in model_inputs(parent.model, parent.tokenizer)
    for expected, pair in zip(encode(parent.tokenizer, pairs, parent.max_length), pairs, strict=True):
        got = parent.window_tokenizer.encode(pair)
        if got.ids != expected.ids or (typed and got.type_ids != expected.type_ids):
            raise CheckpointError(
                f"{parent.name}: its tokenizer makes other tokens of a pair of texts than its tokenizer.json says; "
                "save the tokenizer again as a fast one"
            )
