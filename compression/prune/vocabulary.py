"""Vocabulary pruning: drops the pieces that a classifier's texts do not need, and their embedding rows.

In a small multilingual or English encoder most parameters are rows of the word embedding, and one domain uses few of
them (Abdaoui et al. 2020, "Load What You Need"). What has to stay, so that no text becomes unknown and no text of kept
pieces is cut differently, stands in `compression.prune.pieces`. The tokenizer is rewritten as its JSON.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from compression.bundle import Input, texts_of
from compression.errors import CheckpointError
from compression.parent.checkpoint import Parent
from compression.prune.pieces import PieceRules, piece_rules
from compression.prune.renumber import ids_in_settings, renumber

_CONFIG_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")


@dataclass(frozen=True)
class PrunedVocabulary:
    """A smaller tokenizer.

    Attributes:
        tokenizer: the pruned one; its ids run from 0 to len(kept) - 1.
        kept: (pieces,) old ids, `kept[new id]`: ascending, but for the pad token, which keeps its id if it can.
    """

    tokenizer: Tokenizer
    kept: npt.NDArray[np.int64]


def prune_vocabulary(
    tokenizer: Tokenizer, texts: Sequence[Input], keep_most_frequent: int, pad_token_id: int
) -> PrunedVocabulary:
    """Drops all pieces but those that the texts use, those that other texts may not do without, and some frequent ones.

    Any text is then cut into known pieces if it was before, and into the same ones if they are all kept.

    Args:
        tokenizer: WordPiece, BPE or Unigram; left as it is.
        texts: what the model is used on; the pieces of these are kept.
        keep_most_frequent: so many of the pieces that were not needed otherwise stay too, by Unigram score, order of
            the BPE merges, or order of the WordPiece vocabulary.

    Raises:
        CheckpointError: a tokenizer of another kind, or one whose ids do not follow from its pieces.
    """
    state = json.loads(tokenizer.to_str())
    ids: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    pieces = {index: piece for piece, index in ids.items()}
    rules = piece_rules(state["model"], {token["content"] for token in state["added_tokens"]})
    needed = ids_in_settings(state) | {pad_token_id} | _ids_in_texts(tokenizer, texts)
    if unknown := sorted(needed - pieces.keys()):
        raise CheckpointError(
            f"the tokenizer has no piece with id {unknown[0]}, which its settings or its pad token name; "
            "repair its tokenizer.json"
        )
    kept = _order(_choose(rules, {pieces[index] for index in needed}, keep_most_frequent), ids, state, pad_token_id)
    pruned = Tokenizer.from_str(json.dumps(renumber(state, pieces, kept)))
    if pruned.get_vocab(with_added_tokens=True) != {pieces[old]: new for new, old in enumerate(kept)}:
        raise CheckpointError(
            "the tokenizer's ids do not follow from the order of its pieces; save it again, then retry"
        )
    return PrunedVocabulary(pruned, np.asarray(kept, dtype=np.int64))


def prune_parent_vocabulary(parent: Parent, texts: Sequence[Input], keep_most_frequent: int) -> Parent:
    """A copy of the parent with a pruned tokenizer and only the embedding rows that it needs.

    Logits of a text whose pieces were all kept are the same to the bit. The parent is left as it is.

    Raises:
        CheckpointError: as `prune_vocabulary`; no pad token; or the pad token would move in a model that counts its
            positions from it.
    """
    tokenizer = parent.tokenizer
    if tokenizer.pad_token_id is None:
        raise CheckpointError(f"{parent.name}: its tokenizer has no pad token; give it one, and save it again")
    pruned = prune_vocabulary(tokenizer.backend_tokenizer, texts, keep_most_frequent, tokenizer.pad_token_id)
    smaller = PreTrainedTokenizerFast(
        tokenizer_object=pruned.tokenizer,
        model_input_names=tokenizer.model_input_names,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        add_prefix_space=tokenizer.add_prefix_space,  # else a ByteLevel pre-tokenizer is set to False
        **tokenizer.special_tokens_map,
    )
    if smaller.pad_token_id != tokenizer.pad_token_id and _counts_positions_from_padding(parent.model):
        raise CheckpointError(
            f"{parent.name}: positions are counted from the pad token, whose id {tokenizer.pad_token_id} is beyond the "
            f"{len(pruned.kept)} pieces kept; keep more of them"
        )
    return replace(parent, model=_slice_embedding(parent.model, pruned.kept, smaller.pad_token_id), tokenizer=smaller)


def _ids_in_texts(tokenizer: Tokenizer, texts: Sequence[Input]) -> set[int]:
    whole = copy.deepcopy(tokenizer)
    whole.no_truncation()
    whole.no_padding()
    return {
        index
        for given in texts
        for text in texts_of(given)
        for index in whole.encode(text, add_special_tokens=False).ids
    }


def _choose(rules: PieceRules, needed: set[str], keep_most_frequent: int) -> set[str]:
    kept = rules.with_parts(rules.always | needed)
    rest = [piece for piece in rules.ranking if piece not in kept]
    return rules.with_parts(kept.union(rest[:keep_most_frequent]))


def _order(kept: set[str], ids: dict[str, int], state: dict[str, Any], pad_token_id: int) -> list[int]:
    """Old ids in their new order. Behind the model's own pieces come added tokens, so the pad token keeps within."""
    order = sorted(ids[piece] for piece in kept)
    if pad_token_id < len(kept.intersection(dict(state["model"]["vocab"]))):
        order.remove(pad_token_id)
        order.insert(pad_token_id, pad_token_id)
    return order


def _counts_positions_from_padding(model: PreTrainedModel) -> bool:
    """Whether anything but the word embedding knows the pad token, as the positions of RoBERTa and its kin do."""
    words = model.get_input_embeddings()
    return any(getattr(module, "padding_idx", None) is not None for module in model.modules() if module is not words)


def _slice_embedding(model: PreTrainedModel, kept: npt.NDArray[np.int64], pad_token_id: int) -> PreTrainedModel:
    """A deep copy of the model with the rows `kept` of its word embedding, in this order."""
    smaller = copy.deepcopy(model)
    table = smaller.get_input_embeddings()  # (old vocabulary, width)
    rows = table.weight.detach()[torch.from_numpy(kept)]
    padding = None if table.padding_idx is None else pad_token_id
    frozen = not table.weight.requires_grad
    embedding = torch.nn.Embedding(len(kept), rows.shape[1], padding_idx=padding, _weight=rows, _freeze=frozen)
    smaller.set_input_embeddings(embedding)
    new = {int(old): index for index, old in enumerate(kept)}
    smaller.config.vocab_size = len(kept)
    for name in _CONFIG_IDS:
        if (old_id := getattr(smaller.config, name, None)) is not None:
            setattr(smaller.config, name, new.get(old_id))
    return smaller
