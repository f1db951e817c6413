"""Linking without a network: references, their time, and what a phone is told when it does not work."""

import base64
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest

from tests.unit.simulator.companions import NOW, Companion
from whatsapp_simulator.behaviours import (
    BadAccountSignature,
    BadHMAC,
    Behaviour,
    FewRefs,
    IgnoreCode,
    NoMultidevice,
    Passkey,
    PhoneNeverFinishes,
    RefuseCode,
)
from whatsapp_simulator.binary.node import JID, USER_SERVER, Node
from whatsapp_simulator.connection import Connection
from whatsapp_simulator.faults import Faults, Scope
from whatsapp_simulator.linking import Candidate, Linking
from whatsapp_simulator.pairing import adv
from whatsapp_simulator.problems import ProblemError
from whatsapp_simulator.store import DeviceId, Phone, Store
from whatsapp_simulator.stream import ClientGoneError

SECRET = bytes(range(32))


class FakeConnection:
    """A client that answers `pair-success` at once, strictly or as told."""

    def __init__(self, companion: Companion) -> None:
        self.companion = companion
        self.restarted = False
        self.gone = False
        self.signature: bytes | None = None
        self.told: list[Node] = []

    async def request(self, namespace: str, content: Sequence[Node]) -> Node:
        if self.gone:
            raise ClientGoneError("gone")
        envelope = content[0].require("device-identity").data
        try:
            signed = adv.answer(envelope, SECRET, self.companion.identity)
        except adv.EnvelopeError as error:
            return Node("iq", {"type": "error"}, [Node("error", {"code": 401, "text": str(error)})])
        identity = Node("device-identity", content=self.signature or signed)
        return Node("iq", {"type": "result"}, [Node("pair-device-sign", content=[identity])])

    async def send(self, stanza: Node) -> None:
        if self.gone:
            raise ConnectionResetError
        self.told.append(stanza)

    async def notify(self, kind: str, content: Sequence[Node]) -> None:
        await self.send(Node("notification", {"type": kind}, content))

    async def restart(self) -> None:
        self.restarted = True


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class World:
    """A phone, a client that waits, and the linking between them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = Clock()
        self.faults = Faults()
        self.linking = Linking(store, self.faults, self.clock, refs=6)
        self.phone = store.add_phone("15551230001", "Phone", NOW)
        self.connection = FakeConnection(Companion(DeviceId("", 0)))
        self.candidate = self.register(self.connection)

    def register(self, connection: FakeConnection) -> Candidate:
        return self.linking.register(cast(Connection, connection), connection.companion.registration)

    def qr(self, ref: str) -> str:
        keys = self.connection.companion.registration
        return ",".join([ref, *(base64.b64encode(key).decode() for key in (keys.noise, keys.identity, SECRET))])

    async def scan(self, index: int = 0, phone: Phone | None = None) -> DeviceId:
        return await self.linking.scan(phone or self.phone, self.qr(self.candidate.refs[index]))

    async def problem(self, **arguments: Any) -> tuple[int, str]:
        with pytest.raises(ProblemError) as caught:
            await self.scan(**arguments)
        return caught.value.status, caught.value.name


@pytest.fixture
def world() -> Iterator[World]:
    store = Store(None)
    yield World(store)
    store.close()


async def test_a_scan_links_the_client(world: World) -> None:
    id = await world.scan()
    assert id == DeviceId("15551230001", 1)
    assert world.connection.restarted
    device = world.store.device(id)
    assert device is not None
    assert device.keys == world.connection.companion.registration


@pytest.mark.parametrize(
    ("index", "seconds", "works"), [(0, 69, True), (0, 71, False), (1, 89, True), (1, 91, False), (5, 169, True)]
)
async def test_a_reference_lives_as_long_as_its_qr(world: World, index: int, seconds: float, works: bool) -> None:
    world.clock.now += seconds
    if works:
        await world.scan(index)
    else:
        assert await world.problem(index=index) == (410, "expired-ref")


async def test_a_client_that_left_leaves_expired_references(world: World) -> None:
    world.linking.forget(cast(Connection, world.connection))
    assert world.linking.candidates() == []
    assert await world.problem() == (410, "expired-ref")


async def test_references_are_never_reused(world: World) -> None:
    other = world.register(FakeConnection(Companion(DeviceId("", 0))))
    assert not {*world.candidate.refs} & {*other.refs}
    assert world.linking.candidates() == [world.candidate, other]


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (3, 3), (50, 6)])
async def test_few_references(world: World, asked: int, given: int) -> None:
    world.faults.add(FewRefs(asked), Scope(), 1)
    assert len(world.register(FakeConnection(Companion(DeviceId("", 0)))).refs) == given
    assert len(world.register(FakeConnection(Companion(DeviceId("", 0)))).refs) == 6


async def test_one_phone_is_faster(world: World) -> None:
    await world.scan()
    assert await world.problem(index=1) == (409, "already-scanned")


@pytest.mark.parametrize(
    ("forgery", "refusal"), [(BadHMAC(), "hmac-mismatch"), (BadAccountSignature(), "signature-mismatch")]
)
async def test_a_forgery_is_refused_by_the_client(world: World, forgery: Behaviour, refusal: str) -> None:
    world.faults.add(forgery, Scope("15551230001"), 1)
    with pytest.raises(ProblemError, match=f"refused-by-client.*401 {refusal}"):
        await world.scan()
    assert world.store.devices("15551230001") == []


@pytest.mark.parametrize(
    ("obstacle", "problem", "told"),
    [
        (PhoneNeverFinishes(), (504, "never-finished"), None),
        (NoMultidevice(), (409, "no-multidevice"), "downgrade_webclient"),
        (Passkey(), (409, "passkey-demanded"), "passkey_request_options"),
    ],
)
async def test_what_keeps_a_phone_from_linking(
    world: World, obstacle: Behaviour, problem: tuple[int, str], told: str | None
) -> None:
    world.faults.add(obstacle, Scope(world.phone.number), 1)
    assert await world.problem() == problem
    assert [stanza.children[0].tag for stanza in world.connection.told] == ([told] if told else [])
    assert not world.connection.restarted
    assert world.store.devices(world.phone.number) == []


async def test_a_phone_without_multidevice_leaves_the_qr_to_others(world: World) -> None:
    world.faults.add(NoMultidevice(), Scope(world.phone.number), 1)
    await world.problem()
    await world.scan()
    assert world.connection.restarted


async def test_an_obstacle_for_a_client_that_is_gone(world: World) -> None:
    world.faults.add(Passkey(), Scope(), 1)
    world.connection.gone = True
    assert await world.problem() == (410, "client-gone")


async def test_a_client_that_is_gone(world: World) -> None:
    world.connection.gone = True
    assert await world.problem() == (410, "client-gone")


async def test_a_wrong_device_signature(world: World) -> None:
    world.connection.signature = b"\x22\x40" + bytes(64)
    assert await world.problem() == (409, "bad-signature")
    assert world.store.devices("15551230001") == []


async def test_a_code_that_nobody_shows(world: World) -> None:
    with pytest.raises(ProblemError) as caught:
        await world.linking.enter_code(world.phone, "ABCD-EFGH")
    assert (caught.value.status, caught.value.name) == (404, "no-code-waiting")


async def test_a_finish_without_a_hello_is_refused(world: World) -> None:
    stage = Node("link_code_companion_reg", {"stage": "companion_finish"})
    answer = world.linking.code_stage(world.candidate, Node("iq", {"id": "1"}), stage)
    assert answer is not None
    assert answer.require("error").get("code") == "404"


def hello(number: str) -> Node:
    wrapped = Node("link_code_pairing_wrapped_companion_ephemeral_pub", content=bytes(80))
    return Node("link_code_companion_reg", {"stage": "companion_hello", "jid": JID(number, USER_SERVER)}, [wrapped])


def ask_for_code(world: World) -> Node | None:
    return world.linking.code_stage(world.candidate, Node("iq", {"id": "1"}), hello(world.phone.number))


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (RefuseCode(), ("429", "rate-overlimit")),
        (RefuseCode(400), ("400", "bad-request")),
        (RefuseCode(403, "because"), ("403", "because")),
        (RefuseCode(499), ("499", "")),
    ],
)
async def test_a_code_is_refused(world: World, refusal: RefuseCode, error: tuple[str, str]) -> None:
    world.faults.add(refusal, Scope(world.phone.number), 1)
    world.faults.add(refusal, Scope("15551230002"), 1)
    answer = ask_for_code(world)
    assert answer is not None
    assert (answer.require("error").get("code"), answer.require("error").get("text")) == error
    assert world.candidate.code is None
    again = ask_for_code(world)
    assert again is not None
    assert again.get("type") == "result"


async def test_a_code_is_not_answered(world: World) -> None:
    world.faults.add(IgnoreCode(), Scope(world.phone.number), 1)
    assert ask_for_code(world) is None
    assert world.candidate.code is None
    assert ask_for_code(world) is not None
    assert world.candidate.code is not None
