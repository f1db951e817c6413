import contextlib
import errno
import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from whatsapp_operator.api.reasons import Reason
from whatsapp_operator.session.credentials import CORRUPT_KEPT, Volume, VolumeError
from whatsapp_operator.session.model import Credentials, Journal, dump_journal

JID = "15551230001:3@s.whatsapp.net"
SCHEMA = (
    "CREATE TABLE whatsmeow_device (jid TEXT PRIMARY KEY, lid TEXT, platform TEXT, business_name TEXT, push_name TEXT)"
)


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    volume = Volume(tmp_path, "acme")
    yield volume
    volume.close()


def register(volume: Volume) -> None:
    database = sqlite3.connect(volume.database)
    database.execute(SCHEMA)
    database.execute("INSERT INTO whatsmeow_device VALUES (?, '9:3@lid', 'android', 'Shop', 'Ann')", (JID,))
    database.commit()
    database.close()


def test_an_empty_volume(volume: Volume) -> None:
    assert volume.open() == (Journal(), Credentials(), False)


def test_finds_the_registered_device(volume: Volume) -> None:
    register(volume)
    assert volume.open()[1] == Credentials(True, True, JID, "9:3@lid", "android", "Shop", "Ann")


@pytest.mark.parametrize("statement", [None, SCHEMA])
def test_a_database_without_a_device_holds_no_credentials(volume: Volume, statement: str | None) -> None:
    database = sqlite3.connect(volume.database)
    database.execute(statement or "CREATE TABLE something (x)")
    database.close()
    assert volume.inspect() == Credentials()


def test_an_empty_file_holds_no_credentials(volume: Volume) -> None:
    volume.database.touch()
    assert volume.inspect() == Credentials()


def test_finds_what_a_killed_process_left_in_the_log(volume: Volume) -> None:
    script = """
import os, sqlite3, sys
path, schema, jid = sys.argv[1:]
database = sqlite3.connect(path)
database.execute("PRAGMA journal_mode=WAL")
database.execute(schema)
database.execute("INSERT INTO whatsmeow_device VALUES (?, '', '', '', '')", (jid,))
database.commit()
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script, str(volume.database), SCHEMA, JID], check=True)
    assert Path(f"{volume.database}-wal").stat().st_size > 0
    assert volume.inspect().jid == JID


@pytest.mark.parametrize("damage", ["garbage", "half", "columns"])
def test_corrupt_credentials_are_seen_and_moved_aside(volume: Volume, damage: str) -> None:
    if damage == "columns":
        database = sqlite3.connect(volume.database)
        database.execute("CREATE TABLE whatsmeow_device (id TEXT)")
        database.close()
    else:
        register(volume)
        content = volume.database.read_bytes()
        volume.database.write_bytes(os.urandom(8192) if damage == "garbage" else content[:4096])
    assert volume.inspect() == Credentials(present=True, valid=False)
    for number in range(1, CORRUPT_KEPT + 3):
        volume.move_aside()
        assert volume.inspect() == Credentials()
        volume.database.write_bytes(b"again" * 1000)
        kept = sorted(int(path.name) for path in (volume.database.parent / "corrupt").iterdir())
        assert kept == list(range(max(1, number - CORRUPT_KEPT + 1), number + 1))


@pytest.mark.parametrize(("column", "found"), [("push_name", (True, JID)), ("jid", (False, ""))])
def test_a_text_that_is_none_is_corrupt_only_where_it_says_which_device(
    volume: Volume, column: str, found: tuple[bool, str]
) -> None:
    register(volume)
    with contextlib.closing(sqlite3.connect(volume.database)) as database:
        database.execute(f"UPDATE whatsmeow_device SET {column} = CAST(x'ff31' AS TEXT)")  # noqa: S608
        database.commit()
    credentials = volume.inspect()
    assert (credentials.present, credentials.valid, credentials.jid) == (True, *found)


def test_a_wipe_leaves_the_journal(volume: Volume) -> None:
    volume.open()
    register(volume)
    Path(f"{volume.database}-wal").touch()
    volume.save(Journal(seq=7, failed=7))
    volume.wipe()
    volume.wipe()
    assert volume.open() == (Journal(seq=7, failed=7), Credentials(), False)
    assert list(volume.database.parent.glob("credentials*")) == []


def test_a_journal_that_cannot_be_read_is_kept_aside(volume: Volume, tmp_path: Path) -> None:
    (tmp_path / "journal.json").write_text('{"version": 1')
    assert volume.open()[0] == Journal()
    assert (tmp_path / "journal.corrupt").exists()


def test_only_one_process_uses_the_volume(volume: Volume, tmp_path: Path) -> None:
    volume.open()
    other = Volume(tmp_path, "acme")
    with pytest.raises(VolumeError) as caught:
        other.open()
    assert caught.value.reason is Reason.CREDENTIALS_CONFLICT
    volume.close()
    other.open()
    other.close()


def test_a_process_that_inherits_the_lock_keeps_it(volume: Volume, tmp_path: Path) -> None:
    volume.open()
    assert volume.lock is not None
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(volume.lock,)) as child:
        volume.close()
        other = Volume(tmp_path, "acme")
        with pytest.raises(VolumeError):
            other.open()
        child.communicate()
    other.open()
    other.close()


def test_a_volume_of_another_tenant_is_left_alone(volume: Volume, tmp_path: Path) -> None:
    volume.open()
    volume.close()
    other = Volume(tmp_path, "globex")
    with pytest.raises(VolumeError) as caught:
        other.open()
    assert caught.value.reason is Reason.VOLUME_FOREIGN
    other.close()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, Reason.VOLUME_FULL),
        (errno.EDQUOT, Reason.VOLUME_FULL),
        (errno.EROFS, Reason.VOLUME_READ_ONLY),
        (errno.EIO, Reason.VOLUME_READ_ONLY),
    ],
)
def test_a_failed_write_is_named_and_leaves_the_old_journal(
    volume: Volume, monkeypatch: pytest.MonkeyPatch, code: int, reason: Reason
) -> None:
    volume.open()
    volume.save(Journal(seq=1, failed=1))

    register(volume)
    for function in ("fsync", "replace"):

        def fail(*_: object) -> int:
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            patch.setattr(os, function, fail)
            with pytest.raises(VolumeError) as caught:
                volume.save(Journal(seq=2, failed=2))
        assert caught.value.reason is reason
        journal, credentials, _ = volume.open()
        assert journal.seq == 1
        assert credentials.jid == JID
        assert not (volume.database.parent / "journal.new").exists()


def test_nothing_is_readable_by_others(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        volume = Volume(tmp_path, "acme")
        volume.open()
        volume.save(Journal())
        volume.close()
    finally:
        os.umask(previous)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


@pytest.mark.parametrize(
    ("stamped", "own", "kept"),
    [
        ("uid-1", "uid-1", False),
        ("uid-1", "uid-2", True),
        ("uid-1", None, False),  # an operator that does not tell it
        (None, "uid-2", False),  # a stamp of such an operator
        (None, None, False),
    ],
)
def test_a_volume_kept_from_an_earlier_object_is_told_until_it_is_stamped(
    tmp_path: Path, stamped: str | None, own: str | None, kept: bool
) -> None:
    before = Volume(tmp_path, "acme", stamped)
    assert before.open()[2] is False, "a new volume is its own"
    before.close()
    volume = Volume(tmp_path, "acme", own)
    assert volume.open()[2] is kept
    assert volume.open()[2] is kept, "not by looking"
    volume.stamp()
    assert volume.open()[2] is False
    volume.close()


def test_a_stamp_without_an_object_is_renewed(tmp_path: Path) -> None:
    for own in (None, "uid-1"):
        volume = Volume(tmp_path, "acme", own)
        volume.open()
        volume.close()
    other = Volume(tmp_path, "acme", "uid-2")
    assert other.open()[2] is True
    other.close()


def test_a_journal_is_on_the_disk_before_it_is_in_its_place(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written in full, made durable, renamed, and the rename made durable: a power loss leaves the old or the new."""
    volume.open()
    volume.save(Journal(seq=1, failed=1))
    journal = Journal(seq=2, failed=2)
    steps = []
    fsync, rename = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path != tmp_path:
            assert path.read_text() == dump_journal(journal)
        steps.append(("fsync", path.name if path != tmp_path else "directory"))

    def record_rename(source: Path, target: Path) -> None:
        rename(source, target)
        steps.append((source.name, target.name))

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_rename)
    volume.save(journal)
    assert steps == [("fsync", "journal.new"), ("journal.new", "journal.json"), ("fsync", "directory")]


def test_a_full_volume_leaves_everything_as_it_was(volume: Volume, tmp_path: Path) -> None:
    volume.open()
    register(volume)
    volume.save(Journal(seq=1, failed=1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "journal.new").symlink_to("/dev/full")
    with pytest.raises(VolumeError) as caught:
        volume.save(Journal(seq=2, failed=2))
    assert caught.value.reason is Reason.VOLUME_FULL
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_write_that_is_cut_anywhere_leaves_the_old_journal(volume: Volume, tmp_path: Path) -> None:
    volume.open()
    volume.save(Journal(seq=1, failed=1))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in range(0, len(dump_journal(Journal(seq=2, failed=2))), 32):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            with pytest.raises(VolumeError):
                volume.save(Journal(seq=2, failed=2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert volume.open()[0].seq == 1
        assert not (tmp_path / "journal.new").exists()


@pytest.fixture(scope="module")
def pulled_plug(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database, its log and its index as a process leaves them that dies after a second commit."""
    directory = tmp_path_factory.mktemp("plug")
    script = """
import os, sqlite3, sys
path, schema = sys.argv[1:]
database = sqlite3.connect(path, isolation_level=None)
database.execute("PRAGMA journal_mode=WAL")
database.execute("PRAGMA wal_autocheckpoint=0")
database.execute(schema)
database.execute("INSERT INTO whatsmeow_device VALUES ('15551230001:1@s.whatsapp.net', '', '', '', '')")
database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
database.execute("BEGIN")
database.execute("UPDATE whatsmeow_device SET jid = '15551230001:2@s.whatsapp.net', push_name = ?", ("n" * 9000,))
database.execute("COMMIT")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script, str(directory / "credentials.db"), SCHEMA], check=True)
    assert (directory / "credentials.db-wal").stat().st_size > 9000
    return directory


@pytest.mark.parametrize("tail", ["cut", "zeros", "garbage"])
@pytest.mark.parametrize("index", ["kept", "gone", "garbage"])
def test_a_log_that_ends_anywhere_is_read_as_before_or_after(
    volume: Volume, pulled_plug: Path, tail: str, index: str
) -> None:
    """What a power loss leaves of the last blocks that were written."""
    log = (pulled_plug / "credentials.db-wal").read_bytes()
    found = set()
    for length in (*range(0, len(log), 512), len(log)):
        for path in pulled_plug.iterdir():
            shutil.copy(path, volume.database.parent)
        rest = len(log) - length
        lost = {"cut": b"", "zeros": bytes(rest), "garbage": os.urandom(rest)}[tail]
        Path(f"{volume.database}-wal").write_bytes(log[:length] + lost)
        shared = Path(f"{volume.database}-shm")
        if index == "gone":
            shared.unlink()
        elif index == "garbage":
            shared.write_bytes(os.urandom(shared.stat().st_size))
        credentials = volume.inspect()
        assert credentials.valid
        found.add(credentials.jid)
    assert found == {"15551230001:1@s.whatsapp.net", "15551230001:2@s.whatsapp.net"}


def test_a_database_that_is_cut_anywhere_is_whole_or_corrupt(volume: Volume, pulled_plug: Path) -> None:
    content = (pulled_plug / "credentials.db").read_bytes()
    for length in range(0, len(content), 512):
        for path in volume.database.parent.glob("credentials.db*"):
            path.unlink()
        volume.database.write_bytes(content[:length])
        assert volume.inspect() == (Credentials(present=True, valid=False) if length else Credentials())


def test_a_log_without_its_database_brings_nothing_back(volume: Volume, pulled_plug: Path) -> None:
    """A wipe was cut short after its first file."""
    for path in pulled_plug.iterdir():
        shutil.copy(path, volume.database.parent)
    volume.database.unlink()
    assert volume.inspect() == Credentials()
    with sqlite3.connect(volume.database) as database:
        database.execute("CREATE TABLE other (x)")
    database.close()
    assert volume.inspect() == Credentials()
