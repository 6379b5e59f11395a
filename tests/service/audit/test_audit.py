"""The audit log: what is written, that a change shows, and that nobody waits for it."""

import json
import os
import resource
import threading
from pathlib import Path
from typing import Any

import pytest

from service.audit import AuditLog, Record, require_writable
from service.audit.chain import files_of, verify
from service.errors import ConfigurationError
from tests.commands import done, run, said

LOST: list[int] = []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    LOST.clear()
    return tmp_path / "logs" / "audit.jsonl"


def record(number: int = 0, **values: Any) -> Record:
    return Record(
        **{
            "id": f"r{number}",
            "key": "shop",
            "route": "/v1/classify",
            "status": 200,
            "code": "ok",
            "seconds": 0.0123,
            **values,
        }
    )


def written(path: Path, count: int, most_bytes: int = 10**9, files: int = 3, **values: Any) -> None:
    log = AuditLog(path, most_bytes, files, LOST.append)
    for number in range(count):
        log.note(record(number, **values))
    log.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_line_says_who_asked_what_and_what_came_of_it(path: Path) -> None:
    written(path, 1, asked=[("sentiment", "abc")], tokens=7)
    opened, line = lines(path)
    assert (opened["event"], opened["follows"]) == ("opened", "0" * 64)
    assert line.pop("time").endswith("Z")
    assert len(line.pop("chain")) == 64
    assert line == {
        "event": "request", "id": "r0", "key": "shop", "route": "/v1/classify", "status": 200, "code": "ok", "ms": 12.3,
        "asked": [{"model": "sentiment", "version": "abc"}], "tokens": 7,
    }  # fmt: skip
    assert oct(path.stat().st_mode & 0o777) == "0o600"


def test_a_log_goes_on_after_a_restart_and_through_its_files(path: Path) -> None:
    written(path, 2)
    written(path, 3)
    assert len(verify(path).chains) == 7  # and how it was opened, twice
    for _ in range(4):
        written(path, 2, most_bytes=1)
    assert [file.name for file in files_of(path)] == ["audit.jsonl.3", "audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"]
    output = done("audit", "verify", path).output
    assert "audit.jsonl: 4 files, " in output
    assert output.split()[-1] == lines(path)[-1]["chain"]


@pytest.mark.parametrize("place", [0, 1, 3, 5])
@pytest.mark.parametrize("change", ["a letter", "removed", "twice", "moved"])
def test_what_was_changed_is_named(path: Path, place: int, change: str) -> None:
    written(path, 6)
    content = path.read_bytes().splitlines(keepends=True)
    line = content[place]
    if change == "a letter":
        content[place] = line.replace(b"shop", b"shoq") if b"shop" in line else line.replace(b"Z", b"z")
    elif change == "removed":
        del content[place]
    elif change == "twice":
        content.insert(place, line)
    else:
        content[place], content[place + 1] = content[place + 1], content[place]
    path.write_bytes(b"".join(content))
    message = said(run("audit", "verify", path))
    assert f"{path}: line " in message
    number = int(message.partition("line ")[2].partition(":")[0])
    assert place + 1 <= number <= place + 2


def test_a_line_that_was_written_anew_with_its_hash_shows_in_the_next_one(path: Path) -> None:
    written(path, 3)
    content = path.read_bytes().splitlines(keepends=True)
    other = path.with_name("other")
    written(other, 3, key="bank")
    content[1] = other.read_bytes().splitlines(keepends=True)[1]
    path.write_bytes(b"".join(content))
    message = said(run("audit", "verify", path))
    assert any(f"line {number}: was changed" in message for number in (2, 3))  # 3, if both began in one millisecond


def test_a_missing_file_and_a_missing_end_show(path: Path) -> None:
    for _ in range(3):
        written(path, 2, most_bytes=1)
    kept = done("audit", "verify", path).output.split()[-1]
    content = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(content[:-1]))
    done("audit", "verify", path)
    assert "records were removed, or written anew" in said(run("audit", "verify", path, "--holds", kept))
    path.write_bytes(b"".join(content))
    done("audit", "verify", path, "--holds", kept)
    files_of(path)[1].unlink()
    assert "records are missing there" in said(run("audit", "verify", path))


def test_a_line_that_a_dying_process_left_is_told_and_no_fault(path: Path) -> None:
    written(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert "line 3: was not finished" in done("audit", "verify", path).output
    written(path, 1)
    output = done("audit", "verify", path).output
    assert "line 3: was not finished" in output
    assert len(verify(path).chains) == 4
    path.write_bytes(path.read_bytes().replace(b"opened", b"request", 2))
    assert "line 1: was changed" in said(run("audit", "verify", path))


def test_records_are_found(path: Path) -> None:
    log = AuditLog(path, 10**9, 3, LOST.append)
    log.note(record(1, asked=[("sentiment", "v1")]))
    log.note(record(2, key="bank", status=403, code="forbidden"))
    log.note(record(3, route="/v1/models/{name}/load", model="intent", bundle="new"))
    log.close()
    for options, expected in (
        ((), ["r1", "r2", "r3"]),
        (("--key", "bank"), ["r2"]),
        (("--key", "bank", "--status", 200), []),
        (("--status", 403), ["r2"]),
        (("--id", "r3"), ["r3"]),
        (("--route", "/v1/classify"), ["r1", "r2"]),
        (("--model", "sentiment"), ["r1"]),
        (("--model", "intent"), ["r3"]),
        (("--since", "2100-01-01"), []),
        (("--until", "2100-01-01", "--since", "2020-01-01T00:00+02:00", "--key", "shop"), ["r1", "r3"]),
    ):
        found = [json.loads(line) for line in done("audit", "search", path, *options).output.splitlines()]
        assert [one["id"] for one in found if one["event"] == "request"] == expected
    assert run("audit", "search", path, "--since", "yesterday").exit_code == 2
    assert "no such audit log" in said(run("audit", "search", path.with_name("none")))
    assert "no such audit log" in said(run("audit", "verify", path.with_name("none")))


def test_what_cannot_be_written_is_counted_and_said_later_and_nobody_waits(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit of the process on the size of files stands for a full disk."""
    log = AuditLog(path, 10**9, 3, LOST.append)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, before[1]))
    try:
        for number in range(3):
            log.note(record(number))
        wait_for(lambda: sum(LOST) == 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.note(record(9))
    log.close()
    assert [line["event"] for line in lines(path)] == ["opened", "lost", "request"]
    assert lines(path)[1]["records"] == 3
    assert caplog.text.count("the audit log cannot be written: File too large; records are lost") == 1
    assert "can be written again" in caplog.text
    assert "3 records are missing: they could not be written" in done("audit", "verify", path).output


@pytest.mark.parametrize("replaced", [False, True])
def test_a_log_that_somebody_removes_is_begun_anew_and_said_to_be_missing(
    replaced: bool, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = AuditLog(path, 10**9, 3, LOST.append)
    log.note(record(1))
    wait_for(lambda: len(lines(path)) == 2)
    before = lines(path)[-1]["chain"]
    path.unlink()
    if replaced:
        path.write_text("{}\n", "utf-8")
    log.note(record(2))
    log.close()
    assert "the audit log was removed or replaced; a new one goes on" in caplog.text
    *_, opened, last = lines(path)
    assert (opened["event"], opened["follows"], last["id"]) == ("opened", before, "r2")
    assert LOST == []


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_a_new_file_that_cannot_be_had_loses_records_and_no_files(
    kind: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = AuditLog(path, 1, 3, LOST.append)
    path.unlink()
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    for number in range(5):
        log.note(record(number))
        wait_for(lambda number=number: sum(LOST) == number + 1)
    path.rmdir() if kind == "directory" else path.unlink()
    log.note(record(9))
    log.close()
    assert caplog.text.count("records are lost") == 1
    assert [line["event"] for line in lines(path)] == ["opened", "lost", "request"]
    assert files_of(path) == [path]


def test_more_than_can_wait_is_lost_and_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.audit.log._MOST_WAITING", 5)
    log = AuditLog(path, 10**9, 3, LOST.append)
    writing = threading.Event()
    write = log._write

    def slow(taken: Any) -> None:
        writing.wait(10)
        write(taken)

    monkeypatch.setattr(log, "_write", slow)
    for number in range(20):
        log.note(record(number))
    writing.set()
    log.close()
    requests = [line for line in lines(path) if line["event"] == "request"]
    assert sum(LOST) > 0
    assert len(requests) + sum(LOST) == 20
    verify(path)


def test_a_file_that_cannot_be_kept_is_refused(path: Path, tmp_path: Path) -> None:
    log = AuditLog(path, 10**9, 3, LOST.append)
    with pytest.raises(ConfigurationError, match=r"another process writes this audit log; give each service"):
        require_writable(path, 1)
    log.close()
    require_writable(path, 1)
    with pytest.raises(ConfigurationError, match=r"written by one worker, and 2 are asked for"):
        require_writable(path, 2)
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "audit.jsonl"):
        with pytest.raises(ConfigurationError, match=r"the audit log cannot be written: (Is a|Not a|File exists)"):
            require_writable(place, 1)


def wait_for(condition: Any) -> None:
    until = threading.Event()
    for _ in range(1000):
        if condition():
            return
        until.wait(0.01)
    pytest.fail("it did not come about")


def test_names_of_any_kind_are_one_line_each(path: Path) -> None:
    written(path, 1, key='a"b\n{"chain":"0"}\ud800')
    assert len(lines(path)) == 2
    assert lines(path)[1]["key"] == 'a"b\n{"chain":"0"}\ud800'
    verify(path)
    assert os.stat(path).st_size == len(path.read_bytes())
