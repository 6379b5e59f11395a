"""Which pieces a tokenizer cannot lose: the rules, and why they hold, for WordPiece, BPE and Unigram.

What a smaller vocabulary must keep true, for any text:
    same     if all the pieces that the parent makes of it were kept, the same pieces are made of it
    known    if the parent makes no unknown of it, none is made of it

"Character" is one code point, or one byte of a byte-level BPE, whose alphabet writes each byte as a code point. A
character is *lone* where the vocabulary has it as a piece of its own. Published vocabularies have all their
characters lone; those that somebody cut before may not.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from compression.errors import CheckpointError


@dataclass(frozen=True)
class PieceRules:
    """What to keep of one vocabulary.

    Attributes:
        always: pieces without which `same` or `known` would break.
        ranking: pieces that text can need, those that it probably needs most often first.
        parts: the pieces that a piece is merged from (BPE); they stay as long as it does.
    """

    always: set[str]
    ranking: list[str]
    parts: dict[str, set[str]] = field(default_factory=dict)

    def with_parts(self, pieces: Iterable[str]) -> set[str]:
        """The pieces, their parts, the parts of those, and so on."""
        found: set[str] = set()
        waiting = list(pieces)
        while waiting:
            piece = waiting.pop()
            if piece not in found:
                found.add(piece)
                waiting.extend(self.parts.get(piece, ()))
        return found


def piece_rules(model: dict[str, Any], added: set[str]) -> PieceRules:
    """The rules for the `model` part of a `tokenizer.json`.

    Args:
        added: the tokens that are cut out of a text before the model sees it.

    Raises:
        CheckpointError: a tokenizer that is not made of pieces.
    """
    rules = _RULES.get(model["type"])
    if rules is None:
        raise CheckpointError(
            f"the vocabulary of a {model['type']} tokenizer cannot be pruned, only one of {', '.join(_RULES)}; "
            "leave vocabulary pruning out of the recipe"
        )
    return rules(model, added)


def merged(model: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Left part, right part and result of each merge of a BPE, the one that goes first first."""
    prefix = model["continuing_subword_prefix"] or ""
    for left, right in model["merges"]:
        yield left, right, left + right[len(prefix) :]


def _word_piece(model: dict[str, Any], added: set[str]) -> PieceRules:
    """Greedy, longest match first: a word's first piece is looked up as it is, the others with `##` in front.

    Below, `##c` stands for a piece at the start of the rest of a word, and a character is lone *inside* if the
    vocabulary has `##c`. Kept: each `c` and `##c`, each piece that holds a character which is not lone at that place.

    same: the longest match at each place was kept, and there are no new ones.

    known: say the pruned tokenizer is stuck before character c at place p > 0, which the parent covers with piece u.
    Then c is not lone inside, so u was kept. If u starts the word, both choose it, and pass p. If u starts at p, it
    matches. If u starts between, u is `##xc`: with a boundary elsewhere, say in `(ab)(##xc)` after `ab` was dropped,
    `(a)(##bx)` gets stuck. No cheap rule prevents that, so a vocabulary that has such a u, c not lone, is kept whole.
    At p = 0, u was kept or c is lone. (A piece `##xyz` also matches a word that starts with these very signs; then
    either it was kept or `##x` matches.) The same argument with both sides exchanged: a word that the parent is stuck
    in does not become known, so `same` holds for texts with unknowns too.
    """
    prefix, vocabulary = model["continuing_subword_prefix"], model["vocab"]
    always = {model["unk_token"]}
    for piece in vocabulary:
        inside = piece.startswith(prefix) and len(piece) > len(prefix)
        first, rest = (piece[len(prefix)], piece[len(prefix) + 1 :]) if inside else (piece[:1], piece[1:])
        cut = any(prefix + character not in vocabulary for character in rest)
        if inside and cut and piece not in added:
            return PieceRules(always=set(vocabulary), ranking=[])
        if not rest or cut or (prefix + first if inside else first) not in vocabulary:
            always.add(piece)
    # BERT's placeholders are pieces that no text is made of: brackets are cut off before a word is looked up.
    ranking = sorted((piece for piece in vocabulary if not _PLACEHOLDER.fullmatch(piece)), key=vocabulary.__getitem__)
    return PieceRules(always, ranking)


def _bpe(model: dict[str, Any], added: set[str]) -> PieceRules:
    """Starts from characters, and merges the pair of the first rank until no pair of neighbours has a merge.

    Kept: each character, in all its forms, and each byte; of a kept piece all that it can be merged from.

    same: all that arises on the way to kept pieces was kept, by the second rule, and so was each merge that the parent
    carries out. The pruned tokenizer sees a part of the parent's possible merges at each step, ranked as before, the
    parent's choice among them: it chooses the same. A merge whose result was dropped can never have come first.

    known: an unknown arises from the characters alone, before any merge, and all of these were kept. Only where a
    whole word is looked up first (`ignore_merges`) a piece can hide unknown characters; such a piece is kept.
    """
    vocabulary = model["vocab"]
    prefix, suffix = model["continuing_subword_prefix"] or "", model["end_of_word_suffix"] or ""
    always = _bytes(model) | ({model["unk_token"]} & vocabulary.keys())
    for piece in vocabulary:
        symbols = [prefix * (place > 0) + character for place, character in enumerate(piece)]
        one = len(piece) == 1 or len(piece.removeprefix(prefix).removesuffix(suffix)) <= 1
        hides = model["ignore_merges"] and not {*symbols[:-1], symbols[-1] + suffix} <= vocabulary.keys()
        if one or hides:
            always.add(piece)
    parts: dict[str, set[str]] = {}
    for left, right, piece in merged(model):
        parts.setdefault(piece, set()).update((left, right))
    ranks = {piece: rank for rank, piece in enumerate(parts)}
    return PieceRules(always, sorted(vocabulary, key=lambda piece: ranks.get(piece, len(ranks))), parts)


def _unigram(model: dict[str, Any], added: set[str]) -> PieceRules:
    """The path of the highest sum of scores; a character that is not lone may also be unknown, ten below the lowest.

    Kept: each lone character, each byte, one piece of the lowest score, so that the unknown's does not rise.

    same: the best path is still there, no path is new, no score has changed; of equal paths the same one is found
    first, since the order of the search does not change and no losing path became better.

    known: where all characters are lone, the unknown is no choice; where all bytes are there, it is written with them.
    Else a character that is not lone is only known within longer pieces, as c in `xc`, and when `ab` is dropped,
    `(ab)(xc)` may become worse than `(a)(bx)(unknown)`: such a vocabulary is kept whole. (Added tokens are often such
    pieces, but the model does not get to see them.)
    """
    scores, spelled = dict(model["vocab"]), _bytes(model)
    all_lone = all(piece in added or all(character in scores for character in piece) for piece in scores)
    if not all_lone and spelled != _BYTES:
        return PieceRules(always=set(scores), ranking=[])
    always = {piece for piece in scores if len(piece) == 1} | spelled | {min(scores, key=scores.__getitem__)}
    if model["unk_id"] is not None:
        always.add(model["vocab"][model["unk_id"]][0])
    return PieceRules(always, ranking=sorted(scores, key=scores.__getitem__, reverse=True))


def _bytes(model: dict[str, Any]) -> set[str]:
    """The pieces of the bytes that stand in for a character without a piece."""
    return _BYTES & dict(model["vocab"]).keys() if model["byte_fallback"] else set()


_PLACEHOLDER = re.compile(r"\[unused\d+\]")
_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
_RULES: dict[str, Callable[[dict[str, Any], set[str]], PieceRules]] = {
    "WordPiece": _word_piece,
    "BPE": _bpe,
    "Unigram": _unigram,
}
