"""What no sequence of events, crashes and failed writes may do.

The oracle is a world of its own: an account, a volume, a network and a person. It decides what the machine may do from
what has happened in it, and knows nothing of the machine's reasons.
"""

import functools
from collections import deque
from dataclasses import replace
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.controller import builders
from whatsapp_operator.api.phones import same_account
from whatsapp_operator.api.reasons import EXPLANATIONS, ConditionType, PairingMethod, Reason
from whatsapp_operator.controller import conditions
from whatsapp_operator.session import machine, report, wire
from whatsapp_operator.session.commands import (
    Command,
    Inspect,
    KillWorker,
    LogOut,
    MoveAside,
    OpenVolume,
    Save,
    Stamp,
    StartWorker,
    Wipe,
)
from whatsapp_operator.session.events import (
    DesiredChanged,
    Event,
    Inspected,
    Moment,
    Opened,
    Published,
    PublishFailed,
    Tick,
    VolumeFailed,
    Wiped,
    WorkerExited,
)
from whatsapp_operator.session.identity import phone_of
from whatsapp_operator.session.limits import LIMITS
from whatsapp_operator.session.model import (
    Credentials,
    Desired,
    Journal,
    PairingSpec,
    dump_journal,
    load_journal,
)
from whatsapp_operator.session.state import WITH_LOGIN, WITH_WORKER, Phase, State

PHONES: Final = ("+15551230001", "+15551230002")
LONGEST_WAIT: Final = 25_000.0
"""Seconds: every hold with an end is shorter, with bans of at most 10,000 s."""

LOSSES: Final = st.one_of(
    st.just(wire.Disconnected()),
    st.builds(wire.TemporaryBan, st.just(1), st.integers(0, 10_000)),
    st.just(wire.ConnectFailure("GENERIC")),
    st.just(wire.StreamError("516")),
    st.just(wire.StreamReplaced()),
    st.just(wire.ClientOutdated()),
    st.builds(
        wire.ConnectEnded,
        st.sampled_from(["proxy", "tls", "clock", "dns", "network", "storage", "ban", "other"]),
        st.sampled_from([0, 403]),
        st.just(""),
    ),
    st.just(WorkerExited()),
)
"""After each of these the connection is no more."""

REMARKS: Final = st.one_of(
    st.just(wire.WorkerStarted("0")),
    st.just(wire.QRCode("qr", "png")),
    st.just(wire.PairingCode("ABCD-EFGH")),
    st.builds(wire.PairingCodeRefused, st.sampled_from(["rate_limited", "invalid_phone", "other"]), st.just("")),
    st.builds(
        wire.PairingEnded,
        st.sampled_from(["success", "timeout", "error", "err-client-outdated", "passkey-request", "surprise"]),
    ),
    st.just(wire.KeepAliveTimeout(1)),
    st.just(wire.KeepAliveRestored()),
    st.just(wire.Undecryptable()),
)

JITTER: Final = st.floats(0, 1, exclude_max=True)


class Crash(Exception):  # noqa: N818
    """The process dies between two commands."""


class SessionMachine(RuleBasedStateMachine):
    """The machine in its world, every part of which may fail at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.tokens = 0
        self.jitter = 0.5
        # The volume.
        self.saved = Journal()
        self.credentials = Credentials()
        self.stamped = True
        self.failures_to_come = 0
        self.fuse: int | None = None
        # The server.
        self.known = False
        # What was asked for.
        self.desired = Desired()
        self.requests = 0
        self.recorded: list[str] = []
        self.lost: str | None = None
        # The worker.
        self.worker = False
        self.open = False
        self.logging_out = False
        self.let_in = False
        self.turned_away = False
        self.starts = 0
        # Of the device on the volume: why it may be removed, and how many workers the server did not let in with it.
        self.grounds: set[str] = set()
        self.never_let_in = False
        self.turned_away_times = 0
        self.boot()

    # The world, as the machine's commands reach it.

    def boot(self) -> None:
        self.end_worker()
        self.fuse = None
        self.state, commands = machine.begin()
        told = DesiredChanged(self.desired)
        pending = deque([*self.execute(list(commands)), told] if self.tokens % 2 else [told])
        if not self.tokens % 2:
            pending.extend(self.execute(list(commands)))
        self.run(pending)

    def happen(self, *events: Event) -> None:
        try:
            self.run(deque(events))
        except Crash:
            self.boot()

    def run(self, pending: deque[Event]) -> None:
        """As the supervisor does it: the answers to all commands of a step come after the events before them."""
        self.sound = False
        while pending:
            event = pending.popleft()
            self.tokens += 1
            before = self.state
            state, commands = machine.step(before, event, Moment(self.now, self.jitter, f"token{self.tokens}"))
            saves = [command for command in commands if isinstance(command, Save)]
            assert saves == list(commands[: len(saves)])
            if saves and self.fails():
                if isinstance(event, DesiredChanged):
                    pending.appendleft(event)
                pending.appendleft(VolumeFailed(Reason.VOLUME_FULL))
                continue
            if saves:
                self.save(saves[0].journal)
            self.state = state
            self.check_backoff(before)
            self.look_for_grounds()
            pending.extend(self.execute(list(commands)))
        self.sound = True

    def fails(self) -> bool:
        self.failures_to_come -= 1
        return self.failures_to_come >= 0

    def save(self, journal: Journal) -> None:
        assert load_journal(dump_journal(journal)) == journal
        assert journal.seq == journal.succeeded + journal.failed
        assert journal.seq >= self.saved.seq
        for entry in journal.history:
            for seconds in (entry.seconds_to_qr, entry.seconds_to_scan, entry.seconds_to_connected):
                assert seconds is None or seconds >= 0.0, "the API server would refuse the report for ever"
        if journal.relink_request_id != self.saved.relink_request_id:
            if journal.relink_request_id != self.lost:
                self.recorded.append(str(journal.relink_request_id))
            self.lost = None
            self.grounds.discard("relink")
        self.saved = journal

    def execute(self, commands: list[Command]) -> list[Event]:
        answers: list[Event] = []
        foreign = not self.stamped and self.is_of_another_phone()
        for command in commands:
            if self.fuse is not None:
                self.fuse -= 1
                if self.fuse < 0:
                    raise Crash
            if foreign:
                assert isinstance(command, OpenVolume), "a foreign volume is left alone"
            match command:
                case OpenVolume() | Stamp() | Inspect() | MoveAside() | Wipe() if self.fails():
                    answers.append(VolumeFailed(Reason.VOLUME_READ_ONLY))
                case OpenVolume():
                    answers.append(Opened(self.saved, self.credentials, kept=not self.stamped))
                case Stamp():
                    self.stamped = True
                case Inspect():
                    answers.append(Inspected(self.credentials))
                case MoveAside():
                    assert not self.credentials.valid
                    self.forget_device()
                    answers.append(Inspected(self.credentials))
                case Wipe():
                    self.wipe()
                    answers.append(Wiped())
                case StartWorker():
                    assert not self.worker, "one worker at a time"
                    self.worker = True
                    self.starts += 1
                case KillWorker():
                    self.end_worker()
                case LogOut():
                    assert self.worker
                    self.logging_out = True
                case _:
                    pass
        return answers

    def wipe(self) -> None:
        assert not self.worker, "nothing is wiped under a worker"
        assert self.saved.removal is not None, "nothing is wiped that the journal does not know"
        if self.credentials.present:
            self.look_for_grounds()
            assert self.grounds, "good credentials were wiped for nothing"
        self.forget_device()

    def forget_device(self) -> None:
        self.credentials = Credentials()
        self.known = self.never_let_in = False
        self.turned_away_times = 0
        self.grounds.clear()

    def end_worker(self) -> None:
        if self.never_let_in and self.turned_away and not self.let_in:
            self.turned_away_times += 1
        self.worker = self.open = self.logging_out = self.let_in = self.turned_away = False

    def is_of_another_phone(self) -> bool:
        linked = phone_of(self.credentials.jid) if self.credentials.valid else None
        return linked is not None and self.desired.phone is not None and not same_account(linked, self.desired.phone)

    def look_for_grounds(self) -> None:
        """The sentences of the issue: what a device may be removed for. A ban, an outage, a rival are none."""
        if not self.credentials.present or not self.stamped:
            return
        desired = self.desired
        asked = {
            "refused": not self.known,
            "relink": desired.relink_request_id is not None and desired.relink_request_id not in self.recorded,
            "unlink": desired.unlink,
            "expire": desired.expire,
            "phone": self.is_of_another_phone(),
            "rejected": same_account(phone_of(self.credentials.jid), desired.rejected_phone),
            "never let in": self.turned_away_times >= LIMITS.logins,
        }
        self.grounds |= {ground for ground, holds in asked.items() if holds}

    def check_backoff(self, before: State) -> None:
        after = self.state
        if after.phase is Phase.IDLE and after.deadline is not None and after.deadline != before.deadline:
            wait = after.deadline - self.now
            assert wait <= LIMITS.backoff_cap + 1e-6
            assert wait >= 0.79 or after.failures <= 1 or after.failures == before.failures, "at once only once"

    # What happens in it.

    @initialize(phone=st.sampled_from([None, *PHONES, *PHONES]), connected=st.booleans())
    def begin_with_a_device(self, phone: str | None, connected: bool) -> None:
        if phone is not None:
            self.credentials = Credentials(True, True, f"{phone[1:]}:1@s.whatsapp.net", "", "android")
            self.saved = Journal(registered_at=self.now - 1e5, last_used_at=self.now - 60.0)
            self.known = True
            self.boot()
            if connected:
                self.fair_weather()

    @rule()
    def enjoy_fair_weather(self) -> None:
        self.fair_weather()

    @rule(phone=st.sampled_from(PHONES))
    @precondition(lambda self: self.state.phase in (Phase.REQUESTING, Phase.SHOWING) and self.worker)
    def pair(self, phone: str) -> None:
        self.fair_weather()
        if self.state.phase is Phase.SHOWING:
            self.scan(phone, told=True)

    @rule(event=REMARKS)
    @precondition(lambda self: self.worker)
    def hear(self, event: Any) -> None:
        self.happen(event)

    @rule(event=LOSSES, jitter=JITTER)
    @precondition(lambda self: self.worker)
    def lose_the_connection(self, event: Any, jitter: float) -> None:
        self.open = False
        self.jitter = jitter
        self.happen(event)

    @rule(let_in=st.booleans(), silence=st.sampled_from([None, 0.1, 80.0]), late=st.booleans())
    @precondition(lambda self: self.worker and not self.logging_out)
    def ask_the_library(self, let_in: bool, silence: float | None, late: bool) -> None:
        """A login that is under way is one to which the server has said yes, or not yet.

        One that answers late is taken for not connected; the next answer is in time.
        """
        if late:
            self.happen(wire.Pong(1, False, False, silence))
        let_in = self.open or (let_in and self.credentials.valid and self.known)
        self.let_in = self.let_in or let_in
        self.turned_away = self.turned_away or not let_in
        connected = self.open or self.state.phase in (Phase.OPENING, Phase.AUTHENTICATING)
        self.happen(wire.Pong(1, connected, let_in, silence))

    @rule(
        event=st.sampled_from([None, wire.Disconnected(), wire.KeepAliveTimeout(1)]),
        silence=st.sampled_from([0.1, 80.0]),
    )
    @precondition(lambda self: self.state.phase is Phase.CONNECTED)
    def falter(self, event: Any, silence: float) -> None:
        """A loss, or what looks like one, and the next answer of the library."""
        self.open = self.open and not isinstance(event, wire.Disconnected)
        if event is not None:
            self.happen(event)
        if self.worker:
            self.ask_the_library(let_in=True, silence=silence, late=event is None)

    @rule(
        wish=st.sampled_from(
            [{"phone": p} for p in PHONES] + [{"rejected_phone": p} for p in PHONES] + [{"expire": True}]
        ),
        done=st.booleans(),
        told=st.booleans(),
    )
    @precondition(lambda self: self.state.phase is Phase.CONNECTED)
    def think_twice(self, wish: dict[str, Any], done: bool, told: bool) -> None:
        before = {name: getattr(self.desired, name) for name in wish}
        self.wish(**wish)
        self.wish(**before)
        if self.logging_out:
            self.answer_the_logout(done, told)

    @rule(phone=st.sampled_from(PHONES), told=st.sampled_from([True, True, True, False]))
    @precondition(lambda self: self.state.phase is Phase.SHOWING and self.worker)
    def scan(self, phone: str, told: bool) -> None:
        jid = f"{phone[1:]}:1@s.whatsapp.net"
        self.forget_device()
        self.credentials = Credentials(True, True, jid, "", "android")
        self.known = self.never_let_in = True
        self.turned_away = self.let_in = False
        self.happen(wire.Paired(jid, "", "android", "") if told else WorkerExited())

    @rule(named=st.booleans())
    @precondition(lambda self: self.worker and self.credentials.valid and self.known and not self.logging_out)
    def login(self, named: bool) -> None:
        self.open = self.let_in = True
        self.never_let_in = False
        self.happen(wire.Connected(self.credentials.jid if named else "", "", "android", "", ""))

    @rule(gone=st.booleans())
    @precondition(lambda self: self.worker and self.credentials.valid and self.state.phase not in (Phase.SHOWING,))
    def refuse(self, gone: bool) -> None:
        """The phone removes the device; the library deletes its credentials."""
        self.open = False
        self.forget_device()
        self.happen(wire.LoggedOut(gone))

    @rule(done=st.booleans(), told=st.booleans())
    @precondition(lambda self: self.logging_out)
    def answer_the_logout(self, done: bool, told: bool) -> None:
        self.logging_out = False
        if done:
            self.forget_device()
        self.happen(wire.LogoutDone("" if done else "timeout") if told else WorkerExited())

    @rule()
    @precondition(lambda self: self.credentials.valid and not self.worker)
    def remove_the_device_on_the_phone(self) -> None:
        self.known = False

    @rule(status=st.sampled_from([None, 0, 404, 500]))
    def publish(self, status: int | None) -> None:
        self.happen(Published() if status is None else PublishFailed(status))

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 30.0, 70.0, 400.0, 30_000.0]), jitter=JITTER)
    def pass_time(self, seconds: float, jitter: float) -> None:
        self.jitter = jitter
        end = self.now + seconds
        for _ in range(4000):
            due = machine.next_deadline(self.state)
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.happen(Tick())
        else:
            raise AssertionError("the machine spins")
        self.now = end

    @rule(seconds=st.sampled_from([60.0, 600.0]), jitter=JITTER, shown=st.booleans())
    def bad_weather(self, seconds: float, jitter: float, shown: bool) -> None:
        """Every worker dies as it starts, or as it shows its first QR; how often that is tried is bounded."""
        self.jitter = jitter
        end, before = self.now + seconds, self.starts
        while (due := machine.next_deadline(self.state)) is not None and (self.worker or due <= end):
            self.open = False
            self.now = self.now if self.worker else max(self.now, due)
            if shown and self.state.phase is Phase.REQUESTING:
                self.fair_weather()
            self.happen(WorkerExited() if self.worker else Tick())
            assert self.starts - before <= 16 + seconds / (0.8 * LIMITS.backoff_cap)
        self.now = max(end, self.now)

    @rule(
        phone=st.sampled_from([None, *PHONES]),
        method=st.sampled_from([PairingMethod.QR_CODE, *PairingMethod]),
        attempts=st.integers(1, 3),
        rejected=st.sampled_from([None, None, PHONES[1]]),
        relink_on_logout=st.booleans(),
    )
    def ask(self, phone: str | None, method: PairingMethod, attempts: int, rejected: str | None, **other: bool) -> None:
        self.wish(phone=phone, pairing=PairingSpec(method, attempts), rejected_phone=rejected, **other)

    @rule(what=st.sampled_from(["unlink", "expire"]), asked=st.booleans())
    def ask_for_removal(self, what: str, asked: bool) -> None:
        self.wish(**{what: asked})

    @rule(forget=st.sampled_from([False, False, True]))
    def relink(self, forget: bool) -> None:
        self.requests += 1
        self.wish(relink_request_id=None if forget else f"request{self.requests}")

    def wish(self, **changes: Any) -> None:
        self.desired = replace(self.desired, **changes)
        self.grounds -= {"unlink", "expire", "phone", "rejected"}  # what is taken back was none
        self.look_for_grounds()
        self.happen(DesiredChanged(self.desired))

    @rule(jump=st.sampled_from([0.0, 0.0, 0.0, -1e6, 1e6]))
    def crash(self, jump: float) -> None:
        """The process dies; what the journal and the volume hold is all that is left. The node's clock may be set."""
        self.now += jump
        self.boot()

    @rule(commands=st.integers(0, 3))
    def crash_soon(self, commands: int) -> None:
        self.fuse = commands

    @rule(writes=st.integers(1, 3))
    def fail_soon(self, writes: int) -> None:
        self.failures_to_come = writes

    @rule()
    @precondition(lambda self: self.credentials.valid and self.stamped)
    def lose_the_journal_and_crash(self) -> None:
        """Good credentials are not wiped for a request of which only the record was lost."""
        self.saved = Journal()
        self.lost = self.desired.relink_request_id
        self.recorded = [] if self.lost is None else [self.lost]
        self.grounds.discard("relink")
        self.boot()

    @rule()
    @precondition(lambda self: self.credentials.present)
    def corrupt_and_crash(self) -> None:
        self.credentials = Credentials(present=True, valid=False)
        self.boot()

    @rule(phone=st.sampled_from([None, *PHONES]))
    def make_the_object_anew(self, phone: str | None) -> None:
        """Its volume was kept; nothing that the earlier object was asked for holds for this one."""
        self.desired = Desired(phone=phone)
        self.stamped = False
        self.grounds.clear()
        self.boot()

    @rule(reason=st.sampled_from([Reason.VOLUME_FULL, Reason.VOLUME_READ_ONLY, Reason.CREDENTIALS_CONFLICT]))
    def volume_fails(self, reason: Reason) -> None:
        self.happen(VolumeFailed(reason))

    # What holds at any time.

    @invariant()
    def connected_means_paired_and_an_open_socket(self) -> None:
        if self.state.phase is Phase.CONNECTED:
            assert self.worker
            assert self.open
            assert self.credentials.valid
            assert self.state.credentials.valid

    @invariant()
    def the_machine_knows_its_worker(self) -> None:
        assert self.worker is (self.state.phase in WITH_WORKER)

    @invariant()
    def the_journal_is_saved(self) -> None:
        assert not self.state.opened or self.state.journal == self.saved

    @invariant()
    def a_relink_is_done_once(self) -> None:
        assert len(self.recorded) == len(set(self.recorded))

    @invariant()
    def there_is_a_way_out(self) -> None:
        """Every state ends by itself, or the operator turns it into Stalled and says what can be done."""
        state = self.state
        assert state.phase not in (Phase.INSPECTING, Phase.INSPECTED, Phase.WIPING)
        if state.phase in (Phase.CONNECTED, Phase.UNLINKED):
            assert state.phase is Phase.CONNECTED or self.desired.unlink
            return
        waits_for_a_person = machine.next_deadline(state) is None
        assert not waits_for_a_person or state.phase is Phase.HELD
        built = report.build(state, pod_uid=builders.POD_UID, boot_id="b")
        assert None not in (built["machine"], built["reason"], built["message"])
        assert len(built["message"].encode()) <= 512
        if (waits_for_a_person or state.phase is Phase.FAULTY) and not self.desired.expire:
            reason = built["reason"]
            stalled = stalls(built["machine"], reason, built["message"], self.desired.relink_on_logout)
            assert stalled, f"{state.phase} with {reason} is no state that the operator stalls in"
            assert EXPLANATIONS[Reason(reason)].remedy or built["message"]

    def teardown(self) -> None:
        """After whatever has happened, good weather leads to an end, and what was asked for is done."""
        if not self.sound:
            return  # it has failed already
        self.failures_to_come, self.fuse = 0, None
        end = self.now + LONGEST_WAIT
        for _ in range(300):
            self.fair_weather()
            if self.at_rest():
                break
            due = machine.next_deadline(self.state)
            assert due is not None
            assert due <= end, f"{self.state.phase} lasts too long"
            self.now = max(self.now, due)
            self.happen(Tick())
        else:
            raise AssertionError(f"no end after {self.state.phase}")
        desired, phase = self.desired, self.state.phase
        if not self.stamped:
            assert self.is_of_another_phone()
            return
        assert (phase is Phase.UNLINKED) is desired.unlink
        if not desired.unlink:
            assert desired.relink_request_id in (None, self.saved.relink_request_id)
        if phase is Phase.CONNECTED:
            assert not self.is_of_another_phone()
            assert not same_account(phone_of(self.credentials.jid), desired.rejected_phone)

    def fair_weather(self) -> None:
        """What a worker meets when nothing fails."""
        for _ in range(20):
            if not self.worker:
                return
            if self.logging_out:
                self.answer_the_logout(done=True, told=True)
            elif self.credentials.valid and not self.known:
                self.refuse(gone=False)
            elif self.credentials.valid and self.state.phase in WITH_LOGIN - {Phase.CONNECTED}:
                self.login(named=True)
            elif self.state.phase is Phase.REQUESTING:
                by_code = self.desired.pairing.method is PairingMethod.PAIRING_CODE
                self.happen(wire.PairingCode("ABCD-EFGH") if by_code else wire.QRCode("qr", "png"), Published())
            else:
                return

    def at_rest(self) -> bool:
        phase, foreign = self.state.phase, not self.stamped and self.is_of_another_phone()
        held = phase is Phase.HELD and self.state.deadline is None
        return phase in (Phase.CONNECTED, Phase.SHOWING, Phase.UNLINKED) or held or (phase is Phase.FAULTY and foreign)


@functools.cache
def stalls(machine: str, reason: str, message: str, relink_on_logout: bool) -> bool:
    """Whether the operator says so, and says something."""
    spec = {"recovery": {"onLoggedOut": "Relink" if relink_on_logout else "Hold"}}
    document = builders.report(machine, reason, message=message)
    observed = builders.observed(
        builders.session(spec=spec, status={"session": document}), pod=builders.pod(uid=builders.POD_UID)
    )
    claimed = conditions.Draft("True", Reason.CLAIMED)
    stalled = conditions.compute(observed, claimed)[ConditionType.STALLED]
    return stalled is not None and stalled.status == "True" and stalled.text != ""


SessionMachine.TestCase.settings = settings(stateful_step_count=60)
TestSessionMachine = SessionMachine.TestCase


FAILURES: Final = st.sampled_from(
    [
        wire.ConnectEnded("network", 0, ""),
        WorkerExited(),
        wire.StreamReplaced(),
        wire.ClientOutdated(),
        wire.TemporaryBan(1, 3600),
        wire.Disconnected(),
    ]
)


@given(failures=st.lists(FAILURES, min_size=2, max_size=12), jitters=st.tuples(JITTER, JITTER))
def test_no_two_machines_wait_in_step(failures: list[Any], jitters: tuple[float, float]) -> None:
    """All lose their connection at the same moment; only the very first new try may be at once for all."""
    waits = []
    for jitter in jitters:
        jid = f"{PHONES[0][1:]}:1@s.whatsapp.net"
        credentials = Credentials(present=True, valid=True, jid=jid)
        state, _ = machine.begin()
        now, found = 1_000_000.0, []
        pending: deque[Event] = deque([DesiredChanged(Desired()), Opened(Journal(), credentials)])
        for failure in [None, *failures]:
            if failure is not None:
                pending.extend([wire.Connected(jid, "", "", "", ""), failure])
            while pending:
                state, commands = machine.step(state, pending.popleft(), Moment(now, jitter, "t"))
                pending.extend(Inspected(credentials) for command in commands if isinstance(command, Inspect))
            while failure is not None and state.phase in (Phase.IDLE, Phase.HELD, Phase.RECONNECTING):
                due = machine.next_deadline(state)
                assert due is not None
                found.append(due - now)
                now = max(now, due)
                pending.append(Tick())
                while pending:
                    state, commands = machine.step(state, pending.popleft(), Moment(now, jitter, "t"))
                    pending.extend(Inspected(credentials) for command in commands if isinstance(command, Inspect))
        waits.append(found)
    one, other = ([wait for wait in found if wait > 0.0] for found in waits)
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        apart = abs(first - second)
        assert apart >= 0.09 * abs(jitters[0] - jitters[1]) * min(first, second, 60.0) - 1e-6
