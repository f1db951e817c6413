"""What the simulator owes to clients of other habits than neonize's, shown with a light client of the protocol."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import aiohttp
import pytest

from tests.integration.protocol_client import Credentials, Network, ProtocolClient, StreamEndedError
from tests.integration.simulator_process import SimulatorProcess
from tests.waiting import eventually
from whatsapp_simulator.binary.node import JID, LID_SERVER, SERVER, USER_SERVER, Node
from whatsapp_simulator.binary.tokens import read_dictionary
from whatsapp_simulator.pairing.adv import EnvelopeError

PHONE = "15551230001"
FRIEND = "15551230002"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("simulator")) as running:
        running.add_phone(PHONE)
        running.add_phone(FRIEND)
        yield running


@pytest.fixture(autouse=True)
def no_faults(simulator: SimulatorProcess) -> Iterator[None]:
    yield
    simulator.call("DELETE", "/faults")


@pytest.fixture
async def network(simulator: SimulatorProcess) -> AsyncIterator[Network]:
    async with aiohttp.ClientSession() as session:
        yield Network(
            session,
            simulator.proxy_url,
            ssl.create_default_context(cafile=str(simulator.state / "ca.crt")),
            bytes.fromhex(simulator.root),
            read_dictionary(),
        )


@pytest.fixture
async def streams() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def link(simulator: SimulatorProcess, network: Network, number: str = PHONE) -> Credentials:
    """Link a new client by QR."""
    async with ProtocolClient(network, Credentials()) as client:
        refs = await client.refs()
        scan = asyncio.create_task(asyncio.to_thread(simulator.scan, number, client.qr(refs[0])))
        await client.finish_linking()
        answer = await scan
        assert answer.status == 201, answer.body
        return client.credentials


@pytest.fixture
async def client(simulator: SimulatorProcess, network: Network, streams: AsyncExitStack) -> ProtocolClient:
    """A client that is linked and logged in."""
    credentials = await link(simulator, network)
    connected = await streams.enter_async_context(ProtocolClient(network, credentials))
    success = await connected.login()
    assert success.jid("lid") == credentials.lid
    return connected


async def send(simulator: SimulatorProcess, number: str, to: str, text: str) -> None:
    assert (await asyncio.to_thread(simulator.send, number, to, text)).status == 201


@pytest.mark.parametrize("server", [LID_SERVER, USER_SERVER])
async def test_messages_in_both_styles(simulator: SimulatorProcess, client: ProtocolClient, server: str) -> None:
    """Section 6.4: the answer comes from the address that the client wrote to."""
    await client.write(FRIEND, f"by {server}", server)
    assert f"by {server}" in simulator.texts(FRIEND)
    await send(simulator, FRIEND, PHONE, f"to {server}")
    received = await client.wait_for_text(f"to {server}")
    assert received.stanza.jid("from").server == server
    other = "sender_pn" if server == LID_SERVER else "sender_lid"
    assert received.stanza.jid(other).server == (USER_SERVER if server == LID_SERVER else LID_SERVER)


async def test_stanzas_by_number_and_sessions_by_lid(simulator: SimulatorProcess, client: ProtocolClient) -> None:
    """Section 6.4: the bundle is fetched by LID, the message sent by number."""
    ((lid, _),) = await client.lookup([FRIEND])
    await client.bundle(JID(lid.user, LID_SERVER))
    await client.write(FRIEND, "mixed", USER_SERVER)
    assert "mixed" in simulator.texts(FRIEND)


async def test_a_number_that_is_not_on_whatsapp(client: ProtocolClient) -> None:
    stanza = Node("message", {"to": JID("15559999999", USER_SERVER), "id": "X", "type": "text"}, [Node("enc")])
    await client.send(stanza)
    assert (await client.expect("ack")).get("error") == "404"


async def test_a_retry_receipt_without_keys(simulator: SimulatorProcess, client: ProtocolClient) -> None:
    """Section 6.5: the same id comes again as `pkmsg` with an uploaded prekey."""
    await send(simulator, FRIEND, PHONE, "once more")
    first = await client.wait_for_text("once more")
    before = await client.pre_key_count()
    client.messages.clear()
    await client.ask_again(first.stanza, 1)
    again = await client.wait_for_text("once more")
    assert again.stanza.text("id") == first.stanza.text("id")
    assert again.stanza.require("enc").text("type") == "pkmsg"
    assert await client.pre_key_count() == before - 1


async def test_a_retry_receipt_with_keys(simulator: SimulatorProcess, client: ProtocolClient) -> None:
    await send(simulator, FRIEND, PHONE, "with keys")
    first = await client.wait_for_text("with keys")
    before = await client.pre_key_count()
    client.messages.clear()
    await client.ask_again(first.stanza, 2, client.own_bundle(max(client.credentials.pre_keys)))
    again = await client.wait_for_text("with keys")
    assert again.stanza.require("enc").text("count") == "2"
    assert await client.pre_key_count() == before


async def test_devices_and_lids_asked_for_together(client: ProtocolClient) -> None:
    """Section 6.6: for the own and the recipient's number; devices other than 0 have a key index."""
    (own, friend) = await client.lookup([PHONE, FRIEND])
    assert client.credentials.jid is not None
    assert {0, client.credentials.jid.device} <= set(own[1])
    assert friend[1] == [0]
    assert own[0].server == friend[0].server == LID_SERVER


async def test_the_digest_of_all_keys(client: ProtocolClient) -> None:
    """Section 6.7."""
    digest = (await client.iq("encrypt", "get", [Node("digest")])).require("digest")
    assert digest.require("identity").data == client.credentials.identity.public
    assert digest.require("skey", "value").data == client.credentials.signed_pre_key.public
    ids = [int.from_bytes(node.data, "big") for node in digest.require("list").children]
    assert set(ids) <= set(client.credentials.pre_keys)
    assert len(ids) == await client.pre_key_count()
    assert len(digest.require("hash").data) == 20
    for name in ("registration", "type"):
        assert digest.require(name).data


@pytest.mark.parametrize(
    ("namespace", "kind", "content"),
    [
        ("abt", "get", [Node("props")]),
        ("w", "get", [Node("props")]),
        ("blocklist", "get", None),
        ("privacy", "get", [Node("privacy")]),
        ("privacy", "set", [Node("tokens", content=[Node("token", {"jid": JID("1", "lid"), "type": "x"})])]),
        ("passive", "set", [Node("passive")]),
        ("w:p", "get", None),
        ("w:p", "get", [Node("ping")]),
        ("urn:xmpp:whatsapp:dirty", "set", [Node("clean", {"type": "groups"})]),
    ],
)
async def test_queries_that_an_empty_result_satisfies(
    client: ProtocolClient, namespace: str, kind: str, content: list[Node] | None
) -> None:
    """Section 6.7."""
    answer = await client.iq(namespace, "get" if kind == "get" else "set", content)
    assert answer.get("type") == "result"


@pytest.mark.parametrize("batch", [812, 30, 5])
async def test_batches_of_prekeys(client: ProtocolClient, batch: int) -> None:
    """Section 6.8."""
    before = await client.pre_key_count()
    await client.upload(batch)
    assert await client.pre_key_count() == before + batch


async def test_stanzas_that_need_no_answer(simulator: SimulatorProcess, client: ProtocolClient) -> None:
    """Section 6.9: they may come at any time and disturb nothing."""
    friend = JID(FRIEND, USER_SERVER)
    for stanza in (
        Node("presence"),
        Node("presence", {"type": "available", "name": "x"}),
        Node("ib", {}, [Node("unified_session", {"id": "1"})]),
        Node("ib", {}, [Node("offline_batch", {"count": "100"})]),
        Node("ack", {"class": "notification", "id": "1", "to": SERVER}),
        Node("receipt", {"to": friend, "id": "unknown"}),
        Node("receipt", {"to": friend, "id": "unknown", "type": "inactive"}),
        Node("chatstate", {"to": friend}, [Node("composing")]),
        Node("something-new", {"id": "1"}, b"\x00"),
    ):
        await client.send(stanza)
    assert (await client.keepalive()).get("type") == "result"


async def test_a_malformed_query_is_answered_by_an_error(client: ProtocolClient) -> None:
    answer = await client.iq("usync", "get", [Node("usync")])
    assert answer.get("type") == "error"
    assert (await client.keepalive()).get("type") == "result"


@pytest.mark.parametrize("dash", [True, False])
async def test_a_code_with_or_without_a_dash(
    simulator: SimulatorProcess, network: Network, streams: AsyncExitStack, dash: bool
) -> None:
    """Section 6.10; the reference is in the answer and in the notification."""
    client = await streams.enter_async_context(ProtocolClient(network, Credentials()))
    await client.refs()
    ephemeral, ref = await client.companion_hello(PHONE, "ABCDEFGH")
    typed = "ABCD-EFGH" if dash else "ABCDEFGH"
    entering = asyncio.create_task(
        asyncio.to_thread(simulator.call, "POST", f"/phones/{PHONE}/enter-code", {"code": typed})
    )
    await client.companion_finish(PHONE, "ABCDEFGH", ephemeral, ref)
    await client.finish_linking()
    answer = await entering
    assert answer.status == 201, answer.body


async def test_a_code_for_an_unknown_number_is_refused(network: Network, streams: AsyncExitStack) -> None:
    client = await streams.enter_async_context(ProtocolClient(network, Credentials()))
    await client.refs()
    stage = Node("link_code_companion_reg", {"jid": JID("15559999999", USER_SERVER), "stage": "companion_hello"})
    assert (await client.iq("md", "set", [stage])).require("error").get("code") == "404"


async def test_a_logout_counts_even_if_nobody_waits_for_the_answer(
    simulator: SimulatorProcess, client: ProtocolClient, network: Network
) -> None:
    """Section 6.1: the device is gone, and its next login is refused."""
    jid = client.credentials.jid
    assert jid is not None
    logout = Node("remove-companion-device", {"jid": jid, "reason": "user_initiated"})
    await client.send(Node("iq", {"to": SERVER, "id": "1", "type": "set", "xmlns": "md"}, [logout]))
    await client.close()

    def forgotten() -> bool:
        return all(device["id"] != jid.device for device in simulator.devices(PHONE))

    await asyncio.to_thread(eventually, forgotten, "the device is gone")
    async with ProtocolClient(network, client.credentials) as again:
        failure = await again.expect("failure")
        assert failure.get("reason") == "401"


async def test_a_login_with_a_bare_number_is_refused(network: Network) -> None:
    """Section 6.11."""
    async with ProtocolClient(network, Credentials(jid=JID(PHONE, USER_SERVER))) as client:
        assert (await client.expect("failure")).get("reason") == "401"


async def test_the_last_stanza_is_followed_by_the_end(simulator: SimulatorProcess, client: ProtocolClient) -> None:
    """Sections 6.2 and 6.3."""
    jid = client.credentials.jid
    assert jid is not None
    removal = asyncio.create_task(asyncio.to_thread(simulator.call, "DELETE", f"/phones/{PHONE}/devices/{jid.device}"))
    last = await client.ended()
    assert last is not None
    assert (last.tag, last.get("code")) == ("stream:error", "401")
    assert last.require("conflict").get("type") == "device_removed"
    assert (await removal).status == 204


async def test_compression_offered_by_a_client(
    simulator: SimulatorProcess, network: Network, streams: AsyncExitStack
) -> None:
    """Section 6.13: permessage-deflate is declined, the stream works."""
    credentials = await link(simulator, network)
    client = await streams.enter_async_context(ProtocolClient(network, credentials, deflate=True))
    assert not client.compressed
    await client.login()


async def test_a_wrong_hmac_is_noticed(simulator: SimulatorProcess, network: Network) -> None:
    await asyncio.to_thread(simulator.fault, kind="bad-hmac", phone=PHONE)
    async with ProtocolClient(network, Credentials()) as client:
        refs = await client.refs()
        scan = asyncio.create_task(asyncio.to_thread(simulator.scan, PHONE, client.qr(refs[0])))
        with pytest.raises(EnvelopeError, match="hmac-mismatch"):
            await client.finish_linking()
        answer = await scan
        assert (answer.status, answer.body["title"]) == (409, "refused-by-client")
        assert "401 hmac-mismatch" in answer.body["detail"]


async def test_a_client_that_leaves_instead_of_answering(simulator: SimulatorProcess, network: Network) -> None:
    """Section 6.11: after a bad HMAC a client may simply close."""
    async with ProtocolClient(network, Credentials()) as client:
        refs = await client.refs()
        scan = asyncio.create_task(asyncio.to_thread(simulator.scan, PHONE, client.qr(refs[0])))
        await client.expect("iq", lambda stanza: stanza.find("pair-success") is not None)
    answer = await scan
    assert (answer.status, answer.body["title"]) == (410, "client-gone")


async def test_a_qr_is_scanned_once(simulator: SimulatorProcess, network: Network) -> None:
    await asyncio.to_thread(simulator.fault, kind="phone-never-finishes", phone=PHONE)
    async with ProtocolClient(network, Credentials()) as client:
        refs = await client.refs()
        first = await asyncio.to_thread(simulator.scan, PHONE, client.qr(refs[0]))
        second = await asyncio.to_thread(simulator.scan, FRIEND, client.qr(refs[0]))
    assert (first.status, first.body["title"]) == (504, "never-finished")
    assert (second.status, second.body["title"]) == (409, "already-scanned")


async def test_a_replaced_stream_is_told(client: ProtocolClient, network: Network, simulator: SimulatorProcess) -> None:
    async with ProtocolClient(network, client.credentials) as newer:
        await newer.expect("success")
        last = await client.ended()
        assert last is not None
        assert last.require("conflict").get("type") == "replaced"
        devices = await asyncio.to_thread(simulator.devices, PHONE)
        assert (2, 1) in [(device["logins"], device["takenOver"]) for device in devices]


async def test_hosts_other_than_whatsapp_are_refused(network: Network) -> None:
    with pytest.raises(aiohttp.ClientHttpProxyError) as caught:
        await network.session.get("https://example.com/", proxy=network.proxy)
    assert caught.value.status == 403


async def test_a_cut_stream_in_the_middle_of_a_handshake_harms_nobody(
    simulator: SimulatorProcess, network: Network
) -> None:
    await asyncio.to_thread(simulator.fault, kind="close-after-frames", frames=0)
    async with ProtocolClient(network, Credentials()) as client:
        await client.refs()
        with pytest.raises(StreamEndedError):
            await client.keepalive()
    await link(simulator, network)
