"""The ids in a `tokenizer.json`: which ones its settings name, and the same file with other ids.

Ids stand in the model's vocabulary, in the added tokens, in what the post-processor inserts, and in the padding.
"""

from typing import Any

from compression.prune.pieces import merged


def ids_in_settings(state: dict[str, Any]) -> set[int]:
    """Ids of added tokens, and of what the post-processor or the padding inserts."""
    ids = {token["id"] for token in state["added_tokens"]} | set(_post_processor_ids(state["post_processor"]))
    return ids | ({state["padding"]["pad_id"]} if state["padding"] else set())


def renumber(state: dict[str, Any], pieces: dict[int, str], kept: list[int]) -> dict[str, Any]:
    """The state of the pruned tokenizer: its pieces, its merges and every id in it.

    Args:
        state: a parsed `tokenizer.json`; left as it is.
        pieces: the piece of each old id.
        kept: old ids, `kept[new id]`, closed under merging: each part of a kept piece was kept too.
    """
    new = {old: index for index, old in enumerate(kept)}
    model = dict(state["model"])
    if model["type"] == "Unigram":
        model["vocab"] = [model["vocab"][old] for old in kept if old < len(model["vocab"])]
        model["unk_id"] = None if model["unk_id"] is None else new[model["unk_id"]]
    else:
        model["vocab"] = {pieces[old]: index for old, index in new.items() if pieces[old] in model["vocab"]}
    if model["type"] == "BPE":
        model["merges"] = [[left, right] for left, right, piece in merged(model) if piece in model["vocab"]]
    added = [token | {"id": new[token["id"]]} for token in state["added_tokens"]]
    return state | {
        "model": model,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "post_processor": _renumber_post_processor(state["post_processor"], new),
        "padding": state["padding"] and state["padding"] | {"pad_id": new[state["padding"]["pad_id"]]},
    }


def _post_processor_ids(processor: dict[str, Any] | None) -> list[int]:
    if processor is None:
        return []
    nested = [index for part in processor.get("processors", ()) for index in _post_processor_ids(part)]
    templated = processor.get("special_tokens", {}).values()
    return (
        nested
        + [index for token in templated for index in token["ids"]]
        + [processor[name][1] for name in ("sep", "cls") if name in processor]
    )


def _renumber_post_processor(processor: dict[str, Any] | None, new: dict[int, int]) -> dict[str, Any] | None:
    if processor is None:
        return None
    result = dict(processor)
    for name in {"sep", "cls"} & processor.keys():  # of BertProcessing and RobertaProcessing: [token, id]
        result[name] = [processor[name][0], new[processor[name][1]]]
    if "special_tokens" in processor:
        result["special_tokens"] = {
            name: token | {"ids": [new[index] for index in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
    if "processors" in processor:
        result["processors"] = [_renumber_post_processor(part, new) for part in processor["processors"]]
    return result
