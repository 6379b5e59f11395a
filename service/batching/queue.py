"""The lines in which texts wait, one for each key, in order of arrival.

The keys take turns, as in round robin, a batch each. Who may hold how much of a full queue follows dominant resource
fairness (Ghodsi et al. 2011): a key's share is the larger of its shares of the texts and of the tokens.
"""

from itertools import chain, islice
from typing import Generic

from service.batching.packing import pack
from service.batching.submissions import Submission, T, Text


class _Line(Generic[T]):
    """What one key has waiting. A dict in order of arrival, so that anyone can leave in O(1)."""

    __slots__ = ("texts", "tokens")

    def __init__(self) -> None:
        self.texts: dict[Text[T], None] = {}
        self.tokens = 0


class FairQueue(Generic[T]):
    """Bounded in texts and in tokens; knows whose turn it is and who has to give way.

    Attributes:
        texts: texts that wait.
        tokens: their tokens.
    """

    def __init__(self, max_texts: int, max_tokens: int) -> None:
        self._max_texts = max_texts
        self._max_tokens = max_tokens
        self._lines: dict[str, _Line[T]] = {}  # those that are not empty; the first has its turn
        self.texts = 0
        self.tokens = 0

    def __len__(self) -> int:
        return self.texts

    def fits(self, texts: int, tokens: int) -> bool:
        """Whether there is room for so much more."""
        return self.texts + texts <= self._max_texts and self.tokens + tokens <= self._max_tokens

    def within_share(self, tenant: str, texts: int, tokens: int) -> bool:
        """Whether a key would hold, with so much more, no more than its equal share of the queue."""
        line = self._lines.get(tenant)
        keys = len(self._lines) + (line is None)
        if line is not None:
            texts, tokens = texts + len(line.texts), tokens + line.tokens
        return self._share(texts, tokens) * keys <= self._max_texts * self._max_tokens

    def gives_way(self) -> Submission[T]:
        """The newest request of the key with the largest share.

        That share is above the equal one whenever a key within its own does not fit, or all would fit together.
        """
        line = max(self._lines.values(), key=lambda line: self._share(len(line.texts), line.tokens))
        return next(reversed(line.texts)).submission

    def ahead_of(self, tenant: str, texts: int, tokens: int) -> tuple[int, int]:
        """Texts and tokens computed by the time that so much more of a key is: where keys take turns, of every other
        key as much as of this one."""
        line = self._lines.get(tenant)
        if line is not None:
            texts, tokens = texts + len(line.texts), tokens + line.tokens
        if len(self._lines) == (line is not None):  # the usual case, and this is asked for every request
            return texts, tokens
        others = [other for other in self._lines.values() if other is not line]
        return (
            texts + sum(min(texts, len(other.texts)) for other in others),
            tokens + sum(min(tokens, other.tokens) for other in others),
        )

    def add(self, submission: Submission[T]) -> None:
        """Puts a request's texts at the end of its key's line."""
        line = self._lines.get(submission.tenant)
        if line is None:
            line = self._lines[submission.tenant] = _Line()
        line.texts.update(dict.fromkeys(submission.texts))
        line.tokens += submission.tokens
        self.texts += len(submission.texts)
        self.tokens += submission.tokens
        submission.waiting = len(submission.texts)

    def discard(self, submission: Submission[T]) -> None:
        """Takes out those of a request's texts that still wait."""
        if submission.waiting:
            texts = self._lines[submission.tenant].texts
            self._remove([text for text in submission.texts if text in texts])

    def take(self, max_texts: int, max_tokens: float, fixed_tokens: float, window: int) -> list[Text[T]]:
        """The next batch, made by `pack`, and the next key's turn after it; looks at no more than `window` texts."""
        tenant = next(iter(self._lines))
        line = self._lines.pop(tenant)
        own = list(islice(line.texts, window))
        others = list(islice(chain.from_iterable(other.texts for other in self._lines.values()), window - len(own)))
        self._lines[tenant] = line  # at the end of the turns
        batch = pack(own, others, max_texts, max_tokens, fixed_tokens)
        self._remove(batch)
        return batch

    def _remove(self, texts: list[Text[T]]) -> None:
        for text in texts:
            tenant = text.submission.tenant
            line = self._lines[tenant]
            del line.texts[text]
            line.tokens -= text.tokens
            if not line.texts:
                del self._lines[tenant]
            text.submission.waiting -= 1
            self.tokens -= text.tokens
        self.texts -= len(texts)

    def _share(self, texts: int, tokens: int) -> int:
        """The larger share of the two bounds, times both bounds: exact in whole numbers."""
        return max(texts * self._max_tokens, tokens * self._max_texts)
