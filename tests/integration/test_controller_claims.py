"""One session per phone, one pod per session, one primary session per tenant, whatever people and crashes do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver import ApiServer, Seen, conditions, sessions_path
from tests.integration.api_gateway import Answer, Call, Forward, Gateway, Severed
from tests.integration.controller_life import Operator
from tests.integration.controller_stand_ins import (
    LEASE,
    OPERATOR_NAMESPACE,
    Operators,
    Replica,
    Stage,
    make_namespace,
    operators,
    paired,
    running_status,
    settled,
)
from tests.waiting import eventually
from whatsapp_operator.api import names
from whatsapp_operator.api.reasons import Reason, sentence

LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases"
CROWD = 50


@pytest.fixture(scope="module")
def stage(api: ApiServer) -> Stage:
    return make_namespace(api, "claims")


@pytest.fixture(scope="module")
def other(api: ApiServer) -> Stage:
    return make_namespace(api, "claims-other")


@pytest.fixture(scope="module")
def running(api: ApiServer, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operators]:
    namespaces = f"{stage.namespace},claims-other,claims-gone"
    with operators(api, tmp_path_factory.mktemp("operator"), namespaces) as found:
        yield found


@pytest.fixture
def operator(running: Operators) -> Replica:
    """The one that an earlier test has left running, or a new one."""
    alive = [replica for replica in running.replicas if replica.process.poll() is None]
    return alive[-1] if alive else running.start_leader()


def hold(stage: Stage, name: str, phone: str, tenant: str, **spec: Any) -> str:
    """A session that has paired the phone; returns the pod's uid."""
    stage.create(name, phone=phone, tenant=tenant, **spec)
    return stage.connect(name, phone)


def wait_for_it(stage: Stage, name: str, phone: str, tenant: str) -> None:
    """A session that finds the phone held."""
    stage.create(name, phone=phone, tenant=tenant)
    stage.condition(name, "PhoneClaimed", status="False", reason="HeldByOther")


def claimed(stage: Stage, name: str) -> None:
    """Wait until the session has the phone, and so a pod."""
    stage.condition(name, "PhoneClaimed", status="True", reason="Claimed")
    stage.pod(name)


def vanish(stage: Stage, name: str) -> None:
    """Remove the object by force, without anything of it being cleaned up."""
    stage.delete(name)
    stage.patch(name, {"metadata": {"finalizers": None}})
    eventually(lambda: stage.find_session(name) is None, f"{name} is gone", every=0.02)


def lease_path(claim: dict[str, Any]) -> str:
    return f"{LEASES}/{claim['metadata']['name']}"


def most_at_once(events: list[Seen], kind: str) -> int:
    """How many there were at the same time, at most, of objects whose status says that they are `kind`."""
    present: set[str] = set()
    most = 0
    for event in events:
        uid = event.object["metadata"]["uid"]
        there = event.type != "DELETED" and (kind == "pod" or event.status.get(kind) is True)
        present = present | {uid} if there else present - {uid}
        most = max(most, len(present))
    return most


def test_of_fifty_sessions_one_after_the_other_gets_the_phone(operator: Replica, stage: Stage) -> None:
    tenant, phone = "crowd", "+15551230301"
    crowd = [f"crowd-{number}" for number in range(CROWD)]

    def winner(without: frozenset[str] = frozenset()) -> str | None:
        """Who has the phone, once all the others say so."""
        found = {item["metadata"]["name"]: item for item in stage.api.get(sessions_path(stage.namespace))["items"]}
        told = {name: conditions(found[name]).get("PhoneClaimed", {}) for name in crowd if name not in without}
        having = [name for name, claim in told.items() if claim.get("status") == "True"]
        if len(having) != 1:
            return None
        held = f"Held by {stage.namespace}/{having[0]}. {sentence(Reason.HELD_BY_OTHER)}"
        waiting = [claim for name, claim in told.items() if name != having[0]]
        agreed = all(claim.get("reason") == "HeldByOther" and claim["message"] == held for claim in waiting)
        return having[0] if agreed else None

    def next_winner(*gone: str) -> str:
        name: str = eventually(lambda: winner(frozenset(gone)), "one has it, and the others say who", seconds=60)
        stage.pod(name)
        return name

    with stage.api.watch(f"/api/v1/namespaces/{stage.namespace}/pods/") as pods:
        with ThreadPoolExecutor(CROWD) as creating:
            list(creating.map(lambda name: stage.create(name, phone=phone, tenant=tenant), crowd))
        first = next_winner()
        stage.delete(first)
        second = next_winner(first)
        stage.patch(second, {"spec": {"suspend": True}})
        third = next_winner(first, second)
        stage.patch(third, {"spec": {"phone": "+15551230302"}})
        # It keeps its pod, for the other phone.
        fourth = next_winner(first, second, third)
        stage.delete(third)
        stage.delete(fourth)
        last = next_winner(first, second, third, fourth)
    assert len({first, second, third, fourth, last}) == 5
    assert len(stage.claims(last)) == 1
    of_crowd = [e for e in pods.events if e.object["metadata"]["name"] != names.owned_name(third)]
    assert most_at_once(of_crowd, "pod") == 1
    stage.api.delete(sessions_path(stage.namespace))
    eventually(lambda: stage.api.get(sessions_path(stage.namespace))["items"] == [], "all are gone", seconds=60)


def test_who_has_paired_keeps_the_phone_while_suspended(operator: Replica, stage: Stage) -> None:
    tenant, phone = "rest", "+15551230303"
    hold(stage, "resting", phone, tenant, deletionPolicy="Keep")
    wait_for_it(stage, "heir", phone, tenant)
    stage.patch("resting", {"spec": {"suspend": True}})
    stage.end_pod("resting")
    stage.condition("resting", "Ready", status="True", reason="Suspended")
    stage.condition("resting", "PhoneClaimed", status="True", reason="Claimed")
    stage.condition("heir", "PhoneClaimed", status="False", reason="HeldByOther")
    assert stage.find_pod("heir") is None
    stage.delete("resting")
    claimed(stage, "heir")


def test_a_changed_phone_is_free_once_its_device_is_gone(operator: Replica, stage: Stage) -> None:
    tenant, before, after = "change", "+15551230304", "+15551230305"
    hold(stage, "changing", before, tenant)
    wait_for_it(stage, "after-it", before, tenant)
    stage.patch("changing", {"spec": {"phone": after}})
    eventually(lambda: stage.desired("changing")["phone"] == after, "the pod is told", every=0.02)
    assert len(stage.claims("changing")) == 2
    stage.condition("after-it", "PhoneClaimed", status="False", reason="HeldByOther")
    stage.report("changing", "ShowingQR", "QRAvailable")
    claimed(stage, "after-it")
    assert len(stage.claims("changing")) == 1


def test_a_claim_of_no_session_does_not_block(operator: Replica, stage: Stage) -> None:
    """Whatever somebody has written into it."""
    tenant, phone = "nobody", "+15551230306"
    stage.create("nobody", phone=phone, tenant=tenant)
    stage.pod("nobody")
    (claim,) = stage.claims("nobody")
    uid = stage.session("nobody")["metadata"]["uid"]
    identities = [
        None,
        "garbage",
        "a/b/c/d",
        f"{stage.namespace}//{uid}",
        f"{stage.namespace}/nobody/",
        f"{stage.namespace}/nobody/another-uid",
        f"{stage.namespace}/?limit=1/{uid}",
        f"{stage.namespace}/no body\N{BULLET}/{uid}",
        f"no-such-namespace/nobody/{uid}",
    ]
    for number, identity in enumerate(identities):
        before, name = "nobody" if number == 0 else f"nobody-{number - 1}", f"nobody-{number}"
        stage.delete(before)
        stage.gone(before)
        body = {**claim, "metadata": {key: claim["metadata"][key] for key in ("name", "labels")}}
        stage.api.create(LEASES, {**body, "spec": {"holderIdentity": identity}})
        stage.create(name, phone=phone, tenant=tenant)
        claimed(stage, name)
        assert [found["metadata"]["name"] for found in stage.claims(name)] == [claim["metadata"]["name"]]


@pytest.mark.parametrize("how", ["deleted", "garbage", "another", "unlabelled"])
def test_a_holder_that_has_paired_gets_back_what_was_done_to_its_claim(
    operator: Replica, stage: Stage, how: str
) -> None:
    phone, holder, waiting = "+15551230307", f"robbed-{how}", f"waits-{how}"
    pod = hold(stage, holder, phone, tenant=how, deletionPolicy="Keep")
    wait_for_it(stage, waiting, phone, tenant=how)
    (claim,) = stage.claims(holder)
    uid = stage.session(waiting)["metadata"]["uid"]
    if how == "deleted":
        stage.api.delete(lease_path(claim))
    elif how == "unlabelled":
        stage.api.patch(lease_path(claim), {"metadata": {"labels": None}})
    else:
        identity = "nobody/at/all" if how == "garbage" else f"{stage.namespace}/{waiting}/{uid}"
        stage.api.patch(lease_path(claim), {"spec": {"holderIdentity": identity}})
    eventually(lambda: len(stage.claims(holder)) == 1, "the holder has it again")
    stage.condition(waiting, "PhoneClaimed", status="False", reason="HeldByOther")
    stage.condition(holder, "Ready", status="True", reason="Connected")
    assert stage.pod(holder)["metadata"]["uid"] == pod
    stage.delete(holder)
    stage.end_pod(holder)
    claimed(stage, waiting)


def test_a_holder_that_is_removed_by_force_leaves_the_phone(operator: Replica, stage: Stage) -> None:
    """At once, without the comparison that comes every ten minutes."""
    tenant, phone = "force", "+15551230313"
    hold(stage, "forced", phone, tenant)
    wait_for_it(stage, "next", phone, tenant)
    vanish(stage, "forced")
    claimed(stage, "next")


@pytest.mark.parametrize("how", ["vanished", "replaced"])
def test_a_holder_that_went_while_no_operator_ran_leaves_the_phone(
    operator: Replica, running: Operators, stage: Stage, how: str
) -> None:
    phone, holder, waiting = "+15551230308", f"away-{how}", f"stays-{how}"
    hold(stage, holder, phone, tenant=how)
    wait_for_it(stage, waiting, phone, tenant=how)
    running.stop(operator)
    vanish(stage, holder)
    if how == "replaced":
        stage.create(holder, phone="+15551230309", tenant=how)
    running.start_leader()
    claimed(stage, waiting)


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_a_session_made_anew_waits_for_the_pod_of_the_former(operator: Replica, stage: Stage, policy: str) -> None:
    """Which is on a node that is lost, and may run for as long as it likes."""
    name, phone, kept = f"anew-{policy.lower()}", "+15551230312", {"storage": {"retentionPolicy": policy}}
    pod = hold(stage, name, phone, tenant=name, **kept)
    lost = running_status()
    lost["conditions"][2]["status"] = "False"
    stage.set_pod_status(name, lost)
    stage.condition(name, "Connected", status="Unknown", reason="NodeLost")
    stage.delete(name)
    eventually(lambda: stage.find_session(name) is None, "the session is gone", every=0.02)
    stage.create(name, phone=phone, tenant=name, **kept)
    stage.condition(name, "PhoneClaimed", status="True", reason="Claimed")
    stage.condition(name, "PodReady", status="False", reason="PodPending" if policy == "Retain" else "VolumePending")
    settled(operator)
    left = stage.pod(name)["metadata"]
    assert (left["uid"], "deletionTimestamp" in left, left["deletionGracePeriodSeconds"] > 0) == (pod, True, True)
    stage.end_pod(name)
    stage.connect(name, phone, other_than=pod)


def test_in_the_scope_of_the_cluster_a_holder_is_named_in_its_own_namespace_only(
    operator: Replica, running: Operators, stage: Stage, other: Stage
) -> None:
    phone, lost = "+15551230310", "+15551230311"
    elsewhere = make_namespace(stage.api, "claims-gone")
    running.stop(operator)
    wide = running.start_leader("--claim-scope", "Cluster")
    hold(stage, "wide", phone, "one", deletionPolicy="Keep")
    wait_for_it(other, "far", phone, "two")
    assert other.condition("far", "PhoneClaimed")["message"] == sentence(Reason.HELD_BY_OTHER)
    wait_for_it(stage, "near", phone, "three")
    assert f"Held by {stage.namespace}/wide." in stage.condition("near", "PhoneClaimed")["message"]
    elsewhere.create("doomed", phone=lost, tenant="four")
    claimed(elsewhere, "doomed")
    wait_for_it(other, "heir", lost, "two")
    stage.delete("near")
    stage.gone("near")
    stage.delete("wide")
    stage.end_pod("wide")
    claimed(other, "far")
    # The namespace of a holder goes, and nobody is there to see it.
    running.stop(wide)
    vanish(elsewhere, "doomed")
    for path in (elsewhere.pod_path("doomed"), elsewhere.volume_path("doomed")):
        stage.api.delete(path)
        eventually(lambda path=path: stage.api.find(path) is None, f"{path} is gone", every=0.02)  # type: ignore[misc]
    namespace = f"/api/v1/namespaces/{elsewhere.namespace}"
    stage.api.delete(namespace)
    eventually(lambda: stage.api.find(namespace) is None, "the namespace is gone", seconds=60)
    wide = running.start_leader("--claim-scope", "Cluster")
    claimed(other, "heir")
    running.stop(wide)


def connected_for(stage: Stage, name: str, hours: int) -> None:
    """Write down that the session has been connected for so long; the condition tells no more than the second."""
    found = stage.status(name)["conditions"]
    since = (datetime.now(UTC) - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    older = [{**item, "lastTransitionTime": since} if item["type"] == "Connected" else item for item in found]
    stage.api.patch(sessions_path(stage.namespace, name, "status"), {"status": {"conditions": older}})


def primary(stage: Stage, *candidates: str) -> list[str] | None:
    """Who of them is primary, by status and by the label of its pod; None while these do not agree."""
    told, marked = [], []
    for name in candidates:
        pod = stage.find_pod(name) or {"metadata": {}}
        if (stage.find_session(name) or {}).get("status", {}).get("primary"):
            told.append(name)
        if pod["metadata"].get("labels", {}).get(names.LABEL_PRIMARY) == "true":
            marked.append(name)
    return told if told == marked else None


def test_the_primary_session_stays_until_it_goes(operator: Replica, stage: Stage) -> None:
    tenant = [f"prime-{number}" for number in range(1, 5)]
    with stage.api.watch(f"{sessions_path(stage.namespace)}/") as sessions:
        for number, name in enumerate(tenant, start=1):
            hold(stage, name, f"+1555123032{number}", "prime")
        for hours, name in ((4, "prime-2"), (3, "prime-3"), (2, "prime-4")):
            connected_for(stage, name, hours)
        eventually(lambda: primary(stage, *tenant) == ["prime-1"], "older ones do not take it")
        stage.annotate("prime-2", "true", names.ANNOTATION_PAUSED)
        stage.delete("prime-1")
        # While the device is being unlinked already; a paused session is left alone.
        eventually(lambda: primary(stage, *tenant) == ["prime-3"], "the oldest one of the others is primary")
        stage.unlink("prime-1")
        stage.gone("prime-1")
        vanish(stage, "prime-3")
        eventually(lambda: primary(stage, "prime-2", "prime-4") == ["prime-4"], "the next one is primary")
        stage.end_pod("prime-3")
        stage.annotate("prime-2", None, names.ANNOTATION_PAUSED)
        stage.report("prime-4", "Reconnecting", "Reconnecting", **paired("+15551230324"))
        eventually(lambda: primary(stage, "prime-2", "prime-4") == ["prime-2"], "one that is connected is primary")
        stage.report_connected("prime-4", "+15551230324")
        stage.condition("prime-4", "Connected", status="True")
        assert primary(stage, "prime-2", "prime-4") == ["prime-2"]
    assert (
        most_at_once([event for event in sessions.events if event.object["metadata"]["name"] in tenant], "primary") == 1
    )


@dataclass
class Crashes:
    """Kills the operator before the first write of each object that is `counted`, and after the next."""

    operator: Operator
    counted: Callable[[Call], bool]
    seen: Counter[str] = field(default_factory=Counter)

    async def hook(self, call: Call, forward: Forward) -> Answer:
        if not (call.writes and self.counted(call)):
            return await forward()
        self.seen[call.path] += 1
        if self.seen[call.path] == 2:
            await forward()
        elif self.seen[call.path] > 2:
            return await forward()
        self.operator.kill()
        raise Severed


def makes_primary(call: Call) -> bool:
    """A session's status, and the label of its pod."""
    return call.method == "PATCH" and (call.path.endswith("/status") or "/pods/" in call.path)


def hands_over(call: Call) -> bool:
    """A claim, and what is told of it."""
    return call.path.endswith("/status") or (call.path.startswith(LEASES) and call.path != LEASE)


def test_a_phone_is_handed_over_whenever_the_operator_dies(
    operator: Replica, running: Operators, api: ApiServer, tmp_path: Path
) -> None:
    running.stop(operator)
    stage, phone = make_namespace(api, "claims-hand-over"), "+15551230340"
    with Gateway(api, tmp_path) as gateway:
        crashing = Operator(api, gateway, stage.namespace, tmp_path)
        try:
            with api.watch(f"/api/v1/namespaces/{stage.namespace}/pods/") as pods:
                eventually(lambda: crashing.ready, "the operator is ready", seconds=120)
                hold(stage, "holder", phone, "heirs")
                wait_for_it(stage, "heir", phone, "heirs")
                eventually(lambda: crashing.quiet, "the operator has nothing left to do", seconds=60)
                crashes = Crashes(crashing, hands_over)
                gateway.hook = crashes.hook
                stage.delete("holder")
                stage.unlink("holder")
                stage.gone("holder")
                claimed(stage, "heir")
                stage.connect("heir", phone)
                eventually(lambda: crashing.quiet, "the operator has nothing left to do", seconds=60)
            assert (len(stage.claims("heir")), stage.claims("holder")) == (1, [])
            assert most_at_once(pods.events, "pod") == 1
            [claim] = stage.claims("heir")
            assert {lease_path(claim), sessions_path(stage.namespace, "heir", "status")} <= crashes.seen.keys()
        finally:
            crashing.close()


def test_there_is_one_primary_whenever_the_operator_dies(
    operator: Replica, running: Operators, api: ApiServer, tmp_path: Path
) -> None:
    running.stop(operator)
    stage = make_namespace(api, "claims-crashes")
    with Gateway(api, tmp_path) as gateway:
        crashing = Operator(api, gateway, stage.namespace, tmp_path)
        try:
            with api.watch(f"{sessions_path(stage.namespace)}/") as sessions:
                eventually(lambda: crashing.ready, "the operator is ready", seconds=120)
                for number, name in enumerate(("one", "two", "three")):
                    hold(stage, name, f"+1555123033{number}", "prime", deletionPolicy="Keep")
                for hours, name in ((1, "three"), (2, "two")):
                    connected_for(stage, name, hours)
                eventually(lambda: primary(stage, "one", "two", "three") == ["one"], "the first one is primary")
                crashes = Crashes(crashing, makes_primary)
                gateway.hook = crashes.hook
                stage.delete("one")
                stage.end_pod("one")
                eventually(lambda: stage.find_session("one") is None, "the session is gone", seconds=60)
                eventually(lambda: primary(stage, "two", "three") == ["two"], "the oldest one is primary", seconds=60)
                eventually(lambda: crashing.quiet, "the operator has nothing left to do", seconds=60)
            assert primary(stage, "two", "three") == ["two"]
            assert most_at_once(sessions.events, "primary") == 1
            assert {sessions_path(stage.namespace, "two", "status"), stage.pod_path("two")} <= crashes.seen.keys()
        finally:
            crashing.close()
