"""Texts as padded PyTorch batches, the way a parent's own tokenizer makes them."""

import inspect
from collections.abc import Sequence

import torch

from compression.parent.checkpoint import Parent

Batch = dict[str, torch.Tensor]

BATCH_SIZE = 32


def encode(parent: Parent, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, special tokens included, cut to the window."""
    rows: list[list[int]] = parent.tokenizer(list(texts), truncation=True, max_length=parent.max_length)["input_ids"]
    return rows


def collate(parent: Parent, rows: Sequence[Sequence[int]]) -> Batch:
    """Pads on the right to the longest row; holds those inputs that the model takes."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), parent.tokenizer.pad_token_id or 0)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for position, row in enumerate(rows):
        ids[position, : len(row)] = torch.tensor(row)
        mask[position, : len(row)] = 1
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    # A generic tokenizer names token types, whether or not its model has them.
    taken = inspect.signature(parent.model.forward).parameters
    return {
        name: tensor for name, tensor in arrays.items() if name in parent.tokenizer.model_input_names and name in taken
    }


def by_length(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Positions of the rows in groups of BATCH_SIZE, short ones first: padding costs least so."""
    order = sorted(range(len(rows)), key=lambda position: len(rows[position]))
    return [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
