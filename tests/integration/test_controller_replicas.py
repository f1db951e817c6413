"""Two replicas: one leads and one stands by; restarts, crashes and frozen leaders do no harm."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.integration.api_gateway import Answer, Call, Forward, Gateway, Severed, passing
from tests.integration.controller_life import STEPS, Life
from tests.integration.controller_stand_ins import (
    LEASE,
    OPERATOR_NAMESPACE,
    PATIENCE,
    Operators,
    Replica,
    Stage,
    live_api,
    make_namespace,
    operators,
    paired,
    release_lease,
    settled,
)
from tests.waiting import eventually
from whatsapp_operator.api import names

# Where the time of a take-over is not what is tested.
SHORT_LEASE = ("--lease-seconds", "3")


@pytest.fixture(scope="module")
def stage(control_plane: ControlPlane) -> Iterator[Stage]:
    with live_api(control_plane) as api:
        yield make_namespace(api, "replicas")


@pytest.fixture
def running(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operators]:
    with operators(stage.api, tmp_path_factory.mktemp("operator"), stage.namespace) as found:
        yield found


def lease(stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = stage.api.get(LEASE)["spec"]
    return found


def leads(replica: Replica) -> bool:
    """By the word of the Lease, which is there before the replica is ready."""
    return replica.metric("whatsapp_operator_leader") == 1


def start_standby(running: Operators, *arguments: str, gateway: Gateway | None = None) -> Replica:
    replica = running.start(*arguments, gateway=gateway)
    eventually(lambda: ready(replica), "the standby is ready")
    assert not leads(replica)
    return replica


def ready(replica: Replica) -> bool:
    return replica.get("/readyz")[0] == 200


def test_a_standby_takes_over_and_nothing_is_written_in_a_steady_state(running: Operators, stage: Stage) -> None:
    leader = running.start_leader()
    stage.create("steady", phone="+15551230201", tenant="steady")
    stage.connect("steady", "+15551230201")
    settled(leader)
    standby = start_standby(running)
    with stage.api.watch(LEASE) as seen:
        assert running.stop(leader) == 0
        eventually(lambda: standby.leading, "the standby leads", every=0.05)
    holders = [event.object["spec"].get("holderIdentity", "") for event in seen.events]
    assert "" in holders, "the lease was not released, but has run out"
    assert settled(standby) == 0, standby.text()


def test_a_killed_leader_is_replaced_whatever_its_clock_was(running: Operators, stage: Stage) -> None:
    leader = running.start_leader()
    standby = start_standby(running)
    leader.process.kill()
    stage.api.patch(LEASE, {"spec": {"renewTime": "2099-01-01T00:00:00.000000Z"}})
    stage.create("orphan", phone="+15551230202", tenant="orphan")
    stage.pod("orphan")
    assert leads(standby)


@dataclass
class Thaw:
    """From `frozen` on pods are as they were, so that there is something to write; tells what is tried."""

    frozen: bool = False
    tried: list[str] = field(default_factory=list)

    async def hook(self, call: Call, forward: Forward) -> Answer:
        if self.frozen and call.writes and call.path != LEASE:
            self.tried.append(f"{call.method} {call.path}")
        answer = await forward()
        pods = call.watches and call.path.endswith("/pods")
        return Answer(answer.status, answer.headers, self._until_frozen(answer.chunks)) if pods else answer

    async def _until_frozen(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            while self.frozen:  # noqa: ASYNC110 - set by the thread of the test
                await asyncio.sleep(0.05)
            yield chunk


def test_a_frozen_leader_writes_nothing_after_it_wakes(running: Operators, stage: Stage, tmp_path: Path) -> None:
    thaw = Thaw()
    with Gateway(stage.api, tmp_path) as gateway:
        gateway.hook = thaw.hook
        leader = running.start_leader(*SHORT_LEASE, gateway=gateway)
        standby = start_standby(running, *SHORT_LEASE)
        stage.create("thaw", phone="+15551230203", tenant="thaw")
        stage.connect("thaw", "+15551230203")
        settled(leader)
        leader.process.send_signal(signal.SIGSTOP)
        stage.patch("thaw", {"spec": {"pairing": {"attempts": 7}}})
        eventually(lambda: stage.desired("thaw")["pairing"]["attempts"] == 7, "the pod is told", every=0.02)
        settled(standby)
        before = versions(stage, "thaw")
        thaw.frozen = True
        leader.process.send_signal(signal.SIGCONT)
        assert leader.process.wait(timeout=60) == 1
        assert thaw.tried == []
    assert versions(stage, "thaw") == before
    assert standby.leading


@dataclass
class Late:
    """Holds up all that a leader writes, but its Lease, until it is `released`."""

    holding: bool = False
    released: bool = False
    held: list[Call] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    async def hook(self, call: Call, forward: Forward) -> Answer:
        if not (self.holding and call.writes) or call.path == LEASE:
            return await forward()
        self.held.append(call)
        while not self.released:  # noqa: ASYNC110 - set by the thread of the test
            await asyncio.sleep(0.02)
        answer = await forward()
        self.refused.append(answer.status)
        return answer


def test_what_a_frozen_leader_had_sent_has_no_effect(running: Operators, stage: Stage, tmp_path: Path) -> None:
    """It arrives when the next leader has done the same, and more."""
    late = Late()
    connected = {name: f"+1555123021{number}" for number, name in enumerate(("told", "replaced", "reported"))}
    with Gateway(stage.api, tmp_path) as gateway:
        gateway.hook = late.hook
        leader = running.start_leader(*SHORT_LEASE, gateway=gateway)
        pods = {}
        for name, phone in connected.items():
            stage.create(name, phone=phone, tenant=name)
            pods[name] = stage.connect(name, phone)
        stage.create("ending", phone="+15551230213", tenant="ending")
        stage.pod("ending")
        settled(leader)
        late.holding = True
        stage.patch("told", {"spec": {"pairing": {"attempts": 7}}})
        stage.patch("replaced", {"spec": {"template": {"nodeSelector": {"disk": "fast"}}}})
        stage.report("reported", "Reconnecting", "Reconnecting", **paired(connected["reported"]))
        stage.delete("ending")
        stage.create("begun", phone="+15551230214", tenant="begun")
        wanted = {("PATCH", "pods"), ("DELETE", "pods"), ("PATCH", "status"), ("PATCH", "begun"), ("POST", "leases")}
        eventually(lambda: wanted <= {kind(call) for call in late.held}, "the leader has sent all of it")
        leader.process.send_signal(signal.SIGSTOP)

        standby = running.start(*SHORT_LEASE)
        stage.end_pod("replaced")
        stage.connect("replaced", connected["replaced"], other_than=pods["replaced"])
        stage.condition("reported", "Connected", status="False", reason="Reconnecting")
        eventually(lambda: stage.desired("told")["pairing"]["attempts"] == 7, "the pod is told", every=0.02)
        stage.gone("ending")
        stage.pod("begun")
        settled(standby)
        names_left = (*connected, "begun")
        before = [versions(stage, name) for name in names_left]
        late.released = True
        eventually(lambda: len(late.refused) == len(late.held), "all of it has arrived")
        assert set(late.refused) <= {404, 409}
        assert [versions(stage, name) for name in names_left] == before
        assert standby.leading


def kind(call: Call) -> tuple[str, str]:
    """Of a write: its method, and the resource, the subresource, or the name of the session."""
    parts = call.path.split("/")
    owned = call.method != "POST" and parts[-2] != names.PLURAL and not call.path.endswith("/status")
    return call.method, parts[-2] if owned else parts[-1]


def test_a_leader_that_ends_gives_up_its_lease_before_its_work_is_done(
    running: Operators, stage: Stage, tmp_path: Path
) -> None:
    late = Late(holding=True)
    with Gateway(stage.api, tmp_path) as gateway, stage.api.watch(LEASE) as seen:
        gateway.hook = late.hook
        leader = running.start_leader(gateway=gateway)
        standby = start_standby(running)
        stage.create("unfinished", phone="+15551230217", tenant="unfinished")
        eventually(lambda: late.held, "the leader waits for the answer to a write")
        leader.process.terminate()
        eventually(lambda: leads(standby), "the standby leads", every=0.05)
        assert late.refused == []
        stage.pod("unfinished")
        late.released = True
        assert leader.process.wait(timeout=60) == 0
    holders = [event.object["spec"].get("holderIdentity", "") for event in seen.events]
    assert any(holders), "the leader is among them"
    assert holders[-1].startswith("operator-1_")
    assert "" in holders[next(i for i, holder in enumerate(holders) if holder) :], (
        "it has run out, and was not released"
    )


@dataclass
class LastWrite:
    """Kills the leader before or after it writes that attempts up to `seq` are counted."""

    leader: Replica
    seq: int
    after: bool

    async def hook(self, call: Call, forward: Forward) -> Answer:
        body = json.loads(call.body) if call.writes and call.path.endswith("/status") else {}
        if body.get("status", {}).get("pairing", {}).get("lastCountedSeq") != self.seq:
            return await forward()
        if self.after:
            await forward()
        self.leader.process.kill()
        raise Severed


def test_a_pairing_is_never_counted_twice(running: Operators, stage: Stage, tmp_path: Path) -> None:
    """Nor lost but with an operator that dies as it counts; those that end while none runs are counted by the next."""

    def end_attempts(last: int) -> None:
        attempt = {"method": "QRCode", "result": "Failed", "reason": "Expired", "secondsToQR": 0.4}
        history = [{**attempt, "seq": seq, "id": f"attempt-{seq}"} for seq in range(1, last + 1)]
        pairing = {"state": "Showing", "attempt": 1, "id": "next", "seq": last, "failed": last, "history": history}
        stage.report("counted", "ShowingQR", "QRAvailable", pairing=pairing)

    def next_leader() -> Replica:
        release_lease(stage.api)
        return running.start_leader(*SHORT_LEASE, gateway=gateway)

    def counts(leader: Replica, attempts: int, *, last: int) -> None:
        """Wait until that many are counted, and the status tells it; there are no more."""
        told = "all are counted"
        eventually(lambda: stage.status("counted")["pairing"].get("lastCountedSeq") == last, told, seconds=PATIENCE)
        settled(leader)
        assert leader.metric("whatsapp_pairing_attempts_total", result="Failed", reason="Expired") == attempts

    def dies(leader: Replica, *, counting: int, after: bool) -> None:
        gateway.hook = LastWrite(leader, counting, after).hook
        end_attempts(counting)
        leader.process.wait(timeout=60)
        gateway.hook = passing

    with Gateway(stage.api, tmp_path) as gateway:
        leader = next_leader()
        stage.create("counted", phone="+15551230218", tenant="counted")
        stage.start_pod("counted")
        stage.report("counted", "Starting", "Starting")
        counts(leader, 0, last=0)
        end_attempts(1)
        counts(leader, 1, last=1)
        leader.process.kill()
        leader.process.wait()
        end_attempts(3)
        leader = next_leader()
        counts(leader, 2, last=3)
        dies(leader, counting=4, after=False)
        leader = next_leader()
        counts(leader, 1, last=4)
        dies(leader, counting=5, after=True)
        leader = next_leader()
        end_attempts(6)
        counts(leader, 1, last=6)


def test_every_write_of_a_life_has_a_precondition(running: Operators, stage: Stage, tmp_path: Path) -> None:
    """So that one that comes late has no effect; and nothing is ever deleted by force."""
    written: list[Call] = []

    async def record(call: Call, forward: Forward) -> Answer:
        if call.writes:
            written.append(call)
        return await forward()

    with Gateway(stage.api, tmp_path) as gateway:
        gateway.hook = record
        leader = running.start_leader(*SHORT_LEASE, gateway=gateway)
        life = Life(stage)
        for step in STEPS:
            getattr(life, step)()
        settled(leader)
        assert running.stop(leader) == 0
    seen = {(call.method, call.path.split("/")[-1 if call.method == "POST" else -2]) for call in written}
    assert {("POST", "pods"), ("PATCH", "pods"), ("DELETE", "pods"), ("DELETE", "leases"), ("PATCH", "leases")} <= seen
    assert [call for call in written if not is_guarded(call)] == []
    for call in written:
        if call.method == "DELETE":
            options = json.loads(call.body)
            assert "gracePeriodSeconds" not in options
            assert "gracePeriodSeconds" not in call.query
            assert not options.get("ignoreStoreReadErrorWithClusterBreakingPotential")


def is_guarded(call: Call) -> bool:
    """Whether the API server refuses the write where the object is another by now, or there already."""
    body = json.loads(call.body)
    if call.method == "DELETE":
        return bool({"uid", "resourceVersion"} & body.get("preconditions", {}).keys())
    if call.method == "POST":
        # An Event that is told twice does no harm.
        return "name" in body["metadata"] or call.path.endswith("/events")
    return "resourceVersion" in body["metadata"]


def test_who_does_not_see_the_api_server_is_not_ready(running: Operators, stage: Stage, tmp_path: Path) -> None:
    leader = running.start_leader(*SHORT_LEASE)
    away = False

    async def passing_or_away(_: Call, forward: Forward) -> Answer:
        if away:
            raise Severed
        return await forward()

    with Gateway(stage.api, tmp_path) as gateway:
        gateway.hook = passing_or_away
        standby = start_standby(running, *SHORT_LEASE, gateway=gateway)
        away = True
        eventually(lambda: standby.get("/readyz")[0] == 503, "the standby notices")
        away = False
        eventually(lambda: ready(standby), "the standby is ready again")
        assert standby.process.poll() is None
    assert leader.leading


def test_a_leader_is_ready_when_it_knows_everything(running: Operators, stage: Stage, tmp_path: Path) -> None:
    known = False

    async def hold_back(call: Call, forward: Forward) -> Answer:
        while call.method == "GET" and call.path.endswith("/pods") and not known:  # noqa: ASYNC110 - set by the test
            await asyncio.sleep(0.02)
        return await forward()

    with Gateway(stage.api, tmp_path) as gateway:
        gateway.hook = hold_back
        leader = running.start(*SHORT_LEASE, gateway=gateway)
        eventually(lambda: leads(leader), "it leads")
        stage.create("unseen", phone="+15551230215", tenant="unseen")
        assert leader.get("/readyz") == (503, "not synced yet\n")
        assert leader.writes() == 0
        known = True
        eventually(lambda: leader.leading, "it is ready")
        stage.pod("unseen")


def test_one_leads_whatever_is_done_to_the_lease(running: Operators, stage: Stage) -> None:
    replicas = [running.start_leader(*SHORT_LEASE), start_standby(running, *SHORT_LEASE)]

    def one_leads() -> bool:
        holder = (stage.api.find(LEASE) or {"spec": {}})["spec"].get("holderIdentity") or ""
        leading = [replica for replica in replicas if replica.process.poll() is None and replica.leading]
        return len(leading) == 1 and holder.startswith(f"operator-{running.replicas.index(leading[0])}_")

    edits: list[dict[str, Any]] = [
        {"holderIdentity": ""},
        {"holderIdentity": None, "leaseDurationSeconds": None, "renewTime": None, "leaseTransitions": None},
        {"leaseDurationSeconds": 3600, "renewTime": "2001-01-01T00:00:00.000000Z"},
    ]
    for edit in edits:
        version = stage.api.patch(LEASE, {"spec": edit})["metadata"]["resourceVersion"]
        eventually(lambda: stage.api.get(LEASE)["metadata"]["resourceVersion"] != version, "it is renewed")  # noqa: B023
        eventually(one_leads, "one leads")
        while (alive := [replica for replica in replicas if replica.process.poll() is None]) != replicas:
            # Who has lost it ends, and is started again.
            replicas = [*alive, start_standby(running, *SHORT_LEASE)]
    stage.api.delete(LEASE)
    eventually(one_leads, "one leads")
    stage.create("led", phone="+15551230216", tenant="led")
    stage.pod("led")


def versions(stage: Stage, name: str) -> list[str]:
    found = [stage.session(name), stage.pod(name), *stage.claims(name), stage.api.get(stage.volume_path(name))]
    return [body["metadata"]["resourceVersion"] for body in found]


def test_a_session_made_or_deleted_while_no_operator_runs(running: Operators, stage: Stage) -> None:
    leader = running.start_leader(*SHORT_LEASE)
    stage.create("gone-meanwhile", phone="+15551230204", tenant="meanwhile")
    stage.connect("gone-meanwhile", "+15551230204")
    leader.process.kill()
    leader.process.wait()
    stage.delete("gone-meanwhile")
    stage.create("made-meanwhile", phone="+15551230205", tenant="meanwhile")
    running.start_leader(*SHORT_LEASE)
    stage.unlink("gone-meanwhile")
    stage.gone("gone-meanwhile")
    stage.connect("made-meanwhile", "+15551230205")


def test_a_replica_without_its_lease_ends(running: Operators, stage: Stage) -> None:
    leader = running.start_leader(*SHORT_LEASE)
    stage.api.patch(LEASE, {"spec": {"holderIdentity": "somebody-else"}})
    assert leader.process.wait(timeout=20) == 1


def test_without_named_namespaces_all_are_served(running: Operators, stage: Stage) -> None:
    running.namespaces = ""
    running.start_leader(*SHORT_LEASE)
    stage.create("anywhere", phone="+15551230206", tenant="anywhere")
    stage.connect("anywhere", "+15551230206")
    stage.delete("anywhere")
    stage.unlink("anywhere")
    stage.gone("anywhere")


def test_the_regular_comparison_heals_what_no_watch_tells_of(running: Operators, stage: Stage) -> None:
    leader = running.start_leader(*SHORT_LEASE, "--resync-seconds", "0.5")
    stage.create("healed", phone="+15551230207", tenant="healed")
    stage.connect("healed", "+15551230207")
    account = f"/api/v1/namespaces/{stage.namespace}/serviceaccounts/{names.SESSION_SERVICE_ACCOUNT}"
    bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{stage.namespace}/rolebindings"
    for path in (account, f"{bindings}/{names.SESSION_SERVICE_ACCOUNT}"):
        stage.api.delete(path)
        eventually(lambda path=path: stage.api.find(path), f"{path} is there again", every=0.05)  # type: ignore[misc]
    (claim,) = stage.claims("healed")
    name = f"{claim['metadata']['name'][:-4]}gone"
    claim["metadata"] = {"name": name, "labels": claim["metadata"]["labels"]}
    claim["spec"]["holderIdentity"] = f"{stage.namespace}/vanished/no-such-uid"
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases"
    stage.api.create(leases, claim)
    eventually(lambda: stage.api.find(f"{leases}/{name}") is None, "the claim of nobody is released", every=0.05)
    assert len(stage.claims("healed")) == 1
    assert stage.condition("healed", "Ready", status="True", reason="Connected")
    assert leader.leading
