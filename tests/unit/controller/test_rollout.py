"""Pods of another revision are replaced a few at a time, and no more of them when those do not come back."""

import logging
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.controller.builders import (
    NOW,
    OPTIONS,
    PHONE,
    claim,
    connected_report,
    linked,
    observed,
    pod,
    report,
    session,
    told_pod,
)
from whatsapp_operator.api.models import WhatsAppSession, WhatsAppSessionStatus
from whatsapp_operator.api.reasons import ConditionType
from whatsapp_operator.controller import conditions, rollout, status
from whatsapp_operator.controller.actions import CreatePod, DeletePod, PatchPod
from whatsapp_operator.controller.objects import pod as pod_object
from whatsapp_operator.controller.observed import Holder, Observed
from whatsapp_operator.controller.plan import plan
from whatsapp_operator.controller.rollout import OVERDUE_SECONDS, Member, Places, Pod, State
from whatsapp_operator.controller.settings import MaxUnavailable
from whatsapp_operator.controller.views import Key, PodView

REVISION = pod_object.revision(OPTIONS)
CURRENT, OUTDATED, GONE = Pod(current=True), Pod(outdated=True), Pod()


def place(before: str = "Connected", *, revision: str = REVISION, age: float = 10, **changes: Any) -> dict[str, Any]:
    started = (NOW - timedelta(seconds=age)).isoformat()
    return {"revision": revision, "before": before, "startedAt": started, **changes}


def seen(says: dict[str, Any] | None, found: dict[str, Any] | None = None, **changes: Any) -> Observed:
    """A session whose pod reports this, with this place in its status."""
    told = {"session": says} if says is not None else {}
    of = session(status={**told, **({"rollout": found} if found else {}), **changes.pop("status", {})})
    return observed(of, pod=told_pod(of), **changes)


CONNECTED = connected_report()
LINKING = report("Authenticating", "Connecting")
LOST = report("Reconnecting", "Reconnecting", **linked())
LOST_LATELY, LOST_LONG_AGO = (
    report("Reconnecting", "Reconnecting", credentials={"present": True, "valid": True, "lastUsedAt": used.isoformat()})
    for used in (NOW - timedelta(minutes=5), NOW - timedelta(hours=2))
)
LOGGED_OUT = report("ShowingQR", "LoggedOut")
RELINKED = {"relink": {"requestID": "r", "requestedAt": (NOW - timedelta(seconds=5)).isoformat()}}


UPDATED, WAITS, TAKES = State.UPDATED, State.OUTDATED, State.IN_PROGRESS


@pytest.mark.parametrize(
    ("o", "found", "before", "state"),
    [
        pytest.param(seen(CONNECTED), CURRENT, None, UPDATED, id="nothing to do"),
        pytest.param(seen(CONNECTED), GONE, None, UPDATED, id="its pod goes for another reason"),
        pytest.param(seen(CONNECTED), OUTDATED, None, WAITS, id="no place is free"),
        pytest.param(seen(CONNECTED, admitted=True), OUTDATED, "Connected", TAKES, id="admitted while connected"),
        pytest.param(seen(LOST, admitted=True), OUTDATED, "Reporting", TAKES, id="admitted while not connected"),
        pytest.param(seen(LOST_LATELY, admitted=True), OUTDATED, "Connected", TAKES, id="its connection was just lost"),
        pytest.param(seen(LOST_LONG_AGO, admitted=True), OUTDATED, "Reporting", TAKES, id="it was lost long ago"),
        pytest.param(seen(None, admitted=True), OUTDATED, "Down", TAKES, id="admitted without a report"),
        pytest.param(seen(LINKING, admitted=True), OUTDATED, None, WAITS, id="a phone is being linked"),
        pytest.param(seen(CONNECTED, admitted=True), CURRENT, None, UPDATED, id="up to date in the meantime"),
        pytest.param(
            seen(LOST, place(revision="bad"), admitted=True),
            OUTDATED,
            "Connected",
            TAKES,
            id="was connected before a bad revision",
        ),
        pytest.param(seen(LOST, place(revision="bad")), OUTDATED, "Connected", WAITS, id="which is remembered"),
        pytest.param(seen(CONNECTED, place()), OUTDATED, "Connected", TAKES, id="about to be replaced"),
        pytest.param(seen(CONNECTED, place()), GONE, "Connected", TAKES, id="being replaced"),
        pytest.param(seen(CONNECTED, place(revision="bad")), GONE, "Connected", TAKES, id="by whatever revision"),
        pytest.param(seen(CONNECTED, place("Down")), GONE, "Down", TAKES, id="being replaced, and was down"),
        pytest.param(seen(None, place()), CURRENT, "Connected", TAKES, id="the new pod says nothing yet"),
        pytest.param(seen(LOST, place()), CURRENT, "Connected", TAKES, id="it does not connect yet"),
        pytest.param(seen(LOGGED_OUT, place()), CURRENT, "Connected", TAKES, id="logged out: the image may be why"),
        pytest.param(seen(LOGGED_OUT, place(), status=RELINKED), CURRENT, None, UPDATED, id="a new QR was asked for"),
        pytest.param(seen(None, place(), status=RELINKED), CURRENT, "Connected", TAKES, id="which is not shown yet"),
        pytest.param(seen(CONNECTED, place()), CURRENT, None, UPDATED, id="it is connected again"),
        pytest.param(seen(CONNECTED, place(revision="bad")), CURRENT, None, UPDATED, id="by whatever revision"),
        pytest.param(seen(LOST, place("Reporting")), CURRENT, None, UPDATED, id="it reports again"),
        pytest.param(seen(None, place("Reporting")), CURRENT, "Reporting", TAKES, id="it does not report yet"),
        pytest.param(seen(None, place("Down")), CURRENT, None, UPDATED, id="it was down and may stay so"),
    ],
)
def test_the_place_of_a_session(o: Observed, found: Pod, before: str | None, state: State) -> None:
    step = rollout.advance(o, found, REVISION, NOW)
    assert (step.place.before if step.place is not None else None) == before
    assert step.then is not None
    assert step.then.state is state
    had = o.session.status.rollout
    assert step.replace is (found is OUTDATED and had is not None and had.revision == REVISION)


def test_a_session_that_does_not_come_back_is_told_once() -> None:
    waiting = rollout.advance(seen(LOST, place(age=OVERDUE_SECONDS - 20)), CURRENT, REVISION, NOW)
    assert (waiting.after, waiting.place and waiting.place.overdue) == (20.0, None)
    before = session(status={"rollout": place(age=OVERDUE_SECONDS)}).status
    late = rollout.advance(seen(LOST, place(age=OVERDUE_SECONDS)), CURRENT, REVISION, NOW)
    assert late.place is not None
    assert late.place.overdue
    assert late.then == Member(State.OVERDUE)
    assert late.after is None
    after = WhatsAppSessionStatus(rollout=late.place)
    assert rollout.turned_overdue(before, after) is not None
    assert rollout.turned_overdue(after, after) is None
    assert rollout.turned_overdue(after, WhatsAppSessionStatus()) is None


def test_ready_says_what_is_overdue() -> None:
    o = seen(LOST, place(age=OVERDUE_SECONDS, overdue=True))
    found = plan(o, OPTIONS, NOW).status
    assert found is not None
    [ready] = [condition for condition in found.conditions if condition.type == ConditionType.READY]
    assert ready.message.startswith(rollout.note(found.rollout) or "?")
    assert len(ready.message.encode()) <= conditions.MESSAGE_BYTES


@pytest.mark.parametrize(
    ("o", "expected"),
    [
        pytest.param(observed(session(status={"rollout": place()}, deleting=True)), None, id="deleted"),
        pytest.param(
            observed(session(spec={"suspend": True}, status={"rollout": place()}), pod=told_pod(session())),
            None,
            id="suspended",
        ),
        pytest.param(
            observed(session(status={"rollout": place()}), claims={PHONE: claim(Holder.OTHER)}, held=()),
            None,
            id="its phone is held by another",
        ),
    ],
)
def test_who_does_not_run_holds_no_place(o: Observed, expected: None) -> None:
    found = plan(o, OPTIONS, NOW)
    assert found.status is not None
    assert found.status.rollout is expected
    assert found.rolled.then is None


def test_a_paused_session_takes_no_part() -> None:
    paused = session(annotations={"whatsapp-operator.io/paused": "true"}, status={"rollout": place()})
    assert plan(observed(paused, pod=told_pod(paused)), OPTIONS, NOW).rolled == rollout.NO_PART


@pytest.mark.parametrize(
    "o",
    [
        pytest.param(observed(session(status={"rollout": place()}), pod=pod(generation=9)), id="seen as in the past"),
        pytest.param(observed(session(status={"rollout": place()}), invalid="spec.phone: no"), id="an invalid spec"),
        pytest.param(
            observed(session(spec={"template": {"image": "evil"}}, status={"rollout": place()}), pod=pod()),
            id="a template that is not allowed",
        ),
    ],
)
def test_of_what_nothing_can_be_decided_keeps_its_place(o: Observed) -> None:
    found = plan(o, OPTIONS, NOW)
    assert found.rolled.known == found.rolled.then == Member(State.IN_PROGRESS)
    assert found.status is None or found.status.rollout == o.session.status.rollout
    bare = replace(o, session=o.session.model_copy(update={"status": WhatsAppSessionStatus()}))
    assert plan(bare, OPTIONS, NOW).rolled == rollout.NO_PART


def test_a_lost_node_is_waited_for() -> None:
    lost = told_pod(session(), node_lost=True, applied_hash="old")
    step = rollout.advance(observed(pod=lost, admitted=True), OUTDATED, REVISION, NOW)
    assert step.place is None
    assert step.then == Member(State.OUTDATED)


@pytest.mark.parametrize(
    ("text", "running", "expected"),
    [("5", 3, 5), ("0", 100, 0), ("10%", 95, 9), ("10%", 3, 1), ("0%", 100, 0), ("100%", 7, 7)],
)
def test_how_many_at_the_same_time(text: str, running: int, expected: int) -> None:
    assert MaxUnavailable.parse(text).of(running) == expected


@pytest.mark.parametrize("text", ["", "%", "-1", "101%", "five", "5.5"])
def test_what_is_no_number_of_sessions(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        MaxUnavailable.parse(text)


def key(name: str) -> Key:
    return Key("team", name)


def waiting(rank: int, created: str = "") -> Member:
    return Member(State.OUTDATED, (rank, created))


def opened(limit: int) -> Places:
    places = Places(MaxUnavailable(limit))
    places.open()
    return places


def test_who_comes_first() -> None:
    places = Places(MaxUnavailable(1))
    places.expect([key("unseen")])
    members = {"primary": (3, "1"), "young": (2, "9"), "old": (2, "1"), "lost": (1, "5"), "down": (0, "7")}
    for name, (rank, created) in members.items():
        places.note(key(name), waiting(rank, created))
    assert places.next() == []
    places.open()
    assert places.next() == [], "one was not looked at"
    places.seen(key("unseen"))
    order = []
    while found := places.next():
        [admitted] = found
        assert places.next() == []
        places.note(admitted, Member(State.IN_PROGRESS))
        assert not places.admitted(admitted)
        assert places.next() == []
        order.append(admitted.name)
        places.note(admitted, Member(State.UPDATED))
    assert order == ["down", "lost", "old", "young", "primary"]
    assert (places.count(State.UPDATED), places.count(State.OUTDATED)) == (5, 0)


def test_a_kept_place_is_given_on_when_it_is_not_needed() -> None:
    places = opened(1)
    places.note(key("a"), waiting(0))
    places.note(key("b"), waiting(1))
    assert places.next() == [key("a")]
    places.note(key("a"), waiting(0))
    assert places.admitted(key("a")), "its status is not written yet"
    places.note(key("a"), None)
    assert places.next() == [key("b")]
    places.note(key("b"), Member(State.UPDATED))
    places.note(key("a"), waiting(0))
    assert places.next() == [key("a")]


def test_who_changes_its_turn_is_admitted_once() -> None:
    places = opened(3)
    for rank in (0, 1, 0):
        places.note(key("a"), waiting(rank))
    assert places.next() == [key("a")]
    places.note(key("a"), Member(State.IN_PROGRESS))
    assert places.next() == []


def test_who_falls_back_waits_for_those_that_are_before_it_now() -> None:
    places = opened(1)
    places.note(key("a"), waiting(0))
    places.note(key("b"), waiting(1))
    places.note(key("a"), waiting(2))
    assert places.next() == [key("b")]


def test_changes_of_turn_do_not_pile_up() -> None:
    places = opened(0)
    places.note(key("b"), waiting(1))
    for number in range(1000):
        places.note(key("a"), waiting(number % 2 * 2))
        assert places.next() == []
    assert len(places._waiting) < 50
    assert {name for _, name in places._waiting} == {key("a"), key("b")}


def test_that_it_stops_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    places = opened(1)
    with caplog.at_level(logging.WARNING):
        places.note(key("a"), Member(State.OVERDUE))
        places.next()
        assert caplog.messages == [], "nobody waits"
        places.note(key("b"), waiting(0))
        places.next()
        places.next()
    assert len(caplog.messages) == 1
    assert "stopped" in caplog.messages[0]


GOOD_OR_BAD = [replace(OPTIONS, session_image=f"example/session:{number}") for number in range(4)]


def is_good(image: str) -> bool:
    return image[-1] in "02"


@dataclass
class Sim:
    """A session with its pod, as the API server has them, and what the phone and the kubelet make of it."""

    name: str
    reaches_the_server: bool
    suspend: bool = False
    status: dict[str, Any] = field(default_factory=dict)
    pod: PodView | None = None
    image: str = ""
    pods: int = 0

    def model(self) -> WhatsAppSession:
        found = session(spec={"suspend": self.suspend}, status=self.status)
        return found.model_copy(update={"metadata": found.metadata.model_copy(update={"name": self.name})})

    @property
    def connected(self) -> bool:
        says = self.status.get("session")
        if self.pod is None or self.pod.deleting or says is None:
            return False
        return bool(says["podUID"] == self.pod.uid and says["machine"] == "Connected")


class Fleet:
    """The sessions, and an operator that may be killed before each of its writes and come back as another one."""

    def __init__(self, limit: int, reaching: list[bool]) -> None:
        self.limit = limit
        self.now = NOW
        self.sessions = {key(f"s{number}"): Sim(f"s{number}", good) for number, good in enumerate(reaching)}
        self.taken_down: set[Key] = set()
        self.start(0)
        self.settle()

    def start(self, image: int) -> None:
        self.options = GOOD_OR_BAD[image]
        self.revision = pod_object.revision(self.options)
        self.taken_down.clear()
        self.restart()

    def restart(self) -> None:
        self.places = Places(MaxUnavailable(self.limit))
        self.places.expect(self.sessions)
        self.places.open()
        self.queue = dict.fromkeys(self.sessions)

    def observe(self, of: Key) -> Observed:
        sim = self.sessions[of]
        model = sim.model()
        return observed(model, pod=sim.pod, pod_age=99.0, admitted=self.places.admitted(of))

    def look(self, of: Key, writes: int = 99) -> None:
        """Reconcile; after so many writes the operator is killed."""
        self.queue.pop(of, None)
        for _ in range(9):
            found = plan(self.observe(of), self.options, self.now)
            self.places.note(of, found.rolled.known)
            if not found.actions:
                break
            for action in found.actions:
                if writes == 0:
                    return self.restart()
                writes -= 1
                self.act(of, action)
        sim, new = self.sessions[of], found.status
        assert new is not None
        dumped = status.dump(new)
        if dumped != {name: value for name, value in sim.status.items() if name != "session"}:
            if writes == 0:
                return self.restart()
            self.queue[of] = None
            sim.status = {**dumped, **({"session": sim.status["session"]} if "session" in sim.status else {})}
        self.places.note(of, found.rolled.then)
        for woken in self.places.next():
            self.queue[woken] = None
        self.check()
        return None

    def act(self, of: Key, action: Any) -> None:
        sim = self.sessions[of]
        if isinstance(action, CreatePod):
            sim.pods += 1
            annotations = action.body["metadata"]["annotations"]
            sim.image = action.body["spec"]["containers"][0]["image"]
            sim.pod = pod(
                uid=f"{sim.name}-{sim.pods}",
                running=False,
                phase="Pending",
                started_at=None,
                desired_state=annotations["whatsapp-operator.io/desired-state"],
                applied_hash=annotations["whatsapp-operator.io/applied-hash"],
                spec_hash=annotations["whatsapp-operator.io/spec-hash"],
            )
        elif isinstance(action, DeletePod):
            assert sim.pod is not None
            if not sim.suspend and sim.connected:
                self.taken_down.add(of)
            sim.pod = replace(sim.pod, deleting=True)
        else:
            assert isinstance(action, PatchPod)
            assert sim.pod is not None
            wanted = dict(action.annotations).get("whatsapp-operator.io/desired-state", sim.pod.desired_state)
            sim.pod = replace(sim.pod, primary=sim.model().status.primary is True, desired_state=wanted)

    def kubelet(self, of: Key) -> None:
        """The next thing that happens to the pod, if anything does."""
        sim = self.sessions[of]
        if sim.pod is None:
            return
        if sim.pod.deleting:
            sim.pod = None
        elif not sim.pod.running:
            sim.pod = replace(sim.pod, running=True, phase="Running", started_at=NOW - timedelta(minutes=1))
        elif (sim.status.get("session") or {}).get("podUID") != sim.pod.uid:
            good = sim.reaches_the_server and is_good(sim.image)
            says = connected_report() if good else LOST
            sim.status = {**sim.status, "session": {**says, "podUID": sim.pod.uid}}
        else:
            return
        if sim.connected:
            self.taken_down.discard(of)
        self.queue[of] = None

    def switch(self, of: Key) -> None:
        self.sessions[of].suspend ^= True
        self.queue[of] = None

    def settle(self) -> None:
        """Until nothing happens any more."""
        for _ in range(20 * len(self.sessions)):
            for _ in range(20 * len(self.sessions)):
                if self.queue:
                    self.look(next(iter(self.queue)))
            assert not self.queue
            for of in self.sessions:
                self.kubelet(of)
            if not self.queue:
                return
        raise AssertionError("no end")

    def check(self) -> None:
        assert len(self.taken_down) <= self.limit
        held = [
            sim
            for sim in self.sessions.values()
            if (sim.status.get("rollout") or {}).get("revision") == self.revision and not sim.suspend
        ]
        assert len(held) <= self.limit

    def images(self) -> set[str]:
        return {sim.image for sim in self.sessions.values() if sim.pod is not None}


STEPS = st.one_of(
    st.tuples(st.just("look"), st.integers(0, 5)),
    st.tuples(st.just("kill"), st.integers(0, 2)),
    st.tuples(st.just("kubelet"), st.integers(0, 5)),
    st.tuples(st.just("switch"), st.integers(0, 5)),
    st.tuples(st.just("upgrade"), st.integers(0, 3)),
)


@given(
    limit=st.integers(1, 3),
    reaching=st.lists(st.booleans(), min_size=2, max_size=5),
    steps=st.lists(STEPS, max_size=40),
)
def test_never_more_than_allowed_and_in_the_end_all(
    limit: int, reaching: list[bool], steps: list[tuple[str, int]]
) -> None:
    fleet = Fleet(limit, reaching)
    keys = list(fleet.sessions)
    for step, number in steps:
        of = keys[number % len(keys)]
        if step == "look":
            fleet.look(next(iter(fleet.queue), of))
        elif step == "kill":
            fleet.look(next(iter(fleet.queue), of), writes=number)
            fleet.restart()
        elif step == "kubelet":
            fleet.kubelet(of)
        elif step == "switch":
            fleet.switch(of)
        else:
            fleet.start(number)
    fleet.settle()
    fleet.start(2)
    fleet.settle()
    assert fleet.images() <= {GOOD_OR_BAD[2].session_image}
    for sim in fleet.sessions.values():
        assert sim.status.get("rollout") is None
        assert sim.connected is (sim.reaches_the_server and not sim.suspend)


@given(limit=st.integers(1, 2), connected=st.integers(1, 4), others=st.integers(0, 2))
def test_a_bad_image_stops_at_the_first_connected_ones(limit: int, connected: int, others: int) -> None:
    fleet = Fleet(limit, [True] * connected + [False] * others)
    fleet.start(1)
    fleet.settle()
    still = sum(sim.connected for sim in fleet.sessions.values())
    assert still == max(0, connected - limit)
    assert fleet.places.count(State.OUTDATED) == still, "those that were not connected came first"
    fleet.start(0)
    fleet.settle()
    assert sum(sim.connected for sim in fleet.sessions.values()) == connected
    assert fleet.images() == {GOOD_OR_BAD[0].session_image}
