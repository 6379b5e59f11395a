"""The lines in which texts wait, one for each key, in order of arrival.

The keys of one priority take turns, as in round robin, a batch each. Interactive keys have four turns where those of
the priority `batch` have one: nobody starves, and who waits for an answer waits for one such batch at most. Who may
hold how much of a full queue follows dominant resource fairness (Ghodsi et al. 2011): a key's share is the larger of
its shares of the texts and of the tokens.
"""

import math
from collections.abc import Iterable
from itertools import chain, islice
from typing import Generic

from service.batching.packing import pack
from service.batching.submissions import Submission, T, Text
from service.tenant import PRIORITIES, Tenant

_IN_A_ROW = 4  # turns of interactive keys while others wait


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
        # Those that are not empty, by priority; the first of each has its turn.
        self._lines: dict[str, dict[Tenant, _Line[T]]] = {priority: {} for priority in PRIORITIES}
        self._in_a_row = 0  # turns that interactive keys had since one of the others had one
        self.texts = 0
        self.tokens = 0

    def __len__(self) -> int:
        return self.texts

    def fits(self, texts: int, tokens: int) -> bool:
        """Whether there is room for so much more."""
        return self.texts + texts <= self._max_texts and self.tokens + tokens <= self._max_tokens

    def within_share(self, tenant: Tenant, texts: int, tokens: int) -> bool:
        """Whether a key would hold, with so much more, no more than its equal share of the queue."""
        line = self._lines[tenant.priority].get(tenant)
        keys = sum(map(len, self._lines.values())) + (line is None)
        if line is not None:
            texts, tokens = texts + len(line.texts), tokens + line.tokens
        return self._share(texts, tokens) * keys <= self._max_texts * self._max_tokens

    def gives_way(self) -> Submission[T]:
        """The newest request of the key with the largest share.

        That share is above the equal one whenever a key within its own does not fit, or all would fit together.
        """
        lines = chain.from_iterable(lines.values() for lines in self._lines.values())
        line = max(lines, key=lambda line: self._share(len(line.texts), line.tokens))
        return next(reversed(line.texts)).submission

    def ahead_of(self, tenant: Tenant, texts: int, tokens: int) -> tuple[int, int]:
        """Texts and tokens computed by the time that so much more of a key is: where keys take turns, of every other
        key as much as of this one, and of the other priority what goes before that or between."""
        lines = self._lines[tenant.priority]
        line = lines.get(tenant)
        if line is not None:
            texts, tokens = texts + len(line.texts), tokens + line.tokens
        if len(lines) > (line is not None):  # not the usual case, and this is asked for every request
            others = [other for other in lines.values() if other is not line]
            texts, tokens = (
                texts + sum(min(texts, len(other.texts)) for other in others),
                tokens + sum(min(tokens, other.tokens) for other in others),
            )
        first = tenant.priority == "interactive"
        waiting = self._lines["batch" if first else "interactive"].values()
        if waiting:
            times = 1 / _IN_A_ROW if first else _IN_A_ROW
            texts += min(math.ceil(texts * times), sum(len(other.texts) for other in waiting))
            tokens += min(math.ceil(tokens * times), sum(other.tokens for other in waiting))
        return texts, tokens

    def add(self, submission: Submission[T]) -> None:
        """Puts a request's texts at the end of its key's line."""
        lines = self._lines[submission.tenant.priority]
        line = lines.get(submission.tenant)
        if line is None:
            line = lines[submission.tenant] = _Line()
        line.texts.update(dict.fromkeys(submission.texts))
        line.tokens += submission.tokens
        self.texts += len(submission.texts)
        self.tokens += submission.tokens
        submission.waiting = len(submission.texts)

    def discard(self, submission: Submission[T]) -> None:
        """Takes out those of a request's texts that still wait."""
        if submission.waiting:
            texts = self._lines[submission.tenant.priority][submission.tenant].texts
            self._remove([text for text in submission.texts if text in texts])

    def take(self, max_texts: int, max_tokens: float, fixed_tokens: float, window: int) -> list[Text[T]]:
        """The next batch, made by `pack`, and the next key's turn after it; looks at no more than `window` texts."""
        lines, rest = self._turn()
        tenant = next(iter(lines))
        line = lines.pop(tenant)
        own = list(islice(line.texts, window))
        after = chain.from_iterable(other.texts for other in chain(lines.values(), rest))
        others = list(islice(after, window - len(own)))
        lines[tenant] = line  # at the end of the turns
        batch = pack(own, others, max_texts, max_tokens, fixed_tokens)
        self._remove(batch)
        return batch

    def _turn(self) -> tuple[dict[Tenant, _Line[T]], Iterable[_Line[T]]]:
        """The lines of the priority whose turn it is, and others whose texts may join: not those of batch keys where
        somebody waits for the answer, which they would make later."""
        interactive, batch = self._lines["interactive"], self._lines["batch"]
        if interactive and (not batch or self._in_a_row < _IN_A_ROW):
            self._in_a_row += 1
            return interactive, ()
        self._in_a_row = 0
        return batch, interactive.values()

    def _remove(self, texts: list[Text[T]]) -> None:
        for text in texts:
            tenant = text.submission.tenant
            lines = self._lines[tenant.priority]
            line = lines[tenant]
            del line.texts[text]
            line.tokens -= text.tokens
            if not line.texts:
                del lines[tenant]
            text.submission.waiting -= 1
            self.tokens -= text.tokens
        self.texts -= len(texts)

    def _share(self, texts: int, tokens: int) -> int:
        """The larger share of the two bounds, times both bounds: exact in whole numbers."""
        return max(texts * self._max_tokens, tokens * self._max_texts)
