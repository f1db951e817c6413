"""How the supervisor carries out what the machine decides."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from whatsapp_operator.api.reasons import Reason
from whatsapp_operator.session.credentials import VolumeError
from whatsapp_operator.session.events import DesiredChanged, Opened
from whatsapp_operator.session.model import Credentials, Desired, Journal
from whatsapp_operator.session.settings import Settings
from whatsapp_operator.session.state import Phase
from whatsapp_operator.session.supervisor import Clock, Supervisor

LINKED = Credentials(present=True, valid=True, jid="15551230001:3@s.whatsapp.net")


@pytest.fixture
def supervisor(tmp_path: Path) -> Supervisor:
    return Supervisor(
        Settings(
            namespace="shop",
            session="front",
            tenant="acme",
            pod_uid="uid",
            api_host="127.0.0.1",
            api_port=1,
            data_dir=tmp_path,
        )
    )


async def test_a_request_that_comes_while_the_volume_is_full_is_not_lost(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await supervisor._feed(Opened(Journal(registered_at=1.0), LINKED))

    def fail(_: Journal) -> None:
        raise VolumeError(Reason.VOLUME_FULL, "full")

    with monkeypatch.context() as patch:
        patch.setattr(supervisor._volume, "save", fail)
        await supervisor._feed(DesiredChanged(Desired(unlink=True, hash="asked")))
    assert supervisor._state.phase is Phase.FAULTY
    assert supervisor._state.desired is not None
    assert supervisor._state.desired.unlink
    assert supervisor._state.journal.removal is None, "nothing is done that the journal does not know"


def test_the_time_that_a_node_sleeps_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    before, awake = clock.now(), time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda which: awake(which) + 3600.0 * (which == time.CLOCK_BOOTTIME))
    assert clock.now() >= before + 3600.0


def test_a_clock_that_is_put_right_is_followed_forward_only(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    before, wall = clock.now(), time.time
    monkeypatch.setattr(time, "time", lambda: wall() + 3600.0)
    ahead = clock.now()
    assert ahead >= before + 3600.0
    monkeypatch.setattr(time, "time", wall)
    assert clock.now() >= ahead


async def test_everything_else_goes_on_while_the_volume_stalls(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalls, goes_on, went_on = asyncio.Event(), threading.Event(), []
    loop = asyncio.get_running_loop()

    def save(_: Journal) -> None:
        loop.call_soon_threadsafe(stalls.set)
        went_on.append(goes_on.wait(10))

    await supervisor._feed(Opened(Journal(registered_at=1.0), LINKED))
    before = supervisor._state
    monkeypatch.setattr(supervisor._volume, "save", save)
    step = asyncio.ensure_future(supervisor._feed(DesiredChanged(Desired(unlink=True, hash="asked"))))
    await asyncio.wait({asyncio.ensure_future(stalls.wait()), step}, return_when=asyncio.FIRST_COMPLETED)
    assert supervisor._state is before, "nothing is done that the journal does not know"
    goes_on.set()
    await step
    assert went_on[0]
