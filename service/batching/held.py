"""How many bytes of text the service holds for requests that it has not answered yet, whichever model they are for."""

import sys
from collections import Counter
from collections.abc import Sequence

from service.errors import Overloaded, PayloadTooLarge
from service.tenant import Tenant

_RETRY_AFTER_S = 1


class HeldText:
    """The bound on them. A text has no tokens before it is tokenised, and of a long one most never become any.

    A key may hold as much as is free (dynamic thresholds, Choudhury and Hahne 1998): one alone gets half, k get
    1/(k + 1) each, and there is always room for another.

    Attributes:
        bytes: that are held now, as Python holds them.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._of: Counter[Tenant] = Counter()
        self.bytes = 0

    def take(self, texts: Sequence[str], tenant: Tenant) -> int:
        """Holds texts, until they are given back.

        Args:
            tenant: who sent them.

        Returns:
            the bytes that are to be given back: a text that is encoded meanwhile keeps that, and has grown.

        Raises:
            Overloaded: there is no room for them now.
            PayloadTooLarge: there never is.
        """
        size = sum(map(sys.getsizeof, texts))
        if size > self._max_bytes:
            raise PayloadTooLarge(
                f"the texts take {size} bytes; at most {self._max_bytes} are held at a time: send fewer"
            )
        if self._of[tenant] + size > self._max_bytes - self.bytes:
            raise Overloaded(f"{self.bytes} bytes of text wait to be answered; try again later", _RETRY_AFTER_S)
        self._of[tenant] += size
        self.bytes += size
        return size

    def give_back(self, size: int, tenant: Tenant) -> None:
        """Holds so many bytes less."""
        self.bytes -= size
        self._of[tenant] -= size
        if not self._of[tenant]:
            del self._of[tenant]
