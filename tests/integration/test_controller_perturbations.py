"""What Sieve calls perturbations (OSDI 2022): whatever the operator misses, the life of a session ends up the same.

Crashes between any two writes, views of the past, states that are never seen; and an API server that is slow or away.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver import ApiServer
from tests.integration.api_gateway import Answer, Call, Forward, Hook, Severed
from tests.integration.controller_life import STEPS, Life, Operator, outcome, running
from tests.integration.controller_stand_ins import LEASE, PATIENCE, Stage, make_namespace
from tests.waiting import eventually

# A life in which the operator itself is upgraded too.
UPGRADE = "upgrade"
LONG_LIFE = (*STEPS[:-1], UPGRADE, STEPS[-1])
AT_ONCE = "--rollout-delay-seconds=0"
IMAGE = "--session-image=example/session:2"


def lead(stage: Stage, operator: Operator, steps: tuple[str, ...] = STEPS) -> Iterator[tuple[str, Callable[[], None]]]:
    """Each step of a life: its name, and what makes it."""
    life = Life(stage)

    def upgrade() -> None:
        operator.restart(IMAGE)
        life.replaced()

    for step in steps:
        yield step, upgrade if step == UPGRADE else getattr(life, step)


def rest(operator: Operator) -> None:
    eventually(lambda: operator.quiet, "the operator has nothing left to do", seconds=PATIENCE)


def live(stage: Stage, operator: Operator, calm: Calm, begin: Callable[[str], None] = lambda _: None) -> None:
    """A whole life; each step must end as it does in a calm one. `begin` is told of each step before it."""
    for step, make in lead(stage, operator):
        begin(step)
        make()
        ends(stage, calm, step)
    rest(operator)
    assert outcome(stage, Life.name) == calm.outcomes[STEPS[-1]]


def ends(stage: Stage, calm: Calm, step: str) -> None:
    """Wait until there is what there is after the step of a calm life."""
    with suppress(AssertionError):
        eventually(lambda: outcome(stage, Life.name) == calm.outcomes[step], f"the end of {step}", seconds=60)
    assert outcome(stage, Life.name) == calm.outcomes[step], step


@dataclass
class Calm:
    """A life without any disturbance: what there is after each step, and how often it writes each kind of thing."""

    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    writes: Counter[str] = field(default_factory=Counter)


@pytest.fixture(scope="module")
def calm(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Calm:
    stage, found = make_namespace(api, "calm"), Calm()
    at = ""

    async def count(call: Call, forward: Forward) -> Answer:
        if call.writes and call.path != LEASE:
            found.writes[f"{at}: {call.method} {kind_of(call.path)}"] += 1
        return await forward()

    with running(api, stage, tmp_path_factory.mktemp("calm") / "operator", AT_ONCE) as operator:
        operator.gateway.hook = count
        for step, make in lead(stage, operator, LONG_LIFE):
            at = step
            make()
            rest(operator)
            found.outcomes[step] = outcome(stage, Life.name)
    return found


def kind_of(path: str) -> str:
    """The resource and subresource of a path, without the name of the object."""
    match = re.fullmatch(r"/apis?/(?:[^/]+/)?v[^/]+/namespaces/[^/]+/([^/]+)(?:/[^/]+(/.*)?)?", path)
    return f"{match[1]}{match[2] or ''}" if match else path


@dataclass
class Crashes:
    """Kills the operator around each of its writes: before it, and after it when it is made again.

    In each step, two times for each write of that kind that a calm life has.
    """

    operator: Operator
    calm: Counter[str]
    step: str = ""
    seen: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)

    async def hook(self, call: Call, forward: Forward) -> Answer:
        if not call.writes or call.path == LEASE:
            return await forward()
        what = f"{self.step}: {call.method} {kind_of(call.path)}"
        number, self.seen[what] = self.seen[what], self.seen[what] + 1
        if number >= 2 * max(self.calm[what], 1):
            return await forward()
        moment = ("before", "after")[number % 2]
        self.points[f"{moment} {what}"] += 1
        if moment == "after":
            await forward()
        self.operator.kill()
        raise Severed


def test_a_crash_at_each_write(api: ApiServer, calm: Calm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = make_namespace(api, "crashes")
    with running(api, stage, tmp_path / "operator", AT_ONCE) as operator:
        crashes = Crashes(operator, calm.writes)
        operator.gateway.hook = crashes.hook
        for step, make in lead(stage, operator, LONG_LIFE):
            crashes.step = step
            make()
            rest(operator)
            ends(stage, calm, step)
    with capsys.disabled():
        print(  # noqa: T201
            f"\ncrashed {crashes.points.total()} times around {calm.writes.total()} writes of {len(calm.writes)} kinds"
        )
    # An event is lost with who was to tell it; what the next thing overtakes need not be written any more.
    overtaken = (" events", "PATCH pods", "delete: PATCH whatsappsessions/status")
    lasting = {what for what in calm.writes if not what.endswith(overtaken)} | {
        "pair: PATCH pods",
        "relink: PATCH pods",
    }
    assert {f"{moment} {what}" for what in lasting for moment in ("before", "after")} <= crashes.points.keys()


async def slow(_: Call, forward: Forward) -> Answer:
    """As with a slow etcd: half a second for whatever is asked."""
    await asyncio.sleep(0.5)
    return await forward()


async def cut_watches(call: Call, forward: Forward) -> Answer:
    """Each watch ends with the first thing that it brings."""
    answer = await forward()

    async def first() -> AsyncIterator[bytes]:
        async for chunk in answer.chunks:
            yield chunk
            raise Severed

    return Answer(answer.status, answer.headers, first()) if call.watches else answer


async def expire_watches(call: Call, forward: Forward) -> Answer:
    """Each watch says after the first thing that its version is too old (410)."""
    answer = await forward()
    gone = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}

    async def first() -> AsyncIterator[bytes]:
        async for chunk in answer.chunks:
            yield chunk
            if chunk.endswith(b"\n"):
                yield json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n"
                return

    return Answer(answer.status, answer.headers, first()) if call.watches else answer


async def blind_to_pods_and_volumes(call: Call, forward: Forward) -> Answer:
    """No watch of them brings anything: only lists tell what has come, changed and gone."""
    answer = await forward()

    async def nothing() -> AsyncIterator[bytes]:
        async for _ in answer.chunks:
            yield b"\n"

    hidden = call.watches and kind_of(call.path) in ("pods", "persistentvolumeclaims")
    return Answer(answer.status, answer.headers, nothing()) if hidden else answer


@pytest.mark.parametrize(
    ("name", "hook", "arguments"),
    [
        ("slow", slow, ()),
        ("cut", cut_watches, ()),
        ("expired", expire_watches, ()),
        ("blind", blind_to_pods_and_volumes, ("--resync-seconds", "1")),
    ],
    ids=["slow-api-server", "watches-are-cut", "watches-expire", "events-are-never-seen"],
)
def test_a_disturbed_view(
    api: ApiServer, calm: Calm, tmp_path: Path, name: str, hook: Hook, arguments: tuple[str, ...]
) -> None:
    stage = make_namespace(api, f"view-{name}")
    with running(api, stage, tmp_path / "operator", *arguments) as operator:
        operator.gateway.hook = hook
        live(stage, operator, calm)


def test_an_api_server_that_is_away_at_each_step(api: ApiServer, calm: Calm, tmp_path: Path) -> None:
    stage = make_namespace(api, "away")
    with running(api, stage, tmp_path / "operator", "--lease-seconds", "2") as operator:
        passing = operator.gateway.hook

        async def away(_: Call, __: Forward) -> Answer:
            raise Severed

        def begin(step: str) -> None:
            eventually(lambda: operator.ready, "the operator is ready")
            operator.gateway.hook = away
            eventually(lambda: not operator.ready, "the operator notices")
            operator.gateway.hook = passing

        live(stage, operator, calm, begin)


WATCHED = ("whatsappsessions", "pods", "persistentvolumeclaims")


@dataclass
class Past:
    """Answers lists with what they were while it was recording, and holds back what watches bring, until `present`."""

    recording: bool = True
    present: bool = True
    lists: dict[str, Answer] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    replayed: set[str] = field(default_factory=set)

    async def hook(self, call: Call, forward: Forward) -> Answer:
        if call.method != "GET" or not call.path.endswith(WATCHED):
            return await forward()
        if call.watches:
            answer = await forward()
            return Answer(answer.status, answer.headers, self._later(answer.chunks))
        if not self.present:
            self.replayed.add(call.path)
            return replace(self.lists[call.path], chunks=once(self.bodies[call.path]))
        answer = await forward()
        body = b"".join([chunk async for chunk in answer.chunks])
        if self.recording:
            self.lists[call.path], self.bodies[call.path] = answer, body
        return replace(answer, chunks=once(body))

    async def _later(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            while not self.present:  # noqa: ASYNC110 - set by the thread of the test
                await asyncio.sleep(0.05)
            yield chunk


async def once(body: bytes) -> AsyncIterator[bytes]:
    yield body


@pytest.mark.parametrize("seen", ["create", "pair", "suspend"])
def test_an_operator_that_sees_the_past_does_no_harm(api: ApiServer, calm: Calm, tmp_path: Path, seen: str) -> None:
    """What it sees at first: one not paired yet, one with a pod that was replaced since, a suspended one."""
    stage = make_namespace(api, f"past-{seen}")
    life = Life(stage)

    def take(*steps: str) -> None:
        for step in steps:
            getattr(life, step)()
        rest(operator)

    with running(api, stage, tmp_path / "operator") as operator:
        past = Past()
        then = STEPS.index(seen) + 1
        take(*STEPS[:then])
        operator.gateway.hook = past.hook
        operator.restart()
        eventually(lambda: operator.quiet and len(past.lists) == len(WATCHED), "the lists are on record", seconds=60)
        past.recording = False
        take(*STEPS[then : STEPS.index("resume") + 1])
        pod = stage.pod(Life.name)["metadata"]["uid"]

        past.present = False
        operator.restart()
        eventually(lambda: operator.quiet and len(past.replayed) == len(WATCHED), "it acts on the past", seconds=60)
        past.present = True
        stage.patch(Life.name, {"spec": {"pairing": {"attempts": 7}}})
        told = partial(stage.desired, Life.name)
        eventually(lambda: told()["pairing"]["attempts"] == 7, "the present is seen", seconds=PATIENCE)
        rest(operator)
        assert outcome(stage, Life.name) == calm.outcomes["resume"]
        assert stage.pod(Life.name)["metadata"]["uid"] == pod
        assert "deletionTimestamp" not in stage.pod(Life.name)["metadata"]


def test_clocks_an_hour_apart(api: ApiServer, calm: Calm, tmp_path: Path) -> None:
    """Every time that the kubelet and the session pod tell is of a clock that is not the operator's."""
    behind = replace(make_namespace(api, "clock-behind"), ahead=timedelta(hours=-1))
    ahead = replace(make_namespace(api, "clock-ahead"), ahead=timedelta(hours=1))
    both = Stage(api, f"{behind.namespace},{ahead.namespace}")
    with running(api, both, tmp_path / "operator") as operator, ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda stage: live(stage, operator, calm), (behind, ahead)))
