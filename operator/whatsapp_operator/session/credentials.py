"""The volume: credentials, journal, owner's stamp and the lock that gives one process the use of it.

lock               held by the supervisor and its worker (flock), so that no second process connects
owner.json         the tenant and the session object (its uid) that the volume belongs to
journal.json       model.Journal, written by rename
credentials.db     the library's sqlite database, with its -wal and -shm
corrupt/<number>/  unreadable credentials that were moved aside, the last three
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from whatsapp_operator.api.reasons import Reason
from whatsapp_operator.session.model import Credentials, DocumentError, Journal, dump_journal, load_journal

logger = logging.getLogger(__name__)

CORRUPT_KEPT: Final = 3

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_COLUMNS: Final = ("jid", "lid", "platform", "business_name", "push_name")


class VolumeError(Exception):
    """The volume cannot be used; `reason` is VolumeFull, VolumeReadOnly, VolumeForeign or CredentialsConflict."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Volume:
    """`session_uid` names the session object; None where it is not known, and then every volume is its own."""

    def __init__(self, directory: Path, tenant: str, session_uid: str | None = None) -> None:
        self._directory = directory
        self._tenant = tenant
        self._session_uid = session_uid
        self._lock: int | None = None

    @property
    def database(self) -> Path:
        return self._directory / "credentials.db"

    @property
    def lock(self) -> int | None:
        """Descriptor of the lock. A worker that inherits it keeps the volume locked until it has really ended."""
        return self._lock

    def open(self) -> tuple[Journal, Credentials, bool]:
        """Lock the volume, check whose it is, and read what it holds. May be called again. Raises VolumeError.

        The last of the three says that it was kept from an earlier object; `stamp` makes it that of this one.
        """
        with _as_volume_error():
            if self._lock is None:
                self._lock = self._take_lock()
            kept = self._check_owner()
            return self._load_journal(), self.inspect(), kept

    def stamp(self) -> None:
        """Write whose the volume is. Raises VolumeError."""
        with _as_volume_error():
            self._replace("owner.json", json.dumps({"tenant": self._tenant, "session": self._session_uid}))

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def save(self, journal: Journal) -> None:
        """Durable when it returns. Raises VolumeError."""
        with _as_volume_error():
            self._replace("journal.json", dump_journal(journal))

    def inspect(self) -> Credentials:
        """What the credential database holds; the connection it opens is closed again. Raises VolumeError.

        Not opened read-only: a database whose process was killed has a log that only a writer may recover.
        """
        try:
            if self.database.stat().st_size == 0:
                return Credentials()
        except FileNotFoundError:
            return Credentials()
        except OSError as error:
            raise _volume_error(error) from None
        try:
            with contextlib.closing(
                sqlite3.connect(f"file:{self.database}?mode=rw", uri=True, timeout=5.0)
            ) as database:
                database.text_factory = lambda text: text.decode(errors="replace")
                database.execute("PRAGMA query_only = ON")
                if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                    return Credentials(present=True, valid=False)
                known = {row[1] for row in database.execute("PRAGMA table_info(whatsmeow_device)")}
                if not known:
                    return Credentials()  # its tables are made when a client first opens it
                if not known.issuperset(_COLUMNS):
                    return Credentials(present=True, valid=False)
                row = database.execute(f"SELECT {', '.join(_COLUMNS)} FROM whatsmeow_device").fetchone()  # noqa: S608
        except sqlite3.OperationalError as error:
            raise _volume_error(error) from None
        except sqlite3.DatabaseError:
            return Credentials(present=True, valid=False)
        if row is None:
            return Credentials()
        jid, lid, platform, business_name, push_name = (str(value or "") for value in row)
        if jid == "" or "\N{REPLACEMENT CHARACTER}" in jid:
            return Credentials(present=True, valid=False)
        return Credentials(True, True, jid, lid, platform, business_name, push_name)

    def move_aside(self) -> None:
        """Keep what cannot be read, in case a person can. Raises VolumeError."""
        with _as_volume_error():
            corrupt = self._directory / "corrupt"
            corrupt.mkdir(exist_ok=True)
            taken = [int(path.name) for path in corrupt.iterdir() if path.name.isdecimal()]
            aside = corrupt / str(max(taken, default=0) + 1)
            aside.mkdir()
            for path in self._database_files():
                path.rename(aside / path.name)
            for number in sorted([*taken, int(aside.name)])[:-CORRUPT_KEPT]:
                shutil.rmtree(corrupt / str(number))
            self._sync()

    def wipe(self) -> None:
        """Delete the credentials; the journal stays. Raises VolumeError."""
        with _as_volume_error():
            for path in self._database_files():
                path.unlink(missing_ok=True)
            self._sync()

    def _database_files(self) -> list[Path]:
        return sorted(self._directory.glob(f"{self.database.name}*"))

    def _take_lock(self) -> int:
        lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise VolumeError(Reason.CREDENTIALS_CONFLICT, "another process uses the volume") from None
        except OSError:
            os.close(lock)
            raise
        return lock

    def _check_owner(self) -> bool:
        """Whether the volume was kept from another object of the same tenant."""
        try:
            owner = json.loads((self._directory / "owner.json").read_text())
            tenant, session_uid = owner["tenant"], owner.get("session")
        except FileNotFoundError:
            tenant, session_uid = self._tenant, None
        except (ValueError, KeyError, TypeError, AttributeError):
            tenant, session_uid = None, None
        if tenant != self._tenant:
            raise VolumeError(Reason.VOLUME_FOREIGN, "the volume is stamped with another tenant")
        if session_uid is None and (self._session_uid is not None or not (self._directory / "owner.json").exists()):
            self.stamp()
        return None not in (session_uid, self._session_uid) and session_uid != self._session_uid

    def _load_journal(self) -> Journal:
        path = self._directory / "journal.json"
        try:
            return load_journal(path.read_text())
        except FileNotFoundError:
            return Journal()
        except (DocumentError, UnicodeDecodeError) as error:
            logger.warning("the journal is moved aside and begun anew: %s", error)
            path.rename(path.with_suffix(".corrupt"))
            return Journal()

    def _replace(self, name: str, text: str) -> None:
        """Write a file so that a crash leaves the old or the new one, never a part."""
        target = self._directory / name
        temporary = target.with_suffix(".new")
        try:
            with temporary.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()  # on a full volume it may hold the last block
            raise
        self._sync()

    def _sync(self) -> None:
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


@contextlib.contextmanager
def _as_volume_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _volume_error(error) from None


def _volume_error(error: OSError | sqlite3.OperationalError) -> VolumeError:
    if isinstance(error, OSError):
        full, text = error.errno in _FULL, os.strerror(error.errno or errno.EIO)
    else:
        code = getattr(error, "sqlite_errorcode", None)  # there is none where the error is not the database's own
        full, text = code == sqlite3.SQLITE_FULL, getattr(error, "sqlite_errorname", type(error).__name__)
    return VolumeError(Reason.VOLUME_FULL if full else Reason.VOLUME_READ_ONLY, text)
