"""What the simulator remembers across a restart: one SQLite database, each change a transaction.

A device in the store is a companion (number 1 and up) by its public keys. A phone is device 0 of its account and is
simulated here, so the store holds its private keys.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from whatsapp_simulator.binary.node import JID, LID_SERVER, USER_SERVER
from whatsapp_simulator.keys import KeyPair
from whatsapp_simulator.signal.session import Session
from whatsapp_simulator.signal.x3dh import PreKey, SignedPreKey

PHONE_DEVICE: Final = 0
SIGNED_PRE_KEY_ID: Final = 1
"""A simulated phone never rotates its signed prekey."""

_LID_DIGITS: Final = 15
_OUTBOX_KEPT: Final = 1000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS phone (
    number TEXT PRIMARY KEY, lid TEXT NOT NULL UNIQUE, name TEXT NOT NULL, identity BLOB NOT NULL,
    signed_pre_key BLOB NOT NULL, registration_id INTEGER NOT NULL, last_device INTEGER NOT NULL DEFAULT 0,
    last_pre_key INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL, scan_after REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS phone_pre_key (
    number TEXT NOT NULL REFERENCES phone ON DELETE CASCADE, id INTEGER NOT NULL, private BLOB NOT NULL,
    PRIMARY KEY (number, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS device (
    number TEXT NOT NULL REFERENCES phone ON DELETE CASCADE, device INTEGER NOT NULL, noise BLOB NOT NULL,
    identity BLOB NOT NULL, registration_id INTEGER NOT NULL, signed_pre_key_id INTEGER NOT NULL,
    signed_pre_key BLOB NOT NULL, signed_pre_key_signature BLOB NOT NULL, signed_identity BLOB NOT NULL,
    linked REAL NOT NULL, PRIMARY KEY (number, device)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pre_key (
    number TEXT NOT NULL, device INTEGER NOT NULL, id INTEGER NOT NULL, public BLOB NOT NULL,
    PRIMARY KEY (number, device, id), FOREIGN KEY (number, device) REFERENCES device ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS session (
    number TEXT NOT NULL REFERENCES phone ON DELETE CASCADE, peer TEXT NOT NULL, peer_device INTEGER NOT NULL,
    state TEXT NOT NULL, PRIMARY KEY (number, peer, peer_device),
    FOREIGN KEY (peer, peer_device) REFERENCES device ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS addressing (
    number TEXT NOT NULL, device INTEGER NOT NULL, peer TEXT NOT NULL, server TEXT NOT NULL,
    PRIMARY KEY (number, device, peer), FOREIGN KEY (number, device) REFERENCES device ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS undelivered (
    sequence INTEGER PRIMARY KEY, number TEXT NOT NULL, device INTEGER NOT NULL, message TEXT NOT NULL,
    stanza BLOB NOT NULL, FOREIGN KEY (number, device) REFERENCES device ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS undelivered_device ON undelivered (number, device, message);
CREATE TABLE IF NOT EXISTS outbox (
    sequence INTEGER PRIMARY KEY, number TEXT NOT NULL REFERENCES phone ON DELETE CASCADE, message TEXT NOT NULL,
    recipient TEXT NOT NULL, body BLOB NOT NULL, sent REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS outbox_message ON outbox (number, message);
CREATE TABLE IF NOT EXISTS inbox (
    sequence INTEGER PRIMARY KEY, number TEXT NOT NULL REFERENCES phone ON DELETE CASCADE, message TEXT NOT NULL,
    sender TEXT NOT NULL, sender_device INTEGER NOT NULL, body TEXT, received REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS inbox_number ON inbox (number);
"""
# A database of another schema cannot be used; there is nothing in it that is worth a migration.
_VERSION = zlib.crc32(_SCHEMA.encode()) & 0x7FFFFFFF

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceId:
    """A phone's number (digits, no plus) and one of its devices, 0 being the phone itself."""

    number: str
    device: int


@dataclass(frozen=True, slots=True)
class Phone:
    """A simulated phone. `identity` is also its account key: it signs companions' identities."""

    number: str
    lid_user: str
    name: str
    identity: KeyPair
    signed_pre_key: KeyPair
    registration_id: int
    scan_after: float | None = None
    """Seconds that the phone takes to act on what it is shown, None for at once."""

    @property
    def id(self) -> DeviceId:
        return DeviceId(self.number, PHONE_DEVICE)

    @property
    def pn(self) -> JID:
        """Its address by number."""
        return JID(self.number, USER_SERVER)

    @property
    def lid(self) -> JID:
        """Its address by LID, the identifier that hides the number."""
        return JID(self.lid_user, LID_SERVER)


@dataclass(frozen=True, slots=True)
class Registration:
    """The public keys with which a client registers."""

    noise: bytes
    identity: bytes
    registration_id: int
    signed_pre_key: SignedPreKey


@dataclass(frozen=True, slots=True)
class Device:
    """A linked companion. `signed_identity` is its ADVSignedDeviceIdentity with both signatures, serialised."""

    id: DeviceId
    keys: Registration
    signed_identity: bytes
    linked: float


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """A message that a phone received; `text` is None where it is not a text message."""

    id: str
    sender: DeviceId
    text: str | None
    received: float


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message that a phone sent: the serialised E2E message, kept for those who ask again."""

    id: str
    recipient: str
    body: bytes


def replace(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new content, never a part."""
    scratch = path.with_name(path.name + ".new")
    scratch.write_text(text)
    scratch.replace(path)


def _set_aside_if_foreign(path: Path) -> None:
    """Rename a database that another version of the simulator has made: its phones and devices start anew."""
    if not path.exists():
        return
    with closing(sqlite3.connect(path)) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
    if version != _VERSION:
        kept = path.with_name(f"{path.name}.{version}")
        path.replace(kept)
        logger.warning("%s is of another version of the simulator: kept as %s, starting anew", path.name, kept.name)


class Store:
    """Typed access to the database. Methods do not wait for anything but the local disk."""

    def __init__(self, path: Path | None) -> None:
        """Open or create the database, readable by its owner alone; None keeps it in memory."""
        if path:
            _set_aside_if_foreign(path)
            path.touch(mode=0o600)
        self._db = sqlite3.connect(path or ":memory:", isolation_level=None)
        self._db.execute(f"PRAGMA user_version = {_VERSION}")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the changes inside take effect together or not at all. Transactions may be nested."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # Secrets of the server

    def secret(self, name: str) -> bytes | None:
        row = self._db.execute("SELECT value FROM secret WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def save_secret(self, name: str, value: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO secret VALUES (?, ?)", (name, value))

    # Phones

    def add_phone(self, number: str, name: str, now: float, scan_after: float | None = None) -> Phone:
        """Create a phone.

        Raises:
            ValueError: there is one with this number.
        """
        phone = Phone(
            number=number,
            lid_user=str(secrets.choice(range(10 ** (_LID_DIGITS - 1), 10**_LID_DIGITS))),
            name=name,
            identity=KeyPair.generate(),
            signed_pre_key=KeyPair.generate(),
            registration_id=secrets.randbelow(1 << 14) + 1,
            scan_after=scan_after,
        )
        try:
            self._db.execute(
                "INSERT INTO phone (number, lid, name, identity, signed_pre_key, registration_id, created, scan_after)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    number,
                    phone.lid_user,
                    name,
                    phone.identity.private,
                    phone.signed_pre_key.private,
                    phone.registration_id,
                    now,
                    scan_after,
                ),
            )
        except sqlite3.IntegrityError as error:
            raise ValueError("there is a phone with this number") from error
        return phone

    def phone(self, number: str) -> Phone | None:
        return self._phone("number = ?", number)

    def phone_at(self, jid: JID) -> Phone | None:
        """The phone that an address belongs to, by number or by LID."""
        if jid.server == LID_SERVER:
            return self._phone("lid = ?", jid.user)
        return self._phone("number = ?", jid.user) if jid.server == USER_SERVER else None

    def _phone(self, condition: str, value: str) -> Phone | None:
        row = self._db.execute(
            "SELECT number, lid, name, identity, signed_pre_key, registration_id, scan_after"  # noqa: S608
            f" FROM phone WHERE {condition}",
            (value,),
        ).fetchone()
        if row is None:
            return None
        number, lid, name, identity, signed_pre_key, *rest = row
        return Phone(number, lid, name, KeyPair.from_private(identity), KeyPair.from_private(signed_pre_key), *rest)

    def phones(self) -> list[str]:
        """The numbers of all phones."""
        return [number for (number,) in self._db.execute("SELECT number FROM phone ORDER BY created, number")]

    def new_phone_pre_key(self, number: str) -> tuple[int, KeyPair]:
        """A fresh one-time prekey of a phone."""
        key = KeyPair.generate()
        with self.transaction():
            (identifier,) = self._db.execute(
                "UPDATE phone SET last_pre_key = last_pre_key + 1 WHERE number = ? RETURNING last_pre_key", (number,)
            ).fetchone()
            self._db.execute("INSERT INTO phone_pre_key VALUES (?, ?, ?)", (number, identifier, key.private))
        return identifier, key

    def phone_pre_key(self, number: str, identifier: int) -> KeyPair | None:
        row = self._db.execute(
            "SELECT private FROM phone_pre_key WHERE number = ? AND id = ?", (number, identifier)
        ).fetchone()
        return None if row is None else KeyPair.from_private(row[0])

    def delete_phone_pre_key(self, number: str, identifier: int) -> None:
        self._db.execute("DELETE FROM phone_pre_key WHERE number = ? AND id = ?", (number, identifier))

    # Devices

    def new_device_number(self, number: str) -> int:
        """A device number that this phone never had before."""
        (device,) = self._db.execute(
            "UPDATE phone SET last_device = last_device + 1 WHERE number = ? RETURNING last_device", (number,)
        ).fetchone()
        return int(device)

    def add_device(self, device: Device) -> None:
        keys, signed = device.keys, device.keys.signed_pre_key
        self._db.execute(
            "INSERT INTO device VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                device.id.number,
                device.id.device,
                keys.noise,
                keys.identity,
                keys.registration_id,
                signed.id,
                signed.public,
                signed.signature,
                device.signed_identity,
                device.linked,
            ),
        )

    def device(self, id: DeviceId) -> Device | None:
        return next(self._devices("number = ? AND device = ?", (id.number, id.device)), None)

    def devices(self, number: str) -> list[Device]:
        """A phone's companions."""
        return list(self._devices("number = ?", (number,)))

    def _devices(self, condition: str, values: tuple[str | int, ...]) -> Iterator[Device]:
        rows = self._db.execute(
            "SELECT number, device, noise, identity, registration_id, signed_pre_key_id, signed_pre_key,"  # noqa: S608
            f" signed_pre_key_signature, signed_identity, linked FROM device WHERE {condition} ORDER BY device",
            values,
        )
        for number, device, noise, identity, registration_id, *signed, signed_identity, linked in rows:
            keys = Registration(noise, identity, registration_id, SignedPreKey(*signed))
            yield Device(DeviceId(number, device), keys, signed_identity, linked)

    def delete_device(self, id: DeviceId) -> bool:
        """Forget a companion and all that belongs to it; whether it was there."""
        cursor = self._db.execute("DELETE FROM device WHERE number = ? AND device = ?", (id.number, id.device))
        return cursor.rowcount > 0

    def save_signed_pre_key(self, id: DeviceId, key: SignedPreKey) -> None:
        self._db.execute(
            "UPDATE device SET signed_pre_key_id = ?, signed_pre_key = ?, signed_pre_key_signature = ?"
            " WHERE number = ? AND device = ?",
            (key.id, key.public, key.signature, id.number, id.device),
        )

    def add_pre_keys(self, id: DeviceId, keys: Iterable[PreKey]) -> None:
        with self.transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO pre_key VALUES (?, ?, ?, ?)",
                ((id.number, id.device, key.id, key.public) for key in keys),
            )

    def count_pre_keys(self, id: DeviceId) -> int:
        (count,) = self._db.execute(
            "SELECT count(*) FROM pre_key WHERE number = ? AND device = ?", (id.number, id.device)
        ).fetchone()
        return int(count)

    def pre_keys(self, id: DeviceId) -> list[PreKey]:
        rows = self._db.execute(
            "SELECT id, public FROM pre_key WHERE number = ? AND device = ? ORDER BY id", (id.number, id.device)
        )
        return [PreKey(identifier, public) for identifier, public in rows]

    def take_pre_key(self, id: DeviceId) -> PreKey | None:
        """Hand out a companion's oldest one-time prekey; it is never handed out again."""
        row = self._db.execute(
            "DELETE FROM pre_key WHERE number = ?1 AND device = ?2 AND id ="
            " (SELECT min(id) FROM pre_key WHERE number = ?1 AND device = ?2) RETURNING id, public",
            (id.number, id.device),
        ).fetchone()
        return None if row is None else PreKey(*row)

    # Sessions between a phone and companions

    def session(self, number: str, peer: DeviceId) -> Session:
        """The phone's session with a companion; empty where there is none yet."""
        row = self._db.execute(
            "SELECT state FROM session WHERE number = ? AND peer = ? AND peer_device = ?",
            (number, peer.number, peer.device),
        ).fetchone()
        return Session() if row is None else Session.load(row[0])

    def save_session(self, number: str, peer: DeviceId, session: Session) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?)", (number, peer.number, peer.device, session.dump())
        )

    def addressing(self, id: DeviceId, peer: str) -> str:
        """The address server by which a companion last wrote to a phone: by LID until it wrote otherwise."""
        row = self._db.execute(
            "SELECT server FROM addressing WHERE number = ? AND device = ? AND peer = ?", (id.number, id.device, peer)
        ).fetchone()
        return LID_SERVER if row is None else str(row[0])

    def save_addressing(self, id: DeviceId, peer: str, server: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO addressing VALUES (?, ?, ?, ?)", (id.number, id.device, peer, server))

    def correspondents(self, number: str) -> list[DeviceId]:
        """The companions that have written to a phone."""
        rows = self._db.execute("SELECT number, device FROM addressing WHERE peer = ?", (number,))
        return [DeviceId(*row) for row in rows]

    # Messages

    def add_undelivered(self, id: DeviceId, message: str, stanza: bytes) -> None:
        """Keep an encoded stanza until the companion has confirmed it."""
        self._db.execute(
            "INSERT INTO undelivered (number, device, message, stanza) VALUES (?, ?, ?, ?)",
            (id.number, id.device, message, stanza),
        )

    def undelivered(self, id: DeviceId) -> list[bytes]:
        rows = self._db.execute(
            "SELECT stanza FROM undelivered WHERE number = ? AND device = ? ORDER BY sequence", (id.number, id.device)
        )
        return [stanza for (stanza,) in rows]

    def confirm(self, id: DeviceId, messages: Sequence[str]) -> None:
        """Forget the stanzas with these ids: the companion has them."""
        with self.transaction():
            self._db.executemany(
                "DELETE FROM undelivered WHERE number = ? AND device = ? AND message = ?",
                ((id.number, id.device, message) for message in messages),
            )

    def add_sent(self, number: str, message: SentMessage, now: float) -> None:
        with self.transaction():
            self._db.execute(
                "INSERT INTO outbox (number, message, recipient, body, sent) VALUES (?, ?, ?, ?, ?)",
                (number, message.id, message.recipient, message.body, now),
            )
            self._db.execute(
                "DELETE FROM outbox WHERE number = ?1 AND sequence <="
                " (SELECT sequence FROM outbox WHERE number = ?1 ORDER BY sequence DESC LIMIT 1 OFFSET ?2)",
                (number, _OUTBOX_KEPT),
            )

    def sent(self, number: str, message: str) -> SentMessage | None:
        row = self._db.execute(
            "SELECT message, recipient, body FROM outbox WHERE number = ? AND message = ?", (number, message)
        ).fetchone()
        return None if row is None else SentMessage(*row)

    def add_received(self, number: str, message: InboxMessage) -> None:
        self._db.execute(
            "INSERT INTO inbox (number, message, sender, sender_device, body, received) VALUES (?, ?, ?, ?, ?, ?)",
            (number, message.id, message.sender.number, message.sender.device, message.text, message.received),
        )

    def inbox(self, number: str) -> list[InboxMessage]:
        rows = self._db.execute(
            "SELECT message, sender, sender_device, body, received FROM inbox WHERE number = ? ORDER BY sequence",
            (number,),
        )
        return [
            InboxMessage(message, DeviceId(sender, device), text, received)
            for message, sender, device, text, received in rows
        ]
