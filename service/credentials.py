"""Who may ask, as the settings say: whoever has a key or a token, or where there are none, programs on this machine."""

from functools import partial

from service.access.authenticator import Authenticator
from service.access.caller import Limits
from service.access.either import KeysOrTokens
from service.access.issuer import Issuer
from service.access.jwks import parse_jwks, read_jwks
from service.access.keys_file import read_keys
from service.access.local import Access, LocalOnly
from service.access.secret_file import read_pseudonym_key
from service.access.tokens import TokenRules, Tokens
from service.errors import ConfigurationError
from service.settings import Settings
from service.telemetry import Telemetry


def check_credentials(settings: Settings) -> None:
    """Refuses a start beside files, or an issuer, that cannot be read.

    Raises:
        ConfigurationError: names which, and why.
    """
    if settings.keys_file is not None:
        read_keys(settings.keys_file)
    if settings.pseudonym_key_file is not None:
        read_pseudonym_key(settings.pseudonym_key_file)
    if settings.jwt_jwks is not None:
        try:
            parse_jwks(read_jwks(settings.jwt_jwks), settings.jwt_jwks)
        except ConfigurationError as error:
            remedy = (
                "LATHE_JWT_JWKS must name the public keys of an issuer that is there, or a file with a copy of them"
            )
            raise ConfigurationError(f"{error}; {remedy}") from None


def create_access(settings: Settings, telemetry: Telemetry) -> tuple[Access, Issuer | None]:
    """What decides who may ask; and the issuer of tokens, where there is one, whose keys are
    kept up to date until it is closed."""
    keys = None if settings.keys_file is None else Authenticator(settings.keys_file)
    if keys is not None:
        telemetry.keys_file(partial(getattr, keys, "readable"), partial(getattr, keys, "next_expiry"))
    if settings.jwt_issuer is None or settings.jwt_audience is None or settings.jwt_jwks is None:
        return keys or LocalOnly(settings.allowed_hosts), None
    issuer = Issuer(settings.jwt_jwks)
    issuer.start()
    telemetry.issuer(partial(getattr, issuer, "readable"))
    rules = TokenRules(
        settings.jwt_issuer,
        settings.jwt_audience,
        settings.jwt_scopes,
        settings.jwt_leeway_s,
        settings.jwt_name_claim,
        settings.jwt_scope_claim,
        settings.jwt_models_claim,
        Limits.model_validate(settings.jwt_limits) if settings.jwt_limits else None,
    )
    tokens = Tokens(rules, issuer)
    return tokens if keys is None else KeysOrTokens(keys, tokens), issuer
