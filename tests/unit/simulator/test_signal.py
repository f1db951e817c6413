"""Signal sessions under loss, reordering, repetition, both sides starting at once, and restarts."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsapp_simulator.keys import KeyPair, serialized
from whatsapp_simulator.protobuf import PreKeySignalMessage, SignalMessage
from whatsapp_simulator.signal.ratchet import MAX_SKIPPED, UndecryptableError, completed
from whatsapp_simulator.signal.session import Ciphertext, OwnKeys, Session, pre_key_of
from whatsapp_simulator.signal.x3dh import KeyAgreementError, PreKey, PreKeyBundle, SignedPreKey

SIGNED_ID, PRE_KEY_ID = 1, 5


@dataclass
class Party:
    """One end of a session with all the keys it needs."""

    identity: KeyPair = field(default_factory=KeyPair.generate)
    signed: KeyPair = field(default_factory=KeyPair.generate)
    pre_key: KeyPair = field(default_factory=KeyPair.generate)
    session: Session = field(default_factory=Session)

    @property
    def keys(self) -> OwnKeys:
        return OwnKeys(self.identity, {SIGNED_ID: self.signed}.get, {PRE_KEY_ID: self.pre_key}.get)

    def bundle(self, one_time: bool = True) -> PreKeyBundle:
        return PreKeyBundle(
            7,
            self.identity.public,
            SignedPreKey(SIGNED_ID, self.signed.public, self.identity.sign(serialized(self.signed.public))),
            PreKey(PRE_KEY_ID, self.pre_key.public) if one_time else None,
        )

    def write(self, to: "Party", text: bytes) -> Ciphertext:
        if self.session.established:
            return self.session.encrypt(self.identity, text)
        return self.session.initiate(self.identity, 9, to.bundle(), text)

    def read(self, message: Ciphertext) -> bytes:
        return self.session.decrypt(self.keys, message)

    def restart(self) -> None:
        self.session = Session.load(self.session.dump())


@pytest.fixture
def alice() -> Party:
    return Party()


@pytest.fixture
def bob() -> Party:
    return Party()


def test_first_messages_can_be_read_alone_until_one_is_answered(alice: Party, bob: Party) -> None:
    first, second = alice.write(bob, b"first"), alice.write(bob, b"second")
    assert (first.type, second.type) == ("pkmsg", "pkmsg")
    assert bob.read(second) == b"second"
    assert bob.read(first) == b"first"
    answer = bob.write(alice, b"answer")
    assert answer.type == "msg"
    assert alice.read(answer) == b"answer"
    assert alice.write(bob, b"third").type == "msg"


def test_the_first_message_as_libsignal_serialises_it(alice: Party, bob: Party) -> None:
    message = alice.write(bob, b"first")
    assert message.data[0] == 0x33
    outer = PreKeySignalMessage()
    outer.ParseFromString(message.data[1:])
    assert (outer.registration_id, outer.pre_key_id, outer.signed_pre_key_id) == (9, PRE_KEY_ID, SIGNED_ID)
    assert outer.identity_key == serialized(alice.identity.public)
    assert outer.message[0] == 0x33
    inner = SignalMessage()
    inner.ParseFromString(outer.message[1:-8])
    assert (inner.counter, inner.previous_counter, len(inner.ratchet_key)) == (0, 0, 33)
    assert pre_key_of(message) == PRE_KEY_ID


def test_without_a_one_time_prekey(alice: Party, bob: Party) -> None:
    message = alice.session.initiate(alice.identity, 9, bob.bundle(one_time=False), b"text")
    assert pre_key_of(message) is None
    assert bob.read(message) == b"text"


@given(st.data())
def test_any_order_loss_and_restart(data: st.DataObject) -> None:
    """Messages of both sides travel in any order; some are lost; each end restarts at any moment."""
    alice, bob = Party(), Party()
    assert bob.read(alice.write(bob, b"hello")) == b"hello"
    assert alice.read(bob.write(alice, b"hello")) == b"hello"
    under_way: list[tuple[Party, Ciphertext, bytes]] = []
    for number in range(data.draw(st.integers(1, 30))):
        match data.draw(st.sampled_from(["alice writes", "bob writes", "arrives", "arrives", "lost", "restart"])):
            case "alice writes":
                under_way.append((bob, alice.write(bob, b"%d" % number), b"%d" % number))
            case "bob writes":
                under_way.append((alice, bob.write(alice, b"%d" % number), b"%d" % number))
            case "arrives" if under_way:
                reader, message, text = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
                assert reader.read(message) == text
            case "lost" if under_way:
                under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
            case "restart":
                alice.restart()
                bob.restart()
    for reader, message, text in under_way:
        assert reader.read(message) == text


def test_the_last_message_of_a_chain_may_come_after_the_next_chain(alice: Party, bob: Party) -> None:
    assert bob.read(alice.write(bob, b"1")) == b"1"
    assert alice.read(bob.write(alice, b"2")) == b"2"
    late = alice.write(bob, b"late")
    assert alice.read(bob.write(alice, b"3")) == b"3"
    assert bob.read(alice.write(bob, b"4")) == b"4"
    assert bob.read(late) == b"late"


def test_a_repetition_is_refused_and_harms_nothing(alice: Party, bob: Party) -> None:
    first = alice.write(bob, b"first")
    assert bob.read(first) == b"first"
    with pytest.raises(UndecryptableError):
        bob.read(first)
    assert bob.read(alice.write(bob, b"second")) == b"second"


@given(st.integers(0, 10_000))
def test_a_changed_bit_is_refused_and_harms_nothing(position: int) -> None:
    alice, bob = Party(), Party()
    assert bob.read(alice.write(bob, b"1")) == b"1"
    assert alice.read(bob.write(alice, b"2")) == b"2"
    message = alice.write(bob, b"text")
    changed = bytearray(message.data)
    bit = position % (8 * len(changed))
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(UndecryptableError):
        bob.read(Ciphertext(message.type, bytes(changed)))
    assert bob.read(message) == b"text"


def test_both_start_at_once(alice: Party, bob: Party) -> None:
    from_alice, from_bob = alice.write(bob, b"from alice"), bob.write(alice, b"from bob")
    assert alice.read(from_bob) == b"from bob"
    assert bob.read(from_alice) == b"from alice"
    for number in range(4):
        assert bob.read(alice.write(bob, b"a%d" % number)) == b"a%d" % number
        assert alice.read(bob.write(alice, b"b%d" % number)) == b"b%d" % number


def test_a_peer_that_lost_its_session_starts_another(alice: Party, bob: Party) -> None:
    bob.read(alice.write(bob, b"1"))
    alice.read(bob.write(alice, b"2"))
    undelivered = bob.write(alice, b"3")
    bob.session = Session()
    with pytest.raises(UndecryptableError):
        bob.read(alice.write(bob, b"lost"))
    assert alice.read(bob.write(alice, b"again")) == b"again"
    assert bob.read(alice.write(bob, b"4")) == b"4"
    assert alice.read(undelivered) == b"3"


def test_too_many_skipped_messages_are_refused(alice: Party, bob: Party) -> None:
    bob.read(alice.write(bob, b"1"))
    for _ in range(MAX_SKIPPED + 2):
        message = alice.write(bob, b"skipped")
    with pytest.raises(UndecryptableError):
        bob.read(message)


def test_an_unsigned_bundle_is_refused(alice: Party, bob: Party) -> None:
    bundle = bob.bundle()
    forged = PreKeyBundle(7, alice.identity.public, bundle.signed_pre_key, bundle.pre_key)
    with pytest.raises(KeyAgreementError):
        alice.session.initiate(alice.identity, 9, forged, b"text")
    assert not alice.session.established


@pytest.mark.parametrize("missing", [SIGNED_ID, PRE_KEY_ID])
def test_keys_that_are_gone_are_named(alice: Party, bob: Party, missing: int) -> None:
    message = alice.write(bob, b"text")
    keys = OwnKeys(
        bob.identity,
        {SIGNED_ID: bob.signed}.get if missing != SIGNED_ID else lambda _: None,
        {PRE_KEY_ID: bob.pre_key}.get if missing != PRE_KEY_ID else lambda _: None,
    )
    with pytest.raises(UndecryptableError, match="prekey is not there"):
        bob.session.decrypt(keys, message)


@pytest.mark.parametrize("kind", ["pkmsg", "msg"])
@given(data=st.binary(max_size=80))
def test_any_bytes_are_undecryptable(kind: str, data: bytes) -> None:
    bob = Party()
    with pytest.raises(UndecryptableError):
        bob.read(Ciphertext("pkmsg" if kind == "pkmsg" else "msg", data))


def test_writing_without_a_session_is_refused(alice: Party) -> None:
    with pytest.raises(LookupError):
        alice.session.encrypt(alice.identity, b"text")


async def test_a_coroutine_that_waits_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="waited"):
        completed(asyncio.sleep(1))
