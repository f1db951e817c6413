"""Clients that wait to be linked, and what a phone does to link them."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from whatsapp_simulator import behaviours, faults
from whatsapp_simulator.binary.node import LID_SERVER, USER_SERVER, Node
from whatsapp_simulator.keys import KeyPair
from whatsapp_simulator.obstacles import obstruct
from whatsapp_simulator.pairing import adv, link_code
from whatsapp_simulator.pairing.qr import QRError, QRText
from whatsapp_simulator.phone import address
from whatsapp_simulator.problems import ProblemError, client_gone
from whatsapp_simulator.stanzas.reaction import error, result
from whatsapp_simulator.store import Device, DeviceId, Phone, Registration, Store

if TYPE_CHECKING:
    from whatsapp_simulator.connection import Connection

logger = logging.getLogger(__name__)

FIRST_REF_SECONDS: Final = 60.0
NEXT_REF_SECONDS: Final = 20.0
"""A client shows its first QR for 60 s and each further one for 20 s."""
REF_GRACE: Final = 10.0
"""How long a reference outlives its QR, for a scan that was under way."""
FINISH_TIMEOUT: Final = 20.0

_STAGE_TAG: Final = "link_code_companion_reg"
_KNOWN_REFS: Final = 10_000


@dataclass(slots=True)
class CodeRequest:
    """A client that waits for the code it shows to be typed into a phone."""

    number: str
    ref: bytes
    wrapped_ephemeral: bytes
    display: str
    since: float
    finish: asyncio.Future[link_code.Finish]


@dataclass(slots=True)
class Candidate:
    """A client that wants to be linked."""

    connection: Connection
    keys: Registration
    refs: list[str]
    since: float
    taken: bool = False
    """A phone has scanned it, or typed its code."""
    code: CodeRequest | None = field(default=None)

    def expires(self, ref: str) -> float:
        """Until when a reference may be scanned, in Unix seconds."""
        shown_before = FIRST_REF_SECONDS + NEXT_REF_SECONDS * self.refs.index(ref)
        return self.since + shown_before + REF_GRACE


class Linking:
    """The candidates by reference, and the ways to link them."""

    def __init__(self, store: Store, active: faults.Faults, now: Callable[[], float], refs: int) -> None:
        self._store = store
        self._faults = active
        self._now = now
        self._ref_count = refs
        self._by_ref: dict[str, Candidate] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()

    def register(self, connection: Connection, keys: Registration) -> Candidate:
        """Give a new client its references."""
        few = self._faults.take(behaviours.FewRefs)
        count = min(few.refs, self._ref_count) if few else self._ref_count
        refs = ["2@" + base64.b64encode(secrets.token_bytes(48)).decode() for _ in range(count)]
        candidate = Candidate(connection, keys, refs, self._now())
        self._by_ref |= dict.fromkeys(refs, candidate)
        return candidate

    def forget(self, connection: Connection) -> None:
        """The client of this connection is gone, and its references with it."""
        for ref in [ref for ref, candidate in self._by_ref.items() if candidate.connection is connection]:
            del self._by_ref[ref]
            self._gone[ref] = None
        while len(self._gone) > _KNOWN_REFS:
            self._gone.popitem(last=False)

    def candidates(self) -> list[Candidate]:
        """All that wait, longest first."""
        return list({id(candidate): candidate for candidate in self._by_ref.values()}.values())

    # What a phone does

    async def scan(self, phone: Phone, text: str) -> DeviceId:
        """Link the client whose QR shows this text.

        Raises:
            ProblemError: malformed-qr, unknown-ref, expired-ref, already-scanned, other-keys, or as `link` says.
        """
        try:
            qr = QRText.parse(text)
        except QRError as cause:
            raise ProblemError(422, "malformed-qr", str(cause)) from cause
        candidate = self._by_ref.get(qr.ref)
        if candidate is None and qr.ref in self._gone:
            raise ProblemError(410, "expired-ref", "the client that showed this QR is no longer connected")
        if candidate is None:
            raise ProblemError(404, "unknown-ref", "no client was ever given this reference")
        if self._now() > candidate.expires(qr.ref):
            raise ProblemError(410, "expired-ref", "this QR is too old; scan the one that is shown now")
        if (qr.noise, qr.identity) != (candidate.keys.noise, candidate.keys.identity):
            raise ProblemError(422, "other-keys", "the keys in the QR are not those of the client that was given it")
        return await self.link(phone, candidate, qr.adv_secret)

    async def enter_code(self, phone: Phone, text: str) -> DeviceId:
        """Link the client that shows this pairing code for this phone.

        Raises:
            ProblemError: malformed-code, no-code-waiting, wrong-code, client-gone, or as `link` says.
        """
        try:
            code = link_code.normalize(text)
        except link_code.CodeError as cause:
            raise ProblemError(422, "malformed-code", str(cause)) from cause
        waiting = [(c, c.code) for c in self.candidates() if c.code and c.code.number == phone.number and not c.taken]
        if not waiting:
            raise ProblemError(404, "no-code-waiting", "no client shows a pairing code for this number")
        candidate, request = max(waiting, key=lambda pair: pair[1].since)
        adv_secret = await self._exchange(phone, candidate.connection, request, code)
        return await self.link(phone, candidate, adv_secret)

    async def _exchange(self, phone: Phone, connection: Connection, request: CodeRequest, code: str) -> bytes:
        ephemeral = KeyPair.generate()
        peer_ephemeral = await asyncio.to_thread(link_code.unwrap, code, request.wrapped_ephemeral)
        wrapped = await asyncio.to_thread(link_code.wrap, code, ephemeral.public)
        hello = [
            Node("link_code_pairing_ref", content=request.ref),
            Node("link_code_pairing_wrapped_primary_ephemeral_pub", content=wrapped),
            Node("primary_identity_pub", content=phone.identity.public),
        ]
        try:
            await connection.notify(_STAGE_TAG, [Node(_STAGE_TAG, {"stage": "primary_hello"}, hello)])
            async with asyncio.timeout(FINISH_TIMEOUT):
                finish = await asyncio.shield(request.finish)
            return link_code.open_bundle(finish, ephemeral, peer_ephemeral, phone.identity)
        except (TimeoutError, ConnectionError) as cause:
            raise client_gone() from cause
        except ValueError as cause:
            raise ProblemError(422, "wrong-code", "this is not the code that the client shows") from cause
        finally:
            request.finish = asyncio.get_running_loop().create_future()

    async def link(self, phone: Phone, candidate: Candidate, adv_secret: bytes) -> DeviceId:
        """Make a client a companion of the phone, and have it log in.

        Raises:
            ProblemError: already-scanned, refused-by-client (the detail has its error), client-gone, bad-signature, or
                as `obstruct` says.
        """
        if candidate.taken:
            raise ProblemError(409, "already-scanned", "a phone is linking this client already, or has linked it")
        candidate.taken = True
        obstacle = self._faults.take(behaviours.Obstacle, phone.number)
        if obstacle:
            await obstruct(obstacle, candidate)
        if self._faults.take(behaviours.BadHMAC, phone.number):
            adv_secret = secrets.token_bytes(len(adv_secret))
        id = DeviceId(phone.number, self._store.new_device_number(phone.number))
        offer = adv.Offer.create(phone.identity, candidate.keys.identity, secrets.randbits(31), id.device, self._now())
        if self._faults.take(behaviours.BadAccountSignature, phone.number):
            offer.signed.accountSignature = secrets.token_bytes(len(offer.signed.accountSignature))
        answer = await self._offer(phone, id, candidate.connection, offer.envelope(adv_secret))
        try:
            signed = offer.accept(answer.require("pair-device-sign", "device-identity").data)
        except ValueError as cause:
            raise ProblemError(409, "bad-signature", str(cause)) from cause
        self._store.add_device(Device(id, candidate.keys, signed, self._now()))
        logger.info("linked a device")
        await candidate.connection.restart()
        return id

    async def _offer(self, phone: Phone, id: DeviceId, connection: Connection, envelope: bytes) -> Node:
        addresses = {
            "jid": address(phone, id.device, USER_SERVER),
            "lid": address(phone, id.device, LID_SERVER),
        }
        success = [
            Node("device-identity", content=envelope),
            Node("biz", {"name": phone.name}),
            Node("device", addresses),
            Node("platform", {"name": "android"}),
        ]
        try:
            answer = await connection.request("md", [Node("pair-success", content=success)])
        except ConnectionError as cause:
            raise client_gone() from cause
        if answer.get("type") != "result":
            refusal = answer.find("error")
            cause_text = f"{refusal.get('code')} {refusal.get('text')}" if refusal else "no reason given"
            raise ProblemError(409, "refused-by-client", f"the client refused to be linked: {cause_text}")
        return answer

    # What a client does

    def code_stage(self, candidate: Candidate, stanza: Node, stage: Node) -> Node | None:
        """React to a client's part of the pairing code exchange; returns the answer to its IQ, if it gets one.

        Raises:
            MalformedNodeError: a part is missing.
        """
        if stage.get("stage") == "companion_hello":
            return self._hello(candidate, stanza, stage)
        if stage.get("stage") == "companion_finish":
            if candidate.code is None:
                return error(stanza, 404)
            finish = link_code.Finish(
                stage.require("link_code_pairing_wrapped_key_bundle").data,
                stage.require("companion_identity_public").data,
            )
            if not candidate.code.finish.done():
                candidate.code.finish.set_result(finish)
        return result(stanza)

    def _hello(self, candidate: Candidate, stanza: Node, stage: Node) -> Node | None:
        number = stage.jid("jid").user
        if self._faults.take(behaviours.IgnoreCode, number):
            return None
        refusal = self._faults.take(behaviours.RefuseCode, number)
        if refusal:
            return error(stanza, refusal.code, refusal.text)
        if self._store.phone(number) is None:
            return error(stanza, 404)
        display = stage.find("companion_platform_display")
        candidate.code = CodeRequest(
            number=number,
            ref=base64.b64encode(secrets.token_bytes(12)),
            wrapped_ephemeral=stage.require("link_code_pairing_wrapped_companion_ephemeral_pub").data,
            display=display.data.decode(errors="replace") if display else "",
            since=self._now(),
            finish=asyncio.get_running_loop().create_future(),
        )
        answer = Node(
            _STAGE_TAG,
            {"stage": "companion_hello"},
            [Node("link_code_pairing_ref", content=candidate.code.ref)],
        )
        return result(stanza, [answer])
