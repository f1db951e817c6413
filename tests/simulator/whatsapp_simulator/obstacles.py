"""What keeps a phone from linking a client, and what the two are told then; see `behaviours.Obstacle`."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from whatsapp_simulator import behaviours
from whatsapp_simulator.binary.node import SERVER, Node
from whatsapp_simulator.problems import ProblemError, client_gone

if TYPE_CHECKING:
    from whatsapp_simulator.linking import Candidate


async def obstruct(obstacle: behaviours.Obstacle, candidate: Candidate) -> None:
    """Tell the client what it learns of the obstacle, and the phone's user the rest.

    Raises:
        ProblemError: always: never-finished, no-multidevice, passkey-demanded, or client-gone.
    """
    tell, problem = _OBSTACLES[type(obstacle)]
    try:
        await tell(candidate)
    except ConnectionError as cause:
        raise client_gone() from cause
    raise ProblemError(*problem)


async def _tell_nothing(_: Candidate) -> None:
    pass


async def _tell_to_downgrade(candidate: Candidate) -> None:
    """The notice from before companions were devices of their own; the QR stays good for another phone."""
    candidate.taken = False
    await candidate.connection.send(Node("ib", {"from": SERVER}, [Node("downgrade_webclient")]))


async def _demand_passkey(candidate: Candidate) -> None:
    """WebAuthn's PublicKeyCredentialRequestOptions as JSON, bytes in base64url without padding."""
    challenge = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    options = {
        "challenge": challenge,
        "timeout": 60_000,
        "rpId": "whatsapp.com",
        "allowCredentials": [],
        "userVerification": "required",
    }
    content = [Node("passkey_request_options", content=json.dumps(options).encode())]
    await candidate.connection.notify("passkey_prologue_request", content)


Telling = Callable[["Candidate"], Awaitable[None]]

_OBSTACLES: Final[dict[type[behaviours.Obstacle], tuple[Telling, tuple[int, str, str]]]] = {
    behaviours.PhoneNeverFinishes: (_tell_nothing, (504, "never-finished", "a fault keeps the phone from finishing")),
    behaviours.NoMultidevice: (_tell_to_downgrade, (409, "no-multidevice", "a fault has the phone know no devices")),
    behaviours.Passkey: (_demand_passkey, (409, "passkey-demanded", "a fault has the account ask for a passkey")),
}
