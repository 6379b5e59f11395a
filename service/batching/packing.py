"""Which waiting texts go together."""

from itertools import chain
from operator import itemgetter

from service.batching.requests import T, Text


def pack(own: list[Text[T]], others: list[Text[T]], max_texts: int, max_tokens: float) -> list[Text[T]]:
    """The first text, and those nearest to it in length that fit.

    Own texts count as twice as near as those of others: they come first, unless that would mean much padding. The first
    text goes in any case, a longer one than a batch may hold too, so that a bound that is too small stops nobody.

    Args:
        own: texts of the key whose turn it is, oldest first; at least one.
        others: texts of the other keys.
        max_tokens: bound of the longest text's tokens times the number of texts.
    """
    first = own[0].tokens
    longest = max(text.tokens for text in chain(own, others))
    count = len(own) + len(others)
    if count <= max_texts and count * longest <= max_tokens:
        return own + others

    near = [(abs(text.tokens - first), text) for text in own[1:]]
    near += [(2 * abs(text.tokens - first) + 1, text) for text in others]
    near.sort(key=itemgetter(0))
    batch, longest = [own[0]], first
    for _, text in near:
        room = max_tokens // (len(batch) + 1)  # tokens that each text may have if one more joins
        if len(batch) == max_texts or longest > room:
            break
        if text.tokens <= room:
            batch.append(text)
            longest = max(longest, text.tokens)
    return batch
