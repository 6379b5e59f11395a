"""Keys and tokens side by side: people and programs with an issuer's tokens, a scraper with a key."""

from service.access.authenticator import Authenticator, bearer
from service.access.caller import Caller
from service.access.tokens import Tokens
from service.errors import InvalidToken

_KEY = "lathe_"


class KeysOrTokens:
    """What begins as keys do is looked up in the file; all else must be a token."""

    def __init__(self, keys: Authenticator, tokens: Tokens) -> None:
        self._keys = keys
        self._tokens = tokens

    def authenticate(self, authorization: str | None) -> Caller:
        """Who has the key or the token.

        Raises:
            Unauthorized: there is neither, or one that is not let in; a token with the name of a key is not, since
                what both use would be counted together.
            Forbidden: nothing that the token may do is anything here.
        """
        credential = bearer(authorization, "KEY")
        if credential.startswith(_KEY):
            return self._keys.authenticate(authorization)
        caller = self._tokens.check(credential)
        if self._keys.has_name(caller.name):
            raise InvalidToken("the token has the name of a key; name the key otherwise, or take another claim")
        return caller
