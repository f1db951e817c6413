"""A new session image on a real API server: a few sessions at a time, and no more where those do not come back."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.apiserver import ApiServer, Watch, conditions, sessions_path
from tests.integration.controller_stand_ins import (
    Replica,
    Stage,
    make_namespace,
    operators,
    paired,
    release_lease,
    settled,
)
from tests.waiting import eventually

IMAGE = "--session-image=example/session"
OPTIONS = ("--max-unavailable=2", "--rollout-delay-seconds=0")
PHONES = {name: f"+1555124010{number}" for number, name in enumerate(("a", "b", "c", "d"))}
NEVER_PAIRED = "scans"


@pytest.fixture(scope="module")
def stage(api: ApiServer) -> Stage:
    return make_namespace(api, "rollout")


def in_progress(stage: Stage) -> set[str]:
    found = stage.api.get(sessions_path(stage.namespace))["items"]
    return {session["metadata"]["name"] for session in found if "rollout" in session.get("status", {})}


def going(stage: Stage) -> set[str]:
    pods = stage.api.get(f"/api/v1/namespaces/{stage.namespace}/pods")["items"]
    return {pod["metadata"]["name"].removeprefix("wa-") for pod in pods if "deletionTimestamp" in pod["metadata"]}


def uids(stage: Stage, *sessions: str) -> list[str]:
    return [stage.pod(name)["metadata"]["uid"] for name in sessions]


def image(stage: Stage, name: str) -> str:
    found: str = stage.pod(name)["spec"]["containers"][0]["image"]
    return found


def counts(operator: Replica) -> dict[str, float]:
    states = ("updated", "outdated", "in_progress", "overdue")
    return {state: operator.metric("whatsapp_operator_rollout_sessions", state=state) for state in states}


def most_at_once(watch: Watch) -> int:
    """How many sessions had a place for the same revision at the same time."""
    places: dict[str, str] = {}
    most = 0
    for seen in watch.events:
        name = seen.object["metadata"]["name"]
        places[name] = (seen.object.get("status", {}).get("rollout") or {}).get("revision", "")
        most = max(most, *Counter(revision for revision in places.values() if revision).values(), 0)
    return most


def replaced(stage: Stage, name: str) -> None:
    """Let the pod that goes be followed by one that runs."""
    before = stage.pod(name)["metadata"]["uid"]
    stage.end_pod(name)
    stage.start_pod(name, other_than=before)


def shows_a_qr(stage: Stage, name: str) -> None:
    stage.report(name, "ShowingQR", "QRAvailable")
    stage.condition(name, "QRReady", status="True")


def test_a_bad_image_stops_and_is_rolled_back(stage: Stage, tmp_path: Path) -> None:
    with (
        operators(stage.api, tmp_path, stage.namespace) as started,
        stage.api.watch(f"{sessions_path(stage.namespace)}/") as watch,
    ):
        operator = started.start_leader(*OPTIONS, f"{IMAGE}:1")
        for name, phone in PHONES.items():
            stage.create(name, phone=phone, tenant="rollout")
            stage.connect(name, phone)
        stage.create(NEVER_PAIRED, phone="+15551240109", tenant="rollout")
        stage.start_pod(NEVER_PAIRED)
        shows_a_qr(stage, NEVER_PAIRED)
        assert stage.status("a")["primary"] is True
        before = uids(stage, "a", "d")
        settled(operator)
        assert counts(operator) == {"updated": 5, "outdated": 0, "in_progress": 0, "overdue": 0}
        started.stop(operator)

        # A leader with another image, which does not lead for long.
        operator = started.start_leader("--rollout-delay-seconds=3600", f"{IMAGE}:2")
        eventually(lambda: counts(operator)["outdated"] == 5, "all were looked at")
        settled(operator)
        assert (in_progress(stage), going(stage)) == (set(), set())
        started.stop(operator)

        # Another image: whoever has nothing to lose comes first.
        operator = started.start_leader(*OPTIONS, f"{IMAGE}:2")
        first = {NEVER_PAIRED, "b"}
        eventually(lambda: going(stage) == first, "two pods go", every=0.02)
        operator.process.kill()
        operator.process.wait()
        release_lease(stage.api)
        operator = started.start_leader(*OPTIONS, f"{IMAGE}:2")
        settled(operator)
        assert (in_progress(stage), going(stage)) == (first, first), operator.text()
        replaced(stage, "b")
        replaced(stage, NEVER_PAIRED)
        assert image(stage, "b") == "example/session:2"
        assert in_progress(stage) == first, "neither has reported"
        shows_a_qr(stage, NEVER_PAIRED)
        eventually(lambda: going(stage) == {"c"}, "the next one", every=0.02)
        replaced(stage, "c")

        # Those that were connected cannot connect any more.
        for name in ("b", "c"):
            stage.report(name, "Reconnecting", "ClientOutdated", **paired(PHONES[name]))
            stage.condition(name, "Connected", status="False", reason="ClientOutdated")
        settled(operator)
        assert (in_progress(stage), going(stage)) == ({"b", "c"}, set())
        assert uids(stage, "a", "d") == before
        late = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        for name in ("b", "c"):
            path = sessions_path(stage.namespace, name, "status")
            stage.api.patch(path, {"status": {"rollout": {"startedAt": late}}})
        for name in ("b", "c"):
            eventually(lambda name=name: stage.events(name).count("RolloutOverdue") == 1, f"{name} is told")  # type: ignore[misc]
            assert "roll" in conditions(stage.session(name))["Ready"]["message"].lower()
        eventually(lambda: counts(operator) == {"updated": 1, "outdated": 2, "in_progress": 0, "overdue": 2}, "counted")
        assert "the rollout has stopped" in operator.text()
        assert uids(stage, "a", "d") == before
        started.stop(operator)

        # The image from before: those that run it are left alone.
        operator = started.start_leader(*OPTIONS, f"{IMAGE}:1")
        eventually(lambda: going(stage) == {"b", "c"}, "two pods go", every=0.02)
        for name in ("b", "c"):
            replaced(stage, name)
            stage.report_connected(name, PHONES[name])
            stage.condition(name, "Ready", status="True", reason="Connected")
        replaced(stage, NEVER_PAIRED)
        shows_a_qr(stage, NEVER_PAIRED)
        eventually(lambda: counts(operator)["updated"] == 5, "all are back")
        settled(operator)
        assert in_progress(stage) == set()
        assert uids(stage, "a", "d") == before
        assert {image(stage, name) for name in (*PHONES, NEVER_PAIRED)} == {"example/session:1"}
        assert most_at_once(watch) == 2
