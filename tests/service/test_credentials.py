"""Keys and issuers that cannot be read are refused at start."""

from pathlib import Path

import pytest

from service.credentials import check_credentials
from service.environment import load_settings
from service.errors import ConfigurationError
from tests.authority import AUDIENCE, ISSUER, authority


def test_a_start_beside_an_issuer_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    tokens = {"LATHE_JWT_ISSUER": ISSUER, "LATHE_JWT_AUDIENCE": AUDIENCE}
    with authority() as issuer:
        check_credentials(load_settings(tokens | {"LATHE_JWT_JWKS": issuer.url}))
        issuer.answer(200, b'{"keys": []}')
        for where, fault in (
            (issuer.url, "has no key for RS256, PS256, ES256, EdDSA"),
            ("http://127.0.0.1:1/jwks", "cannot be fetched"),
            (str(tmp_path / "nowhere.json"), "cannot be read"),
        ):
            with pytest.raises(ConfigurationError, match=f"{where}: {fault}.*; LATHE_JWT_JWKS must name"):
                check_credentials(load_settings(tokens | {"LATHE_JWT_JWKS": where}))
    with pytest.raises(ConfigurationError, match="no such keys file"):
        check_credentials(load_settings({"LATHE_KEYS_FILE": str(tmp_path / "keys.json")}))
