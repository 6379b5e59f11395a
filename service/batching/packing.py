"""Which waiting texts go together."""

from operator import itemgetter

from service.batching.submissions import T, Text


def pack(
    own: list[Text[T]], others: list[Text[T]], max_texts: int, max_tokens: float, fixed_tokens: float
) -> list[Text[T]]:
    """The first text, and of those nearest to it in length that fit as many as make a token of theirs cheapest.

    Each text that joins shares the fixed cost of the batch, and may cost all of them padding; past some point a batch
    of their own is cheaper for those that are left. Own texts count as twice as near as those of others: they come
    first, unless that would mean much padding. The first text goes in any case, a longer one than a batch may hold too,
    so that a bound that is too small stops nobody.

    Args:
        own: texts of the key whose turn it is, oldest first; at least one.
        others: texts of the other keys.
        max_tokens: bound of the longest text's tokens times the number of texts.
        fixed_tokens: tokens that cost as much as a batch does besides its tokens; infinite where that is not known, and
            a batch takes what fits.
    """
    first = own[0].tokens
    near = [(abs(text.tokens - first), text) for text in own[1:]]
    near += [(2 * abs(text.tokens - first) + 1, text) for text in others]
    near.sort(key=itemgetter(0))
    batch, longest, tokens = [own[0]], first, first
    cheapest, best = 1, first / (fixed_tokens + first)  # texts of the batch so far with most tokens for its cost
    for _, text in near:
        room = max_tokens // (len(batch) + 1)  # tokens that each text may have if one more joins
        if len(batch) == max_texts or longest > room:
            break
        if text.tokens <= room:
            batch.append(text)
            longest = max(longest, text.tokens)
            tokens += text.tokens
            worth = tokens / (fixed_tokens + longest * len(batch))
            if worth >= best:
                cheapest, best = len(batch), worth
    return batch[:cheapest]
