"""Texts and pairs as padded PyTorch batches, the way a parent's own tokenizer makes them."""

from collections.abc import Sequence

import torch

from compression.bundle import Encoded, Input
from compression.parent import tokenizer
from compression.parent.checkpoint import Parent

Batch = dict[str, torch.Tensor]

BATCH_SIZE = 32
_BATCH_EXACT_WITHIN = 1e-4  # of the largest logit


def encode(parent: Parent, texts: Sequence[Input]) -> list[Encoded]:
    """Each text or pair, special tokens included: what the parent reads of it."""
    if parent.long_texts is not None:
        return [parent.window_tokenizer.encode(text) for text in texts]
    return tokenizer.encode(parent.tokenizer, texts, parent.max_length)


def rows(parent: Parent, texts: Sequence[Input]) -> list[Encoded]:
    """Of each text or pair one row: where it has several windows, one of them, not always the first."""
    return [one.windows[place % len(one.windows)] for place, one in enumerate(encode(parent, texts))]


def collate(parent: Parent, rows: Sequence[Encoded]) -> Batch:
    """Pads on the right to the longest row; holds those inputs that the model takes."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), parent.tokenizer.pad_token_id or 0)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    types = torch.zeros_like(mask)
    for position, row in enumerate(rows):
        ids[position, : len(row)] = torch.tensor(row.ids)
        mask[position, : len(row)] = 1
        types[position, : len(row)] = torch.tensor(row.type_ids)
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    taken = tokenizer.model_inputs(parent.model, parent.tokenizer)
    return {name: tensor for name, tensor in arrays.items() if name in taken}


def is_batch_exact(parent: Parent) -> bool:
    """Whether padding changes no answer: XLNet reads its last token as it stands, and FNet mixes all of them."""
    short, long = encode(parent, ["a", "a b c d e f g h i j k l m n o p"])
    with torch.inference_mode():
        alone, padded = (parent.model(**collate(parent, rows)).logits[0] for rows in ([short], [short, long]))
    return bool((alone - padded).abs().max() <= _BATCH_EXACT_WITHIN * max(1.0, float(alone.abs().max())))


def by_length(rows: Sequence[Encoded]) -> list[list[int]]:
    """Positions of the rows in groups of BATCH_SIZE, short ones first: padding costs least so."""
    order = sorted(range(len(rows)), key=lambda position: len(rows[position]))
    return [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
