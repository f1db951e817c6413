import errno
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from whatsapp_operator.api.reasons import Reason
from whatsapp_operator.session.credentials import CORRUPT_KEPT, Volume, VolumeError
from whatsapp_operator.session.model import Credentials, Journal

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

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(VolumeError) as caught:
            volume.save(Journal(seq=2, failed=2))
    assert caught.value.reason is reason
    assert volume.open()[0].seq == 1


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
