"""What goes wrong between the operator and the API server, and the outcome for the sessions and for each other."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.apiserver import ApiServer, sessions_path
from tests.integration.api_gateway import Answer, Call, Forward, Gateway, Severed
from tests.integration.controller_life import running
from tests.integration.controller_stand_ins import LEASE, Stage, make_namespace
from tests.waiting import eventually


@dataclass
class Calls:
    """Counts what the operator asks for; `cut` ends every watch that is open."""

    writes: list[str] = field(default_factory=list)
    watches: int = 0
    lists: int = 0
    _open: set[asyncio.Task[Any]] = field(default_factory=set)

    async def hook(self, call: Call, forward: Forward) -> Answer:
        if call.writes and call.path != LEASE:
            self.writes.append(f"{call.method} {call.path}")
        answer = await forward()
        if call.watches:
            self.watches += 1
            return Answer(answer.status, answer.headers, self._until_cut(answer.chunks))
        self.lists += call.path.endswith("/pods")
        return answer

    async def _until_cut(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        while True:
            following = asyncio.ensure_future(anext(chunks))
            self._open.add(following)
            try:
                yield await following
            except StopAsyncIteration:
                return
            except asyncio.CancelledError:
                raise Severed from None
            finally:
                self._open.discard(following)

    def cut(self, gateway: Gateway) -> None:
        def cancel() -> None:
            for following in tuple(self._open):
                following.cancel()

        gateway.call(cancel)


def test_nothing_is_written_in_a_steady_state(api: ApiServer, tmp_path: Path) -> None:
    stage, calls = make_namespace(api, "steady"), Calls()
    with running(api, stage, tmp_path / "operator", "--resync-seconds", "1") as operator:
        for number, name in enumerate(("one", "two", "resting", "waiting")):
            stage.create(name, phone=f"+1555123041{number}", tenant="steady")
        for number, name in enumerate(("one", "two", "resting")):
            stage.connect(name, f"+1555123041{number}")
        stage.create("held", phone="+15551230410", tenant="steady")
        stage.start_pod("waiting")
        stage.report("waiting", "ShowingQR", "QRAvailable")
        stage.condition("waiting", "QRReady", status="True")
        stage.condition("held", "Stalled", status="True", reason="HeldByOther")
        stage.patch("resting", {"spec": {"suspend": True}})
        stage.end_pod("resting")
        stage.condition("resting", "Ready", status="True", reason="Suspended")
        eventually(lambda: operator.quiet, "the operator has nothing left to do", seconds=60)
        operator.gateway.hook = calls.hook
        # Its watches are open since before the hook: they end with the process.
        operator.restart()
        compared(calls)
        opened = calls.watches
        calls.cut(operator.gateway)
        eventually(lambda: calls.watches >= 2 * opened, "every watch is open again", seconds=60)
        compared(calls)
        operator.restart()
        compared(calls)
        assert calls.writes == []


def compared(calls: Calls) -> None:
    """Wait until everything was read and compared once more, from the beginning to the end."""
    lists = calls.lists
    eventually(lambda: calls.lists >= lists + 2, "everything was compared", seconds=60)


async def said(body: dict[str, Any]) -> AsyncIterator[bytes]:
    yield json.dumps(body).encode()


@dataclass
class Refusals:
    """Answers the writes of the status of some sessions with failures: by name, the code, and Retry-After in seconds.

    Attributes:
        left: by name, how many more writes fail.
        at: by name, when it was written, by the monotonic clock.
        read: by name, how often the session was read by its name.
    """

    stage: Stage
    kinds: dict[str, tuple[int, int | None]]
    left: Counter[str]
    at: dict[str, list[float]] = field(default_factory=dict)
    read: Counter[str] = field(default_factory=Counter)

    async def hook(self, call: Call, forward: Forward) -> Answer:
        for name, (code, after) in self.kinds.items():
            path = sessions_path(self.stage.namespace, name)
            self.read[name] += (call.method, call.path) == ("GET", path)
            if call.path != f"{path}/status" or self.left[name] <= 0:
                continue
            self.left[name] -= 1
            self.at.setdefault(name, []).append(time.monotonic())
            if code == 0:
                raise Severed
            headers = {"Content-Type": "application/json"} | ({} if after is None else {"Retry-After": str(after)})
            reasons = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}
            told = {"kind": "Status", "status": "Failure", "code": code, "reason": reasons[code], "message": "no"}
            return Answer(code, headers, said(told))
        return await forward()


FOR_EVER = 1_000_000


def test_each_failure_is_retried_in_its_way_and_delays_no_other(api: ApiServer, tmp_path: Path) -> None:
    stage = make_namespace(api, "refusals")
    kinds = {
        "conflict": (409, None),
        "throttled": (429, 2),
        "broken": (500, None),
        "unavailable": (503, None),
        "overloaded": (503, 2),
        "unanswered": (0, None),
        "never": (500, None),
    }
    left = Counter(dict.fromkeys(kinds, 4) | {"never": FOR_EVER})
    refusals = Refusals(stage, kinds, left)
    with running(api, stage, tmp_path / "operator") as operator:
        operator.gateway.hook = refusals.hook
        for number, name in enumerate(kinds):
            stage.create(name, phone=f"+1555123042{number}", tenant=name)
        eventually(lambda: len(refusals.at.get("never", ())) >= 2, "one fails", every=0.02)
        # With one that fails and fails again, and others that fail for a while.
        stage.create("sound", phone="+15551230430", tenant="sound")
        stage.connect("sound", "+15551230430")
        for name in kinds:
            if name != "never":
                stage.connect(name, f"+1555123042{list(kinds).index(name)}")
        gaps = {name: [b - a for a, b in pairwise(at)] for name, at in refusals.at.items()}
        for name in ("throttled", "overloaded"):
            assert min(gaps[name]) >= 2, "asked again before the time that the API server has told"
        assert refusals.read["conflict"] >= 4, "the present object was not read"
        assert left["never"] > 0
        # It is not given up: the pod is there, and the status comes as soon as it can.
        left["never"] = 0
        stage.connect("never", f"+1555123042{len(kinds) - 1}")


@dataclass
class Away:
    """No API server; counts who asks."""

    asked: int = 0

    async def hook(self, _: Call, __: Forward) -> Answer:
        self.asked += 1
        raise Severed


def test_an_api_server_that_is_away_for_long_costs_no_session_its_pod(api: ApiServer, tmp_path: Path) -> None:
    """For longer than the operator's lease lasts: it ends, is started again, and waits."""
    stage, calls, gone = make_namespace(api, "long-away"), Calls(), Away()
    sessions = {f"s{number}": f"+1555123044{number}" for number in range(3)}
    with running(api, stage, tmp_path / "operator", "--lease-seconds", "2") as operator:
        for name, phone in sessions.items():
            stage.create(name, phone=phone, tenant=name)
        pods = {name: stage.connect(name, phone) for name, phone in sessions.items()}
        eventually(lambda: operator.quiet, "the operator has nothing left to do", seconds=60)
        operator.gateway.hook = gone.hook
        starts = operator.starts
        # What is asked for in the meantime is not lost.
        stage.patch("s0", {"spec": {"pairing": {"attempts": 9}}})
        eventually(lambda: operator.starts > starts, "the operator has ended", seconds=120)
        asked = gone.asked
        eventually(lambda: gone.asked >= asked + 5, "the next one asks and asks", seconds=120)
        operator.gateway.hook = calls.hook
        eventually(lambda: stage.desired("s0")["pairing"]["attempts"] == 9, "the pod is told", seconds=120)
        eventually(lambda: operator.quiet, "the operator has nothing left to do", seconds=120)
        for name in sessions:
            stage.condition(name, "Ready", status="True", reason="Connected")
            assert stage.pod(name)["metadata"]["uid"] == pods[name]
        assert {call for call in calls.writes if not call.endswith(("/wa-s0", "/s0/status", "/events"))} == set()


@dataclass
class Blind:
    """No watch of sessions or pods brings anything."""

    async def hook(self, call: Call, forward: Forward) -> Answer:
        answer = await forward()
        if not call.watches or not call.path.endswith(("/whatsappsessions", "/pods")):
            return answer
        return Answer(answer.status, answer.headers, self._nothing(answer.chunks))

    async def _nothing(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for _ in chunks:
            yield b"\n"


def test_deletions_that_are_never_seen_are_found_by_the_comparison(api: ApiServer, tmp_path: Path) -> None:
    """Of a pod, and of a session that is removed by force."""
    stage = make_namespace(api, "unseen")
    with running(api, stage, tmp_path / "operator", "--resync-seconds", "1") as operator:
        for name, phone in (("kept", "+15551230450"), ("forced", "+15551230451")):
            stage.create(name, phone=phone, tenant=name)
            stage.connect(name, phone)
        eventually(lambda: operator.quiet, "the operator has nothing left to do", seconds=60)
        operator.gateway.hook = Blind().hook
        operator.restart()
        uid = stage.pod("kept")["metadata"]["uid"]
        stage.api.request("DELETE", stage.pod_path("kept"), {"kind": "DeleteOptions", "gracePeriodSeconds": 0})
        stage.connect("kept", "+15551230450", other_than=uid)
        stage.delete("forced")
        stage.patch("forced", {"metadata": {"finalizers": None}})
        stage.end_pod("forced")
        eventually(lambda: stage.claims("forced") == [], "the claim is released")
        assert stage.find_pod("forced") is None


def test_a_namespace_that_goes_while_a_phone_is_being_paired(api: ApiServer, tmp_path: Path) -> None:
    stage = make_namespace(api, "pairing-goes")
    with running(api, stage, tmp_path / "operator"):
        stage.create("scanning", phone="+15551230460")
        stage.start_pod("scanning")
        stage.report("scanning", "Authenticating", "Connecting", credentials={"present": True, "valid": False})
        eventually(lambda: stage.status("scanning").get("phase") == "Authenticating", "the phone is being linked")
        api.delete(f"/api/v1/namespaces/{stage.namespace}")
        stage.end_pod("scanning")
        eventually(
            lambda: api.find(f"/api/v1/namespaces/{stage.namespace}") is None, "the namespace is gone", seconds=120
        )
        assert stage.claims("scanning") == []
