"""What the simulator remembers, and for how long."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.simulator.companions import NOW, link
from whatsapp_simulator.binary.node import JID, LID_SERVER, USER_SERVER
from whatsapp_simulator.phone import bundle_of_phone
from whatsapp_simulator.server import noise_authority, tls_authority
from whatsapp_simulator.signal.x3dh import SignedPreKey
from whatsapp_simulator.store import DeviceId, InboxMessage, Phone, SentMessage, Store


@pytest.fixture
def store() -> Iterator[Store]:
    opened = Store(None)
    yield opened
    opened.close()


@pytest.fixture
def phone(store: Store) -> Phone:
    return store.add_phone("15551230001", "Phone", NOW)


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = Store(path)
    phone = store.add_phone("15551230001", "Phone", NOW)
    companion = link(store, phone)
    pre_key = store.new_phone_pre_key(phone.number)
    noise, tls = noise_authority(store), tls_authority(store)
    session, _ = companion.first_message(bundle_of_phone(store, phone), "text")
    store.save_session(phone.number, companion.id, session)
    store.save_addressing(companion.id, phone.number, USER_SERVER)
    store.add_undelivered(companion.id, "ID", b"stanza")
    store.add_sent(phone.number, SentMessage("ID", "15551230002", b"body"), NOW)
    store.add_received(phone.number, InboxMessage("ID", companion.id, "text", NOW))
    store.close()

    store = Store(path)
    assert store.phone(phone.number) == phone
    assert store.devices(phone.number) == [companion.device]
    assert store.phone_pre_key(phone.number, pre_key[0]) == pre_key[1]
    assert (noise_authority(store), tls_authority(store)) == (noise, tls)
    assert store.session(phone.number, companion.id).dump() == session.dump()
    assert store.addressing(companion.id, phone.number) == USER_SERVER
    assert store.undelivered(companion.id) == [b"stanza"]
    assert store.sent(phone.number, "ID") == SentMessage("ID", "15551230002", b"body")
    assert store.inbox(phone.number) == [InboxMessage("ID", companion.id, "text", NOW)]
    assert store.count_pre_keys(companion.id) == 10
    assert store.new_device_number(phone.number) == 2
    store.close()


def test_a_database_of_another_version_is_kept_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    other = sqlite3.connect(path)
    other.executescript("PRAGMA user_version = 7; CREATE TABLE phone (number TEXT); INSERT INTO phone VALUES ('1');")
    other.close()

    store = Store(path)
    assert store.add_phone("15551230001", "Phone", NOW).number == "15551230001"
    store.close()
    kept = sqlite3.connect(tmp_path / "state.db.7")
    assert kept.execute("SELECT number FROM phone").fetchall() == [("1",)]
    kept.close()


def test_the_database_is_its_owners_alone(tmp_path: Path) -> None:
    Store(tmp_path / "state.db").close()
    assert (tmp_path / "state.db").stat().st_mode & 0o777 == 0o600


def test_a_failed_transaction_changes_nothing(store: Store) -> None:
    def fail() -> None:
        with store.transaction():
            store.add_phone("15551230001", "Phone", NOW)
            with store.transaction():
                store.save_secret("name", b"value")
            raise RuntimeError("failed")

    with pytest.raises(RuntimeError, match="failed"):
        fail()
    assert store.phones() == []
    assert store.secret("name") is None


def test_a_number_exists_once(store: Store, phone: Phone) -> None:
    with pytest.raises(ValueError, match="there is a phone"):
        store.add_phone(phone.number, "Other", NOW)


def test_a_phone_is_found_by_number_and_by_lid(store: Store, phone: Phone) -> None:
    assert store.phone_at(phone.pn) == store.phone_at(phone.lid) == phone
    assert store.phone_at(JID(phone.lid_user, LID_SERVER, 3)) == phone
    assert store.phone_at(JID(phone.lid_user, USER_SERVER)) is None
    assert store.phone_at(JID(phone.number, "g.us")) is None


def test_a_one_time_prekey_is_handed_out_once(store: Store, phone: Phone) -> None:
    companion = link(store, phone, pre_keys=3)
    taken = [store.take_pre_key(companion.id) for _ in range(4)]
    assert [key and key.id for key in taken] == [1, 2, 3, None]


def test_a_phones_own_prekeys_are_numbered_on_and_deleted(store: Store, phone: Phone) -> None:
    first, _ = store.new_phone_pre_key(phone.number)
    store.delete_phone_pre_key(phone.number, first)
    second, _ = store.new_phone_pre_key(phone.number)
    assert (first, second) == (1, 2)
    assert store.phone_pre_key(phone.number, first) is None


def test_what_belongs_to_a_device_goes_with_it(store: Store, phone: Phone) -> None:
    companion = link(store, phone)
    store.add_undelivered(companion.id, "ID", b"stanza")
    assert store.delete_device(companion.id)
    assert not store.delete_device(companion.id)
    assert store.count_pre_keys(companion.id) == 0
    assert store.undelivered(companion.id) == []
    assert link(store, phone).id.device == 2


def test_a_confirmed_message_is_forgotten(store: Store, phone: Phone) -> None:
    companion, other = link(store, phone), link(store, phone)
    for id in (companion.id, other.id):
        for message in ("A", "B", "C"):
            store.add_undelivered(id, message, message.encode())
    store.confirm(companion.id, ["A", "C", "unknown"])
    assert store.undelivered(companion.id) == [b"B"]
    assert store.undelivered(other.id) == [b"A", b"B", b"C"]


def test_a_rotated_signed_prekey(store: Store, phone: Phone) -> None:
    companion = link(store, phone)
    rotated = SignedPreKey(2, bytes(32), bytes(64))
    store.save_signed_pre_key(companion.id, rotated)
    device = store.device(companion.id)
    assert device is not None
    assert device.keys.signed_pre_key == rotated


def test_the_outbox_keeps_the_last_thousand(store: Store, phone: Phone) -> None:
    for number in range(1005):
        store.add_sent(phone.number, SentMessage(str(number), "1", b""), NOW)
    assert store.sent(phone.number, "4") is None
    assert store.sent(phone.number, "5") is not None
    assert store.sent(phone.number, "1004") is not None


def test_who_has_written_to_a_phone(store: Store, phone: Phone) -> None:
    companion = link(store, phone)
    assert store.correspondents("15551230002") == []
    store.save_addressing(companion.id, "15551230002", LID_SERVER)
    assert store.correspondents("15551230002") == [DeviceId(phone.number, 1)]
