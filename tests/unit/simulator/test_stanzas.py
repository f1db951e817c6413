"""What the server does with stanzas: functions of the stanza, the store, and the time."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from tests.unit.simulator.companions import NOW, Companion, link
from whatsapp_simulator.binary.node import JID, LID_SERVER, SERVER, USER_SERVER, Attribute, MalformedNodeError, Node
from whatsapp_simulator.fault_stanzas import damaged, is_first_copy
from whatsapp_simulator.phone import (
    MAX_RETRIES,
    Delivery,
    address,
    bundle_nodes,
    bundle_of_phone,
    pad,
    send_text,
    unpad,
)
from whatsapp_simulator.protobuf import E2EMessage
from whatsapp_simulator.signal.ratchet import UndecryptableError
from whatsapp_simulator.signal.session import Ciphertext, Session
from whatsapp_simulator.signal.x3dh import PreKeyBundle, SignedPreKey
from whatsapp_simulator.stanzas.dispatch import handle
from whatsapp_simulator.stanzas.reaction import Reaction, Request
from whatsapp_simulator.store import DeviceId, Store


class World:
    """Two phones; the first has two companions, the second one."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.phone = store.add_phone("15551230001", "Phone", NOW)
        self.friend = store.add_phone("15551230002", "Friend", NOW)
        self.first, self.second = link(store, self.phone), link(store, self.phone)
        self.friends = link(store, self.friend)

    def handle(self, stanza: Node, sender: Companion | None = None) -> Reaction:
        companion = sender or self.first
        device, phone = self.store.device(companion.id), self.store.phone(companion.id.number)
        assert device is not None
        assert phone is not None
        return handle(Request(stanza, device, phone, self.store, NOW))

    def iq(self, namespace: str, kind: str, *content: Node, sender: Companion | None = None) -> Node:
        """The answer to an IQ."""
        attributes: dict[str, Attribute] = {"id": "1", "type": kind, "xmlns": namespace, "to": SERVER}
        (answer,) = self.handle(Node("iq", attributes, content or None), sender).replies
        assert (answer.get("id"), answer.get("from")) == ("1", "s.whatsapp.net")
        return answer

    def send(self, to: JID, *participants: Node, sender: Companion | None = None, identifier: str = "M") -> Reaction:
        content = [Node("participants", content=participants), Node("device-identity", content=b"identity")]
        return self.handle(Node("message", {"to": to, "id": identifier, "type": "text"}, content), sender)


@pytest.fixture
def world() -> Iterator[World]:
    store = Store(None)
    yield World(store)
    store.close()


def to(jid: JID, message: Ciphertext, count: int = 0) -> Node:
    extra: dict[str, Attribute] = {"count": str(count)} if count else {}
    return Node("to", {"jid": jid}, [Node("enc", {"v": "2", "type": message.type, **extra}, message.data)])


def decrypted(companion: Companion, session: Session, delivery: Delivery) -> E2EMessage:
    enc = delivery.stanza.require("enc")
    kind = enc.text("type")
    message = Ciphertext("pkmsg" if kind == "pkmsg" else "msg", enc.data)
    return E2EMessage.FromString(unpad(session.decrypt(companion.keys, message)))


# Keys


def test_prekeys_are_counted_and_added(world: World) -> None:
    assert world.iq("encrypt", "get", Node("count")).require("count").get("value") == "10"
    keys = [
        Node("key", content=[Node("id", content=i.to_bytes(3, "big")), Node("value", content=bytes(32))])
        for i in range(100, 105)
    ]
    assert world.iq("encrypt", "set", Node("list", content=keys)).get("type") == "result"
    assert world.iq("encrypt", "get", Node("count")).require("count").get("value") == "15"


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_signed_prekey_is_replaced(world: World, wrapped: bool) -> None:
    skey = Node(
        "skey",
        content=[
            Node("id", content=b"\0\0\7"),
            Node("value", content=bytes(32)),
            Node("signature", content=bytes(64)),
        ],
    )
    world.iq("encrypt", "set", Node("rotate", content=[skey]) if wrapped else skey)
    device = world.store.device(world.first.id)
    assert device is not None
    assert device.keys.signed_pre_key == SignedPreKey(7, bytes(32), bytes(64))


@pytest.mark.parametrize(("identifier", "value"), [(b"\0\1", bytes(32)), (b"\0\0\1", bytes(31))])
def test_malformed_keys_are_refused_and_none_is_kept(world: World, identifier: bytes, value: bytes) -> None:
    good = Node("key", content=[Node("id", content=b"\0\1\0"), Node("value", content=bytes(32))])
    bad = Node("key", content=[Node("id", content=identifier), Node("value", content=value)])
    with pytest.raises(MalformedNodeError):
        world.iq("encrypt", "set", Node("list", content=[good, bad]))
    assert world.store.count_pre_keys(world.first.id) == 10


def test_bundles_of_phones_companions_and_strangers(world: World) -> None:
    friends_device = address(world.friend, 1, LID_SERVER)
    asked = [world.friend.lid, friends_device, address(world.friend, 9, LID_SERVER), JID("1", USER_SERVER)]
    answer = world.iq("encrypt", "get", Node("key", content=[Node("user", {"jid": jid}) for jid in asked]))
    phone, companion, gone, stranger = answer.require("list").children
    assert phone.require("identity").data == world.friend.identity.public
    assert companion.require("identity").data == world.friends.identity.public
    assert companion.require("device-identity").data == b"signed identity"
    assert struct.unpack(">I", companion.require("registration").data) == (77,)
    assert world.store.count_pre_keys(world.friends.id) == 9
    assert [node.require("error").get("code") for node in (gone, stranger)] == ["404", "404"]


def test_a_bundle_without_one_time_prekeys(world: World) -> None:
    while world.store.take_pre_key(world.friends.id):
        continue
    jid = address(world.friend, 1, USER_SERVER)
    answer = world.iq("encrypt", "get", Node("key", content=[Node("user", {"jid": jid})]))
    assert answer.require("list", "user").find("key") is None


def test_a_query_for_no_bundle_is_refused(world: World) -> None:
    assert world.iq("encrypt", "get", Node("key", content=[])).get("type") == "error"


# Lookups


def usync(users: Sequence[Node], *wanted: str) -> Node:
    attributes = {"sid": "7", "index": "0", "last": "true", "mode": "query", "context": "message"}
    query = Node("query", content=[Node(tag) for tag in wanted])
    return Node("usync", attributes, [query, Node("list", content=users)])


def test_numbers_are_looked_up(world: World) -> None:
    users = [Node("user", content=[Node("contact", content=text)]) for text in ("+15551230002", "15559999999")]
    answer = world.iq("usync", "get", usync(users, "contact", "lid"))
    assert answer.require("usync").get("sid") == "7"
    friend, stranger = answer.require("usync", "list").children
    assert (friend.jid("jid"), friend.jid("pn_jid")) == (world.friend.lid, world.friend.pn)
    assert friend.require("contact").get("type") == "in"
    assert friend.require("contact").data == b"+15551230002"
    assert friend.require("lid").jid("val") == world.friend.lid
    assert stranger.require("contact").get("type") == "out"
    assert stranger.find("lid") is None


@pytest.mark.parametrize("server", [LID_SERVER, USER_SERVER])
def test_devices_are_looked_up_by_either_address(world: World, server: str) -> None:
    asked = address(world.phone, 0, server)
    answer = world.iq("usync", "get", usync([Node("user", {"jid": asked})], "devices", "status", "picture"))
    user = answer.require("usync", "list", "user")
    assert user.jid("jid") == asked
    devices = list(user.require("devices", "device-list").children)
    assert [(node.get("id"), node.get("key-index")) for node in devices] == [("0", None), ("1", "1"), ("2", "2")]


# Leaving


def test_a_logout_forgets_the_device_and_tells_the_others(world: World) -> None:
    jid = address(world.phone, 1, USER_SERVER)
    node = Node("remove-companion-device", {"jid": jid, "reason": "user_initiated"})
    reaction = world.handle(Node("iq", {"id": "1", "type": "set", "xmlns": "md"}, [node]))
    assert reaction.unlinked
    assert [reply.get("type") for reply in reaction.replies] == ["result"]
    assert world.store.device(world.first.id) is None
    assert {delivery.to for delivery in reaction.deliveries} == {world.second.id}
    change = reaction.deliveries[0].stanza.require("remove")
    assert change.require("device").jid("jid").device == 1


@pytest.mark.parametrize("jid", [JID("15551230001", USER_SERVER, 2), JID("15551230002", USER_SERVER, 1)])
def test_only_oneself_can_be_logged_out(world: World, jid: JID) -> None:
    answer = world.iq("md", "set", Node("remove-companion-device", {"jid": jid}))
    assert answer.require("error").get("code") == "405"
    assert world.store.device(DeviceId(jid.user, jid.device)) is not None


# Messages


def test_a_phone_reads_and_confirms(world: World) -> None:
    _, message = world.first.first_message(bundle_of_phone(world.store, world.friend), "hello")
    reaction = world.send(world.friend.lid, to(world.friend.lid, message))
    (ack,) = reaction.replies
    assert (ack.tag, ack.get("class"), ack.get("id"), ack.get("error")) == ("ack", "message", "M", None)
    assert ack.jid("from") == world.friend.lid
    (receipt,) = reaction.deliveries
    assert (receipt.to, receipt.kept, receipt.stanza.tag) == (world.first.id, False, "receipt")
    assert receipt.stanza.jid("from") == world.friend.lid
    (received,) = world.store.inbox(world.friend.number)
    assert (received.text, received.sender) == ("hello", world.first.id)


def test_a_phone_does_not_list_what_its_own_companion_sent(world: World) -> None:
    _, message = world.first.first_message(bundle_of_phone(world.store, world.phone), "hello")
    reaction = world.send(world.friend.lid, to(world.phone.lid, message))
    assert reaction.deliveries == ()
    assert world.store.inbox(world.phone.number) == []


def test_a_phone_asks_again_for_what_it_cannot_read(world: World) -> None:
    unreadable = Ciphertext("msg", b"\x33 unreadable")
    (retry,) = world.send(world.friend.pn, to(world.friend.pn, unreadable)).deliveries
    stanza = retry.stanza
    assert (retry.to, stanza.get("type"), stanza.jid("from")) == (world.first.id, "retry", world.friend.pn)
    assert stanza.require("retry").get("count") == "1"
    assert stanza.require("keys", "identity").data == world.friend.identity.public
    for name in ("key", "skey"):
        assert stanza.require("keys", name, "value").data
    (again,) = world.send(world.friend.pn, to(world.friend.pn, unreadable, count=2)).deliveries
    assert again.stanza.require("retry").get("count") == "3"
    assert world.send(world.friend.pn, to(world.friend.pn, unreadable, count=MAX_RETRIES)).deliveries == ()


@pytest.mark.parametrize("server", [LID_SERVER, USER_SERVER])
def test_companions_get_their_own_ciphertext(world: World, server: str) -> None:
    chat = address(world.friend, 0, server)
    copies = [
        to(address(world.friend, 1, server), Ciphertext("pkmsg", b"for the friend")),
        to(address(world.phone, 2, server), Ciphertext("msg", b"for the second")),
    ]
    reaction = world.send(chat, *copies)
    forwarded = {delivery.to: delivery.stanza for delivery in reaction.deliveries}
    assert all(delivery.kept for delivery in reaction.deliveries)
    friends, second = forwarded[world.friends.id], forwarded[world.second.id]
    assert (friends.require("enc").data, second.require("enc").data) == (b"for the friend", b"for the second")
    assert friends.jid("from") == address(world.phone, 1, LID_SERVER)
    assert friends.jid("sender_pn") == address(world.phone, 1, USER_SERVER)
    assert friends.require("device-identity").data == b"identity"
    assert friends.get("recipient") is None
    assert second.jid("recipient") == world.friend.lid


def test_a_reader_that_writes_by_number_is_written_to_by_number(world: World) -> None:
    world.send(world.phone.pn, to(world.phone.pn, Ciphertext("msg", b"x")), sender=world.friends)
    (delivery,) = world.send(
        world.friend.lid, to(address(world.friend, 1, LID_SERVER), Ciphertext("msg", b"x"))
    ).deliveries
    assert delivery.stanza.jid("from") == address(world.phone, 1, USER_SERVER)
    assert delivery.stanza.jid("sender_lid") == address(world.phone, 1, LID_SERVER)
    assert delivery.stanza.get("addressing_mode") == "pn"


def test_a_message_to_nobody_is_refused_and_one_to_a_group_goes_nowhere(world: World) -> None:
    (refused,) = world.send(JID("15559999999", USER_SERVER)).replies
    assert refused.get("error") == "404"
    reaction = world.send(JID("123-456", "g.us"))
    assert [reply.get("error") for reply in reaction.replies] == [None]
    assert reaction.deliveries == ()


def test_a_message_without_content_is_malformed(world: World) -> None:
    with pytest.raises(MalformedNodeError):
        world.handle(Node("message", {"to": world.friend.lid, "id": "M"}))


def test_a_phone_writes_to_all_devices(world: World) -> None:
    identifier, deliveries = send_text(world.store, world.friend, world.phone, "hello", NOW)
    by_reader = {delivery.to: delivery for delivery in deliveries}
    assert set(by_reader) == {world.first.id, world.second.id, world.friends.id}
    assert all(delivery.stanza.get("id") == identifier for delivery in deliveries)
    for companion in (world.first, world.second):
        message = decrypted(companion, Session(), by_reader[companion.id])
        assert message.conversation == "hello"
    copy = decrypted(world.friends, Session(), by_reader[world.friends.id])
    assert copy.deviceSentMessage.message.conversation == "hello"
    assert copy.deviceSentMessage.destinationJID == str(world.phone.lid)
    assert by_reader[world.friends.id].stanza.jid("recipient") == world.phone.lid
    assert [message.text for message in world.store.inbox(world.phone.number)] == ["hello"]


def test_a_damaged_message_is_asked_for_again(world: World) -> None:
    """Both as the first message of a conversation, and within one."""
    session = Session()
    for text in ("first", "second"):
        identifier, deliveries = send_text(world.store, world.friend, world.phone, text, NOW)
        (delivery,) = [delivery for delivery in deliveries if delivery.to == world.first.id]
        assert is_first_copy(delivery.stanza)
        with pytest.raises(UndecryptableError):
            decrypted(world.first, session, replace(delivery, stanza=damaged(delivery.stanza)))
        (again,) = _retry(world, identifier, 1)
        assert not is_first_copy(again.stanza)
        assert decrypted(world.first, session, again).conversation == text


# Receipts


def receipt(sender: JID, identifier: str, kind: str | None = None, *content: Node) -> Node:
    attributes: dict[str, Attribute] = {"to": sender, "id": identifier, **({"type": kind} if kind else {})}
    return Node("receipt", attributes, content or None)


def test_a_receipt_confirms_all_it_names(world: World) -> None:
    for identifier in ("A", "B", "C"):
        world.store.add_undelivered(world.first.id, identifier, identifier.encode())
    more = Node("list", content=[Node("item", {"id": "C"})])
    (ack,) = world.handle(receipt(world.friend.lid, "A", "read", more)).replies
    assert (ack.get("class"), ack.get("id"), ack.get("type")) == ("receipt", "A", "read")
    assert world.store.undelivered(world.first.id) == [b"B"]


def test_a_receipt_reaches_the_authors_companions(world: World) -> None:
    (delivery,) = world.handle(receipt(world.friend.lid, "A", "read")).deliveries
    assert (delivery.to, delivery.kept) == (world.friends.id, False)
    assert delivery.stanza.jid("from") == world.phone.lid
    assert delivery.stanza.get("type") == "read"


def test_a_retry_receipt_for_a_companion_reaches_that_companion(world: World) -> None:
    author = address(world.friend, 1, LID_SERVER)
    content = Node("retry", {"count": "1"}), Node("registration", content=bytes(4))
    (delivery,) = world.handle(receipt(author, "A", "retry", *content)).deliveries
    assert delivery.to == world.friends.id
    assert delivery.stanza.jid("from") == address(world.phone, 1, LID_SERVER)
    assert delivery.stanza.require("retry").get("count") == "1"


def _retry(world: World, identifier: str, count: int, bundle: PreKeyBundle | None = None) -> tuple[Delivery, ...]:
    keys = [Node("keys", content=bundle_nodes(bundle)[1:])] if bundle else []
    retry = Node("retry", {"count": count, "id": identifier})
    return world.handle(receipt(world.friend.lid, identifier, "retry", retry, *keys)).deliveries


def test_a_phone_answers_retry_receipts(world: World) -> None:
    identifier, _ = send_text(world.store, world.friend, world.phone, "hello", NOW)
    before = world.store.count_pre_keys(world.first.id)
    (again,) = _retry(world, identifier, 1)
    assert (again.to, again.kept, again.stanza.get("id")) == (world.first.id, True, identifier)
    assert decrypted(world.first, Session(), again).conversation == "hello"
    assert world.store.count_pre_keys(world.first.id) == before - 1
    keys = world.first.registration
    (with_keys,) = _retry(world, identifier, 2, PreKeyBundle(77, keys.identity, keys.signed_pre_key))
    assert decrypted(world.first, Session(), with_keys).conversation == "hello"
    assert world.store.count_pre_keys(world.first.id) == before - 1


def test_a_phone_stops_answering_retry_receipts(world: World) -> None:
    identifier, _ = send_text(world.store, world.friend, world.phone, "hello", NOW)
    assert _retry(world, identifier, MAX_RETRIES + 1) == ()
    assert _retry(world, "unknown", 1) == ()
    forged = PreKeyBundle(77, world.second.identity.public, world.first.registration.signed_pre_key)
    assert _retry(world, identifier, 1, forged) == ()


# Everything else


def test_unknown_stanzas_are_ignored(world: World) -> None:
    for node in (Node("presence"), Node("ib"), Node("iq", {"id": "1", "type": "result"}), Node("new", {"id": "1"})):
        assert world.handle(node) == Reaction()


def test_being_active_asks_for_what_was_kept(world: World) -> None:
    reaction = world.handle(Node("iq", {"id": "1", "type": "set", "xmlns": "passive"}, [Node("active")]))
    assert reaction.synchronized


@pytest.mark.parametrize("body", [b"", b"a", b"a" * 100])
def test_padding(body: bytes) -> None:
    padded = pad(body)
    assert 1 <= len(padded) - len(body) <= 15
    assert unpad(padded) == body


@pytest.mark.parametrize("padded", [b"", b"\0", b"\5", b"ab\x09"])
def test_impossible_padding(padded: bytes) -> None:
    with pytest.raises(ValueError, match="padding"):
        unpad(padded)
