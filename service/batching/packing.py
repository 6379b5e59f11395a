"""Which waiting texts go together."""

from itertools import chain

from service.batching.requests import T, Text


def pack(own: list[Text[T]], others: list[Text[T]], max_texts: int, max_tokens: float) -> list[Text[T]]:
    """The first text, and those nearest to it in length that fit.

    Own texts come before those of others, which thereby get only what this key cannot use. The first text goes in any
    case, a longer one than a batch may hold too, so that a bound that is too small stops nobody.

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

    def distance(text: Text[T]) -> int:
        return abs(text.tokens - first)

    batch, longest = [own[0]], first
    for text in chain(sorted(own[1:], key=distance), sorted(others, key=distance)):
        room = max_tokens // (len(batch) + 1)  # tokens that each text may have if one more joins
        if len(batch) == max_texts or longest > room:
            break
        if text.tokens <= room:
            batch.append(text)
            longest = max(longest, text.tokens)
    return batch
