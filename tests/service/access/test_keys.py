import os
import stat
from pathlib import Path

import pytest

from service.access.keys import Authenticator, add_key, read_keys, revoke_key
from service.errors import ConfigurationError, Unauthorized


def test_the_file_holds_hashes_only_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "shop")
    content = file.read_text()
    assert key not in content
    assert key.split("_", 2)[2] not in content
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_key_opens_under_its_name(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    shop, bank = add_key(file, "shop"), add_key(file, "bank")
    authenticator = Authenticator(file)
    assert authenticator.authenticate(f"Bearer {shop}") == "shop"
    assert authenticator.authenticate(f"bearer {bank}") == "bank"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Bearer x", "Basic x", "Bearer ключ"])
def test_anything_else_does_not(tmp_path: Path, header: str | None) -> None:
    add_key(tmp_path / "keys.json", "shop")
    with pytest.raises(Unauthorized):
        Authenticator(tmp_path / "keys.json").authenticate(header)


def test_revoking_takes_effect_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "shop")
    now = [0.0]
    authenticator = Authenticator(file, clock=lambda: now[0])
    revoke_key(file, "shop")
    now[0] = 2.0
    with pytest.raises(Unauthorized):
        authenticator.authenticate(f"Bearer {key}")


def test_a_file_that_breaks_while_running_lets_nobody_in(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "shop")
    now = [0.0]
    authenticator = Authenticator(file, clock=lambda: now[0])
    os.remove(file)
    now[0] = 2.0
    with pytest.raises(Unauthorized):
        authenticator.authenticate(f"Bearer {key}")


def test_names_are_unique_and_must_exist_to_be_revoked(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    add_key(file, "shop")
    with pytest.raises(ConfigurationError, match="'shop'"):
        add_key(file, "shop")
    with pytest.raises(ConfigurationError, match="'bank'"):
        revoke_key(file, "bank")
    revoke_key(file, read_keys(file)[0].id)
    assert read_keys(file) == ()


def test_a_broken_file_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{")
    with pytest.raises(ConfigurationError, match="not a keys file"):
        Authenticator(tmp_path / "keys.json")
