"""What a key may do, for how long, and how it is replaced."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.access.authenticator import Authenticator
from service.access.caller import ANYBODY, SCOPES
from service.access.commands import keys as commands
from service.access.keys import add_key, revoke_key, rotate_key
from service.access.keys_file import read_keys
from service.errors import ConfigurationError, Forbidden, Unauthorized

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def run(file: Path, *arguments: str, standard_input: str = "", code: int = 0) -> str:
    """What `lathe keys` prints."""
    result = CliRunner().invoke(commands, [arguments[0], "--file", str(file), *arguments[1:]], input=standard_input)
    assert result.exit_code == code, result.output
    return result.output


def test_a_key_may_do_what_it_was_made_for_and_no_more(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "shop", ["predict"], ["sentiment"])
    caller = Authenticator(file).authenticate(f"Bearer {key}")
    caller.require_scope("predict")
    caller.require_model("sentiment")
    with pytest.raises(Forbidden, match="--scope admin"):
        caller.require_scope("admin")
    with pytest.raises(Forbidden, match="may not ask 'banking'; it may ask sentiment"):
        caller.require_model("banking")


def test_without_keys_everything_is_allowed() -> None:
    for scope in SCOPES:
        ANYBODY.require_scope(scope)
    ANYBODY.require_model("any")


@pytest.mark.parametrize("admin", [True, False])
def test_a_file_from_before_there_were_scopes_is_read(tmp_path: Path, admin: bool) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "shop")
    content = json.loads(file.read_text())
    for name in ("scopes", "models", "expires"):
        del content["keys"][0][name]
    content["keys"][0]["admin"] = admin
    file.write_text(json.dumps(content))
    caller = Authenticator(file).authenticate(f"Bearer {key}")
    assert caller.scopes == (SCOPES if admin else ("predict", "metrics"))
    caller.require_model("any")


def test_a_key_is_refused_from_its_end_on_and_that_is_known_before(tmp_path: Path) -> None:
    file, now = tmp_path / "keys.json", [NOON]
    key = add_key(file, "shop", expires=NOON + timedelta(hours=1))
    add_key(file, "later", expires=NOON + timedelta(hours=2))
    add_key(file, "never")
    authenticator = Authenticator(file, now=lambda: now[0])
    assert authenticator.authenticate(f"Bearer {key}").name == "shop"
    assert authenticator.next_expiry == (NOON + timedelta(hours=1)).timestamp()
    now[0] += timedelta(hours=1)
    with pytest.raises(Unauthorized, match="has expired, at 2030-01-01 13:00 UTC"):
        authenticator.authenticate(f"Bearer {key}")
    with pytest.raises(Unauthorized, match="unknown or revoked"):  # who has not the secret is not told
        authenticator.authenticate(f"Bearer {key}x")
    assert authenticator.next_expiry == (NOON + timedelta(hours=2)).timestamp()
    now[0] += timedelta(hours=1)
    assert authenticator.next_expiry == float("inf")


def test_a_rotated_key_is_let_in_for_a_while_and_the_new_one_may_do_the_same(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    old = add_key(file, "shop", ["predict"], ["sentiment"], priority="batch")
    new = rotate_key(file, "shop", timedelta(hours=1))
    now = [datetime.now(UTC)]
    authenticator = Authenticator(file, now=lambda: now[0])
    assert authenticator.authenticate(f"Bearer {old}") == authenticator.authenticate(f"Bearer {new}")
    now[0] += timedelta(hours=2)
    assert authenticator.authenticate(f"Bearer {new}").models == ("sentiment",)
    with pytest.raises(Unauthorized, match="expired"):
        authenticator.authenticate(f"Bearer {old}")
    assert {key.name for key in revoke_key(file, "shop")} == {"shop"}
    assert read_keys(file) == ()


def test_rotating_keeps_an_earlier_end(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    end = datetime.now(UTC) + timedelta(minutes=5)
    add_key(file, "shop", expires=end)
    rotate_key(file, "shop", timedelta(days=1))
    assert [key.expires for key in read_keys(file)] == [end, end]


def test_what_cannot_be_rotated_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    add_key(file, "old", expires=datetime.now(UTC) - timedelta(days=1))
    before = file.read_bytes()
    with pytest.raises(ConfigurationError, match="'old' has expired"):
        rotate_key(file, "old", timedelta())
    with pytest.raises(ConfigurationError, match="no key with id or name 'bank'"):
        rotate_key(file, "bank", timedelta())
    with pytest.raises(ConfigurationError, match="no such keys file"):
        rotate_key(tmp_path / "nowhere.json", "shop", timedelta())
    assert file.read_bytes() == before


def test_the_commands_make_show_rotate_check_and_revoke(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = run(
        file,
        "add",
        "shop",
        "--scope",
        "predict",
        "--model",
        "sentiment",
        "--expires",
        "2100-01-31",
        "--priority",
        "batch",
    ).strip()
    about = "predict of sentiment, priority batch, expires 2100-01-31 00:00 UTC"
    assert run(file, "list").strip().endswith(f"shop  {about}")
    assert run(file, "check", standard_input=f"{key}\n").strip().endswith(f"shop  {about}")
    new = run(file, "rotate", "shop", "--keep-hours", "0").strip()
    assert "(expired)" in run(file, "list").splitlines()[0]
    with pytest.raises(ConfigurationError, match="has expired"):
        CliRunner().invoke(commands, ["check", "--file", str(file)], input=key, catch_exceptions=False)
    assert "shop" in run(file, "check", standard_input=new)
    assert run(file, "revoke", "shop").count("revoked") == 2
    assert run(file, "list") == ""


@pytest.mark.parametrize("end", ["0", "-3", "soon", "2001-01-01", "1e99", "9" * 30])
def test_an_end_that_is_none_is_refused_and_nothing_written(tmp_path: Path, end: str) -> None:
    assert "expires" in run(tmp_path / "keys.json", "add", "shop", f"--expires={end}", code=2)
    assert not (tmp_path / "keys.json").exists()
