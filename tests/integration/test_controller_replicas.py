"""Two replicas: one leads and one stands by; restarts, crashes and frozen leaders do no harm."""

import signal
import time
from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.integration.controller_stand_ins import (
    OPERATOR_NAMESPACE,
    Operators,
    Stage,
    live_api,
    make_namespace,
    operators,
    settled,
)
from tests.waiting import eventually
from whatsapp_operator.api import names

TAKE_OVER_SECONDS = 15.0
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


def test_a_standby_takes_over_and_nothing_is_written_in_a_steady_state(running: Operators, stage: Stage) -> None:
    leader = running.start_leader()
    stage.create("steady", phone="+15551230201", tenant="steady")
    stage.connect("steady", "+15551230201")
    settled(leader)
    standby = running.start()
    eventually(lambda: standby.get("/readyz")[0] == 200, "the standby is ready")
    assert standby.metric("whatsapp_operator_leader") == 0
    released = time.monotonic()
    assert running.stop(leader) == 0
    eventually(lambda: standby.leading, "the standby leads", every=0.05)
    assert time.monotonic() - released < TAKE_OVER_SECONDS / 2, "the lease was not released"
    assert settled(standby) == 0, standby.text()


def test_a_killed_leader_is_replaced(running: Operators, stage: Stage) -> None:
    leader = running.start_leader()
    standby = running.start()
    eventually(lambda: standby.get("/readyz")[0] == 200, "the standby is ready")
    leader.process.kill()
    killed = time.monotonic()
    stage.create("orphan", phone="+15551230202", tenant="orphan")
    stage.pod("orphan")
    assert time.monotonic() - killed < TAKE_OVER_SECONDS
    assert standby.metric("whatsapp_operator_leader") == 1


def test_a_frozen_leader_writes_nothing_after_it_wakes(running: Operators, stage: Stage) -> None:
    leader = running.start_leader(*SHORT_LEASE)
    standby = running.start(*SHORT_LEASE)
    eventually(lambda: standby.get("/readyz")[0] == 200, "the standby is ready")
    settled(leader)
    leader.process.send_signal(signal.SIGSTOP)
    stage.create("thaw", phone="+15551230203", tenant="thaw")
    stage.connect("thaw", "+15551230203")
    settled(standby)
    before = versions(stage, "thaw")
    leader.process.send_signal(signal.SIGCONT)
    assert leader.process.wait(timeout=20) == 1
    assert versions(stage, "thaw") == before
    assert standby.leading


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
    path = "/apis/coordination.k8s.io/v1/namespaces/whatsapp-operator-system/leases/whatsapp-operator-leader"
    stage.api.patch(path, {"spec": {"holderIdentity": "somebody-else"}})
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
