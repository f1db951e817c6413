"""Rows of the failure table that concern what the volume holds: files that are corrupt or lost, a volume that fails."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.recording_api import RecordingApi
from tests.integration.session_process import QR_CODE, MakeSession, SessionProcess
from tests.integration.simulator_process import SimulatorProcess
from tests.waiting import eventually

# Corrupt files.


def garbage(database: Path) -> None:
    database.write_bytes(b"\xff" * 8192)


def text(database: Path) -> None:
    database.write_text("no database\n" * 100)


def truncated(database: Path) -> None:
    content = database.read_bytes()
    database.write_bytes(content[: len(content) // 2])


def without_columns(database: Path) -> None:
    database.unlink()
    with contextlib.closing(sqlite3.connect(database)) as made:
        made.execute("CREATE TABLE whatsmeow_device (jid TEXT)")


def without_number(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as changed, changed:
        changed.execute("PRAGMA foreign_keys = OFF")
        changed.execute("UPDATE whatsmeow_device SET jid = ''")


def empty(database: Path) -> None:
    database.write_bytes(b"")


def without_tables(database: Path) -> None:
    database.unlink()
    with contextlib.closing(sqlite3.connect(database)) as made:
        made.execute("CREATE TABLE something_else (name TEXT)")


def spoil(session: SessionProcess, damage: Callable[[Path], object]) -> None:
    """Damage the database of a session that is stopped; its log is first merged into it."""
    database = session.volume / "credentials.db"
    with contextlib.closing(sqlite3.connect(database)) as merged:
        merged.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for path in session.volume.glob("credentials.db-*"):
        path.unlink()
    damage(database)


@pytest.mark.parametrize("damage", [garbage, text, truncated, without_columns, without_number])
def test_corrupt_credentials_are_moved_aside(
    connected: SessionProcess, phone: str, damage: Callable[[Path], None]
) -> None:
    connected.stop()
    spoil(connected, damage)
    spoiled = (connected.volume / "credentials.db").read_bytes()
    told = len(connected.api.reports)
    connected.start()
    report = connected.machine("ShowingQR", since=told)
    assert "Connecting: CredentialsCorrupt" in connected.log
    credentials = report["credentials"]
    assert (credentials["present"], credentials["valid"], credentials["registeredAt"]) == (True, False, None)
    assert report["device"] is None
    assert (connected.volume / "corrupt" / "1" / "credentials.db").read_bytes() == spoiled
    report = connected.pair(phone)
    assert report["credentials"]["valid"] is True


@pytest.mark.parametrize("damage", [empty, without_tables])
def test_an_empty_database_is_no_credentials(
    connected: SessionProcess, phone: str, damage: Callable[[Path], None]
) -> None:
    connected.stop()
    spoil(connected, damage)
    told = len(connected.api.reports)
    connected.start()
    report = connected.machine("ShowingQR", since=told)
    assert report["credentials"]["valid"] is False
    assert report["device"] is None
    connected.pair(phone)


def test_only_the_last_three_corrupt_databases_are_kept(session: SessionProcess) -> None:
    session.ask(pairing={**QR_CODE, "attempts": 20})
    for number in range(1, 6):
        session.machine("ShowingQR")
        session.stop()
        spoil(session, lambda database: database.write_text(f"garbage {number}\n" * 100))  # noqa: B023
        told = len(session.api.reports)
        session.start()
        session.machine("ShowingQR", since=told)
    kept = {path.name: path / "credentials.db" for path in (session.volume / "corrupt").iterdir()}
    assert kept.keys() == {"3", "4", "5"}
    assert kept["5"].read_text().startswith("garbage 5")


@pytest.mark.parametrize("journal", [None, "not a journal"], ids=["missing", "unreadable"])
def test_a_lost_journal_costs_no_pairing(session: SessionProcess, journal: str | None, phone: str) -> None:
    session.machine("ShowingQR")
    session.ask(relinkRequestID="done")
    session.reported("the request is done", lambda r: r["relinkRequestID"] == "done")
    first = session.pair(phone)
    session.stop()
    path = session.volume / "journal.json"
    path.unlink()
    if journal is not None:
        path.write_text(journal)
    session.start()
    again = session.back(first)
    assert again["device"]["jid"] == first["device"]["jid"]
    assert again["relinkRequestID"] == "done"


# The volume.


def test_a_foreign_volume_is_left_alone(session: SessionProcess) -> None:
    session.stop()
    (session.volume / "owner.json").write_text('{"tenant": "globex"}')
    session.start()
    session.told("Failed", "VolumeForeign")
    assert session.worker_pids == []
    assert (session.volume / "owner.json").read_text() == '{"tenant": "globex"}'


def test_a_kept_volume_of_another_phone_is_left_alone(
    tmp_path: Path,
    simulator: SimulatorProcess,
    connected: SessionProcess,
    phone: str,
    other: str,
) -> None:
    first = connected.api.report
    connected.stop()
    with (
        RecordingApi(tmp_path / "api of the next") as api,
        SessionProcess(tmp_path / "next", simulator, api, desired={"phone": other}, session_uid="next") as session,
    ):
        session.stop()
        shutil.rmtree(session.volume)
        shutil.copytree(connected.volume, session.volume)
        (session.volume / "owner.json").write_text('{"tenant": "acme", "session": "earlier"}')
        session.start()
        session.told("Failed", "VolumeForeign")
        assert session.worker_pids == []
        session.ask(phone=phone)
        assert session.machine("Connected")["device"] == first["device"]
        assert len(simulator.devices(phone)) == 1


def fill(volume: Path) -> Path:
    """A file that takes all the room that is left; returns it."""
    ballast = volume / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return ballast


def test_a_volume_that_is_full_is_told_and_comes_back(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str
) -> None:
    limits = {"volume_retry": 1.0}
    with make_session(limits=limits, volume_size="16m") as session:
        first = session.pair(phone)
        ballast = fill(session.volume)
        journal = (session.volume / "journal.json").read_bytes()
        simulator.strike("drop", phone=phone)
        report = session.told("Failed", "VolumeFull")
        assert report["connection"]["since"] is None
        assert (session.volume / "journal.json").read_bytes() == journal
        assert session.worker_pids == []
        ballast.unlink()
        again = session.back(first)
        assert again["device"] == first["device"]
        assert len(simulator.devices(phone)) == 1


def test_a_volume_that_is_full_while_a_phone_scans_is_told_and_comes_back(
    make_session: MakeSession, simulator: SimulatorProcess, api: RecordingApi, phone: str
) -> None:
    limits = {"volume_retry": 1.0}
    with make_session(limits=limits, volume_size="16m") as session:
        session.machine("ShowingQR")
        ballast = fill(session.volume)
        simulator.scan(phone, session.qr())
        session.told("Failed", "VolumeFull")
        eventually(lambda: api.secret == {}, "the Secret is cleared")
        ballast.unlink()
        report = session.reported("it is back", lambda r: r["machine"] in ("ShowingQR", "Connected"))
        if report["machine"] == "ShowingQR":
            session.pair(phone)


def test_a_volume_that_turns_read_only_is_told_and_comes_back(
    make_session: MakeSession, tmp_path: Path, simulator: SimulatorProcess, phone: str
) -> None:
    limits = {"volume_retry": 1.0}
    with make_session(limits=limits, volume_size="16m") as session:
        first = session.pair(phone)
        path = str(tmp_path / "session" / "volume")
        session.in_mounts("mount", "--bind", path, path)
        session.in_mounts("mount", "-o", "remount,bind,ro", path)
        simulator.strike("drop", phone=phone)
        session.told("Failed", "VolumeReadOnly")
        assert session.worker_pids == []
        session.in_mounts("umount", path)
        again = session.back(first)
        assert again["device"] == first["device"]
        assert len(simulator.devices(phone)) == 1


def test_a_volume_that_is_read_only_from_the_start_is_told_and_comes_back(
    make_session: MakeSession, tmp_path: Path
) -> None:
    limits = {"volume_retry": 1.0}
    with make_session(limits=limits, volume_size="16m,ro") as session:
        session.told("Failed", "VolumeReadOnly")
        assert session.worker_pids == []
        session.in_mounts("mount", "-o", "remount,rw", str(tmp_path / "session" / "volume"))
        session.machine("ShowingQR")
