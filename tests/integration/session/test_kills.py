"""SIGKILL at random moments of pairing, login and logout: no pairing more than had to be, and always Connected again.

A scan that the client has accepted is on its volume, so nobody may be asked for it again.
"""

from __future__ import annotations

import logging
import random
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from tests.integration.recording_api import RecordingApi
from tests.integration.session_process import QR_CODE, MakeSession, SessionProcess
from tests.integration.simulator_process import SimulatorProcess
from tests.waiting import eventually

logger = logging.getLogger(__name__)

LIMITS = {"absorb": 0.0, "calm": 0.0, "backoff_cap": 1.0, "relink_after_logout": 0.1, "lock_retry": 0.1}
LONGEST = {"pairing": 1.2, "login": 0.3, "logout": 0.02}
"""Seconds in which most of each happens when nothing is killed."""
STEP = re.compile(rb"\w+: (\w+), (\w+): ")
"""The phases before and after it, as the log tells at level DEBUG."""


def kill_worker(session: SessionProcess) -> None:
    eventually(lambda: session.worker_pids, "a worker")
    session.kill_worker()


def kill_supervisor(session: SessionProcess) -> None:
    session.kill()
    session.start()


def steps(session: SessionProcess, since: int) -> list[str]:
    """The phases after each step that was logged since the log had so many bytes."""
    with (session.directory / "log").open("rb") as log:
        log.seek(since)
        return [match[2].decode() for match in STEP.finditer(log.read())]


class Account:
    """A phone whose owner scans every QR that is asked for."""

    def __init__(self, session: SessionProcess, simulator: SimulatorProcess, phone: str) -> None:
        self._session, self._simulator, self._phone = session, simulator, phone
        self._scanned: set[str] = set()

    def relink(self) -> str:
        request = secrets.token_hex(8)
        self._session.ask(relinkRequestID=request)
        return request

    def scan(self, request: str) -> list[int]:
        """Scan what is shown until the session is connected; the devices that the client has accepted."""
        accepted = []
        while qr := self._next(request):
            self._scanned.add(qr)
            answer = self._simulator.scan(self._phone, qr)
            if answer.status == 201:
                accepted.append(answer.body["device"])
        return accepted

    def _next(self, request: str) -> str:
        """The QR that is shown and was not scanned yet; empty once the session is connected."""

        def found() -> list[str] | None:
            report, qr = self._session.api.report, self._session.api.shown("qr")
            if report["relinkRequestID"] != request:
                return None
            if report["machine"] == "Connected":
                return [""]
            return [qr] if qr and qr not in self._scanned else None

        return eventually(found, "a QR or the connection", seconds=90, every=0.02)[0]

    def check(self, linked: list[int]) -> None:
        """The session is connected as the one device that the phone has."""
        assert [device["id"] for device in self._simulator.devices(self._phone)] == linked
        assert self._session.api.report["device"]["jid"].startswith(f"{self._phone.removeprefix('+')}:{linked[0]}@")


@pytest.mark.parametrize("kill", [kill_worker, kill_supervisor])
def test_kills_at_random_moments_cost_no_pairing(
    make_session: MakeSession,
    simulator: SimulatorProcess,
    api: RecordingApi,
    phone: str,
    pytestconfig: pytest.Config,
    kill: Callable[[SessionProcess], None],
) -> None:
    rounds = 100 if pytestconfig.getoption("--hypothesis-profile") == "soak" else 10
    seed = secrets.randbits(32)
    logger.warning("seed %s", seed)
    chance = random.Random(seed)
    with (
        make_session(limits=LIMITS, desired={"pairing": {**QR_CODE, "attempts": 20}}) as session,
        ThreadPoolExecutor(1) as beside,
    ):
        account = Account(session, simulator, phone)
        hit: Counter[str] = Counter()

        def kill_during(phase: str, since: int) -> str:
            """Returns the time of the last kill, as a report would tell it."""
            for _ in range(chance.choice((1, 1, 2))):
                time.sleep(chance.uniform(0.0, LONGEST[phase]))
                hit.update(steps(session, since)[-1:])
                kill(session)
            return datetime.now(UTC).isoformat(timespec="microseconds")

        session.pair(phone)
        linked = [device["id"] for device in simulator.devices(phone)]
        phases = (sorted(LONGEST) * rounds)[:rounds]
        chance.shuffle(phases)
        for number, phase in enumerate(phases):
            since = len(session.log.encode())
            logger.warning("round %s: %s", number, phase)
            match phase:
                case "login":
                    simulator.strike("drop", phone=phone)
                    killed = kill_during(phase, since)
                case "logout":
                    request = account.relink()
                    eventually(lambda: "LOGGING_OUT" in steps(session, since), "the log-out", every=0.002)  # noqa: B023
                    killed = kill_during(phase, since)
                    linked = account.scan(request)
                case "pairing":
                    request = account.relink()
                    session.reported("a QR", lambda r: (r["machine"], r["relinkRequestID"]) == ("ShowingQR", request))  # noqa: B023
                    scanning = beside.submit(account.scan, request)
                    killed = kill_during(phase, since)
                    linked = scanning.result()
            assert len(linked) == 1, f"scanned and accepted in one round: {linked}"
            session.reported("connected since the last kill", lambda r: (r["connection"]["since"] or "") > killed)  # noqa: B023
            account.check(linked)
    logger.warning("killed in: %s", dict(hit))
    assert hit["LOGGING_OUT"] or rounds < 100
