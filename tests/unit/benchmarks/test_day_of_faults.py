"""The pure parts of the day of faults: its schedule, and what must hold."""

import pytest

from tests.benchmarks.fault_schedule import KILLS_SUPERVISOR, KINDS, schedule
from tests.benchmarks.memory import Memory, growth
from tests.benchmarks.verdict import Cause, Pairings, Phantom, objection
from whatsapp_operator.api.reasons import Reason
from whatsapp_simulator.faults import parse

DAY = 1440.0


def test_a_schedule_repeats_itself_and_grows_by_its_sessions() -> None:
    few = schedule(1, 4, seconds=DAY, every=60)
    more = schedule(1, 20, seconds=DAY, every=60)
    assert few == schedule(1, 4, seconds=DAY, every=60) != schedule(2, 4, seconds=DAY, every=60)
    assert few == [strike for strike in more if strike.session is None or strike.session < 4]


def test_a_day_of_twenty_sessions_holds_every_kind() -> None:
    strikes = schedule(1, 20, seconds=DAY, every=60)
    assert {strike.name for strike in strikes} == {kind.name for kind in KINDS}
    assert all(0 <= strike.at < DAY for strike in strikes)
    assert [strike.at for strike in strikes] == sorted(strike.at for strike in strikes)
    assert 400 < len(strikes) < 600


def test_spared_supervisors_live_on() -> None:
    strikes = schedule(1, 20, seconds=DAY, every=60, spared=frozenset({0, 4}))
    killed = {strike.session for strike in strikes if strike.kind.act in KILLS_SUPERVISOR}
    assert killed
    assert not killed & {0, 4}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_simulator_knows_every_fault(kind: object) -> None:
    [found] = [known for known in KINDS if known is kind]
    scope = {} if found.for_all else {"phone": "+15551230001"}
    for fault in found.faults:
        parse({**fault, **scope})


def test_a_phantom_is_a_connected_that_outlasts_its_connection() -> None:
    phantom = Phantom(bound=45)
    samples = [(0, True, True), (1, True, False), (46, True, False)]
    assert not any(phantom.sample(now, said=said, connected=connected) for now, said, connected in samples)
    assert phantom.sample(47, said=True, connected=False)
    assert (phantom.samples, phantom.longest) == (1, 46)


@pytest.mark.parametrize(("said", "connected"), [(True, True), (False, False)])
def test_a_phantom_ends_with_the_connection_or_the_word(said: bool, connected: bool) -> None:
    phantom = Phantom(bound=45)
    phantom.sample(0, said=True, connected=False)
    phantom.sample(40, said=said, connected=connected)
    assert not phantom.sample(50, said=True, connected=False)
    assert not phantom.samples


def test_a_pairing_needs_something_that_took_the_one_before() -> None:
    pairings = Pairings()
    assert pairings.connected(10, "a:1")
    assert pairings.connected(20, "a:1")
    pairings.causes.append(Cause("relink", 100, 101))
    assert pairings.connected(110, "a:2")
    assert pairings.explained == ["relink"]
    assert not pairings.connected(500, "a:3")


def test_a_cause_may_take_effect_late_but_not_be_one_of_later() -> None:
    pairings = Pairings(causes=[Cause("armed", 5), Cause("later", 900)])
    assert pairings.connected(10, "a:1")
    pairings.causes[0].end = 200
    assert pairings.connected(300, "a:2")
    assert not pairings.connected(400, "a:3")
    assert pairings.connected(1000, "a:4")


@pytest.mark.parametrize(
    ("machine", "reason", "why"),
    [
        ("Connected", "Connected", None),
        ("Held", "AttemptsExhausted", None),
        ("Held", "LoggedOut", "no fault of its schedule"),
        ("Held", "Connecting", "no remedy"),
        ("Reconnecting", "Reconnecting", "ends as Reconnecting"),
    ],
)
def test_how_a_session_may_end(machine: str, reason: str, why: str | None) -> None:
    text = objection(machine, reason, expected={Reason.ATTEMPTS_EXHAUSTED})
    assert text is None if why is None else why in (text or "")


def test_growth_is_of_the_second_half() -> None:
    rising = [(float(at), 50.0 if at < 50 else 50.0 + (at - 50) * 0.1) for at in range(101)]
    assert growth(rising) == pytest.approx(5 / 52.5, rel=1e-3)
    assert growth([(at, 50.0) for at, _ in rising]) == 0
    assert growth([(at, 90.0 if at < 50 else 50.0) for at, _ in rising]) == 0


@pytest.mark.parametrize(("growing", "flat"), [(0.0, True), (0.05, False)])
def test_workers_are_judged_by_their_own_growth(monkeypatch: pytest.MonkeyPatch, growing: float, flat: bool) -> None:
    memory = Memory()
    monkeypatch.setattr("tests.benchmarks.memory.anonymous", lambda _: 15.0)
    for number in range(40):
        memory.sample(number, "supervisor", 1)
        memory.add_by_age(2, number * 10, 32.0 + number * growing * 2)
        memory.add_by_age(3, number, 20.0 + number)  # too young to be judged
    assert (memory.objections() == []) is flat


def test_supervisors_that_grow_are_not_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    for number in range(30):
        monkeypatch.setattr("tests.benchmarks.memory.anonymous", lambda _, at=number: 15.0 + at / 10)
        memory.sample(number, "supervisor", 1)
    assert len(memory.objections()) == 1
