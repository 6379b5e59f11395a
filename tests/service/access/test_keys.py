import errno
import hmac
import json
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.access.authenticator import Authenticator
from service.access.keys import add_key, revoke_key
from service.access.keys_file import read_keys
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
    assert authenticator.authenticate(f"Bearer {shop}").name == "shop"
    assert authenticator.authenticate(f"bearer {bank}").name == "bank"


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


ROW = '{"id": "1", "name": "a", "sha256": "%s", "created": "2026-01-01T00:00:00Z"}' % ("0" * 64)


def in_place(file: Path, make: Callable[[Path], None]) -> None:
    file.unlink()
    make(file)


BREAKS: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-9]),
    "a hash that is none": lambda file: file.write_text(file.read_text().replace('"sha256": "', '"sha256": "é')),
    "one id twice": lambda file: file.write_text(file.read_text().replace('"keys": [', f'"keys": [{ROW},{ROW},')),
    "another file": lambda file: file.write_text("[]"),
    "a pipe": lambda file: in_place(file, os.mkfifo),
    "a directory": lambda file: in_place(file, Path.mkdir),
    "without an end": lambda file: in_place(file, lambda path: path.symlink_to("/dev/zero")),
    "too large": lambda file: file.write_bytes(b" " * (17 << 20)),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_file_that_breaks_is_an_error_and_the_keys_before_stay_for_an_hour(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "shop")
    whole = file.read_bytes()
    now = [0.0]
    authenticator = Authenticator(file, clock=lambda: now[0])
    BREAKS[name](file)
    for now[0] in (2.0, 4.0, 3600.0):
        assert authenticator.authenticate(f"Bearer {key}").name == "shop"
        assert not authenticator.readable
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert str(file) in caplog.text
    assert read_keys_hash(whole) not in caplog.text
    now[0] = 3700.0
    with pytest.raises(Unauthorized):
        authenticator.authenticate(f"Bearer {key}")
    if file.is_dir():
        file.rmdir()
    file.unlink(missing_ok=True)
    file.write_bytes(whole)
    now[0] = 3702.0
    assert authenticator.authenticate(f"Bearer {key}").name == "shop"
    assert authenticator.readable


def read_keys_hash(content: bytes) -> str:
    return str(json.loads(content)["keys"][0]["sha256"])


def test_a_file_that_can_be_read_again_without_a_change_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.json"
    key, other = add_key(file, "shop"), add_key(file, "bank")
    now = [0.0]
    authenticator = Authenticator(file, clock=lambda: now[0])
    revoke_key(file, "bank")
    with monkeypatch.context() as broken:
        broken.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        now[0] = 2.0
        assert authenticator.authenticate(f"Bearer {other}").name == "bank"
    now[0] = 4.0
    assert authenticator.authenticate(f"Bearer {key}").name == "shop"
    with pytest.raises(Unauthorized):
        authenticator.authenticate(f"Bearer {other}")


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "shop")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert Authenticator(file).authenticate(f"Bearer {key}").name == "shop"


def test_a_change_keeps_mode_owner_and_link(tmp_path: Path) -> None:
    file, link = tmp_path / "mounted" / "keys.json", tmp_path / "keys.json"
    add_key(file, "shop")
    file.chmod(0o640)
    if os.geteuid() == 0:  # as an administrator changes the service user's file
        os.chown(file, 12345, 23456)
    before = file.stat()
    link.symlink_to(file)
    add_key(link, "bank")
    revoke_key(link, "shop")
    after = file.stat()
    assert link.is_symlink()
    assert [key.name for key in read_keys(file)] == ["bank"]
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert os.listdir(file.parent) == ["keys.json"]


def test_an_owner_that_cannot_be_kept_stops_the_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.json"
    add_key(file, "shop")
    before, status = file.read_bytes(), file.stat()
    mine = os.stat_result((*status[:4], status.st_uid + 1, *status[5:]))
    monkeypatch.setattr(os, "fstat", lambda _: mine)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(ConfigurationError, match=f"belongs to user {status.st_uid} "):
        add_key(file, "bank")
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["keys.json"]


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    for number in range(8):
        add_key(file, f"old {number}")
    with ThreadPoolExecutor(8) as threads:
        added = threads.map(lambda number: add_key(file, f"new {number}"), range(24))
        list(threads.map(lambda number: revoke_key(file, f"old {number}"), range(8)))
        list(added)
    assert {key.name for key in read_keys(file)} == {f"new {number}" for number in range(24)}


def test_a_check_looks_at_one_key_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.json"
    keys = [add_key(file, f"tenant {number}") for number in range(20)]
    authenticator = Authenticator(file)
    compared: list[str] = []
    compare = hmac.compare_digest

    def count(one: str, other: str) -> bool:
        compared.append(one)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", count)
    assert authenticator.authenticate(f"Bearer {keys[7]}").name == "tenant 7"
    for wrong in (keys[7][:-1] + "x", "lathe_0_x", "x"):
        with pytest.raises(Unauthorized, match="unknown or revoked"):
            authenticator.authenticate(f"Bearer {wrong}")
    assert len(compared) == 4


def test_names_are_unique_and_must_exist_to_be_revoked(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    add_key(file, "shop")
    with pytest.raises(ConfigurationError, match="'shop'"):
        add_key(file, "shop")
    with pytest.raises(ConfigurationError, match="'bank'"):
        revoke_key(file, "bank")
    revoke_key(file, read_keys(file)[0].id)
    assert read_keys(file) == ()


@pytest.mark.parametrize("name", ["", " "])
def test_a_key_is_for_somebody(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="the name of a key is empty"):
        add_key(tmp_path / "keys.json", name)
    assert not (tmp_path / "keys.json").exists()


def test_beside_a_broken_file_nobody_enters_until_it_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "shop")
    whole = file.read_bytes()
    file.write_text("{")
    now = [0.0]
    authenticator = Authenticator(file, clock=lambda: now[0])
    assert not authenticator.readable
    assert "not a keys file" in caplog.text
    assert "no key is in force" in caplog.text
    with pytest.raises(Unauthorized):
        authenticator.authenticate(f"Bearer {key}")
    file.write_bytes(whole)
    now[0] = 2.0
    assert authenticator.authenticate(f"Bearer {key}").name == "shop"
    assert authenticator.readable
