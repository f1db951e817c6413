"""What no sequence of events, crashes and failed writes may do."""

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from whatsapp_operator.api.reasons import PairingMethod, Reason
from whatsapp_operator.session import machine as m
from whatsapp_operator.session import report, wire
from whatsapp_operator.session.machine import WITH_WORKER, Phase
from whatsapp_operator.session.model import (
    Cause,
    Credentials,
    Desired,
    Journal,
    PairingSpec,
    dump_journal,
    load_journal,
)

PHONES = ("+15551230001", "+15551230002")

WORKER_EVENTS = st.one_of(
    st.just(wire.WorkerStarted("0")),
    st.just(wire.QRCode("qr", "png")),
    st.just(wire.PairingCode("ABCD-EFGH")),
    st.builds(wire.PairingCodeRefused, st.sampled_from(["rate_limited", "invalid_phone", "other"]), st.just("")),
    st.builds(
        wire.PairingEnded,
        st.sampled_from(["success", "timeout", "error", "err-client-outdated", "passkey-request", "surprise"]),
    ),
    st.just(wire.Disconnected()),
    st.just(wire.KeepAliveTimeout(1)),
    st.just(wire.KeepAliveRestored()),
    st.builds(wire.TemporaryBan, st.just(1), st.integers(0, 10_000)),
    st.just(wire.ConnectFailure("GENERIC")),
    st.just(wire.StreamError("516")),
    st.just(wire.StreamReplaced()),
    st.just(wire.ClientOutdated()),
    st.builds(
        wire.ConnectEnded,
        st.sampled_from(["proxy", "tls", "dns", "network", "storage", "other"]),
        st.sampled_from([0, 403]),
        st.just(""),
    ),
    st.builds(wire.LogoutDone, st.sampled_from(["", "timeout"])),
    st.builds(wire.Pong, st.just(1), st.booleans(), st.booleans(), st.sampled_from([None, 0.1, 80.0]), st.just(None)),
    st.just(m.WorkerExited()),
)
HARMLESS = frozenset({Cause.LOGGED_OUT, Cause.MAIN_DEVICE_GONE, Cause.EXPIRED})


class SessionMachine(RuleBasedStateMachine):
    """The machine with a volume, an account and a network, all of which may fail at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.tokens = 0
        self.saved = Journal()
        self.credentials = Credentials()
        self.desired = Desired()
        self.worker = False
        self.login_refused = False
        self.requests = 0
        self.done: list[str] = []
        self.boot()

    def boot(self) -> None:
        self.worker = False
        self.state, commands = m.begin()
        self.execute(list(commands))
        self.feed(m.DesiredChanged(self.desired))

    def feed(self, event: m.Event, *, full: bool = False, jitter: float = 0.5) -> None:
        self.tokens += 1
        before = self.state
        state, commands = m.step(before, event, m.Moment(self.now, jitter, f"token{self.tokens}"))
        saves = [command for command in commands if isinstance(command, m.Save)]
        assert saves == list(commands[: len(saves)])
        if saves and full:
            self.feed(m.VolumeFailed(Reason.VOLUME_FULL))
            return
        self.state = state
        if saves:
            (save,) = saves
            assert load_journal(dump_journal(save.journal)) == save.journal
            if save.journal.relink_request_id != self.saved.relink_request_id:
                self.done.append(str(save.journal.relink_request_id))
            assert save.journal.seq == save.journal.succeeded + save.journal.failed
            assert save.journal.seq >= self.saved.seq
            self.saved = save.journal
        self.execute(list(commands))

    def execute(self, commands: list[m.Command]) -> None:
        for command in commands:
            match command:
                case m.OpenVolume():
                    self.feed(m.Opened(self.saved, self.credentials))
                case m.Inspect():
                    self.feed(m.Inspected(self.credentials))
                case m.MoveAside():
                    assert not self.credentials.valid
                    self.credentials = Credentials()
                    self.feed(m.Inspected(self.credentials))
                case m.Wipe():
                    removal = self.saved.removal
                    assert removal is not None, "nothing is wiped that the journal does not know"
                    assert self.worker is False, "nothing is wiped under a worker"
                    if removal.cause in HARMLESS:
                        assert self.login_refused
                    self.credentials = Credentials()
                    self.feed(m.Wiped())
                case m.StartWorker():
                    assert not self.worker, "one worker at a time"
                    self.worker = True
                    self.login_refused = False
                case m.KillWorker():
                    self.worker = False
                case _:
                    pass

    @rule(event=WORKER_EVENTS, jitter=st.floats(0, 1, exclude_max=True), full=st.booleans())
    @precondition(lambda self: self.worker)
    def worker_event(self, event: Any, jitter: float, full: bool) -> None:
        self.feed(event, full=full and self.tokens % 7 == 0, jitter=jitter)

    @rule(phone=st.sampled_from(PHONES))
    @precondition(lambda self: self.state.phase is Phase.SHOWING)
    def scan(self, phone: str) -> None:
        jid = f"{phone[1:]}:1@s.whatsapp.net"
        self.credentials = Credentials(True, True, jid, "", "android")
        self.feed(wire.Paired(jid, "", "android", ""))

    @rule()
    @precondition(lambda self: self.worker and self.credentials.valid)
    def login(self) -> None:
        self.feed(wire.Connected(self.credentials.jid, "", "android", "", ""))

    @rule(gone=st.booleans())
    @precondition(lambda self: self.worker and self.credentials.valid)
    def refuse(self, gone: bool) -> None:
        self.credentials = Credentials()
        self.login_refused = True
        self.feed(wire.LoggedOut(gone))

    @rule()
    def show(self) -> None:
        self.feed(m.Published())

    @rule(status=st.sampled_from([0, 404, 500]))
    def fail_to_show(self, status: int) -> None:
        self.feed(m.PublishFailed(status))

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 30.0, 70.0, 400.0, 30_000.0]))
    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(2000):
            due = m.next_deadline(self.state)
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.feed(m.Tick())
        else:
            raise AssertionError("the machine spins")
        self.now = end

    @rule(
        phone=st.sampled_from([None, *PHONES]),
        method=st.sampled_from(list(PairingMethod)),
        attempts=st.integers(1, 3),
        rejected=st.sampled_from([None, PHONES[1]]),
        relink_on_logout=st.booleans(),
    )
    def ask(self, phone: str | None, method: PairingMethod, attempts: int, rejected: str | None, **other: bool) -> None:
        self.desired = replace(
            self.desired,
            phone=phone,
            pairing=PairingSpec(method, attempts),
            rejected_phone=rejected,
            relink_on_logout=other["relink_on_logout"],
        )
        self.feed(m.DesiredChanged(self.desired))

    @rule()
    def relink(self) -> None:
        self.requests += 1
        self.desired = replace(self.desired, relink_request_id=f"request{self.requests}")
        self.feed(m.DesiredChanged(self.desired))

    @rule(unlink=st.booleans())
    def unlink(self, unlink: bool) -> None:
        self.desired = replace(self.desired, unlink=unlink)
        self.feed(m.DesiredChanged(self.desired))

    @rule()
    def crash(self) -> None:
        """The process dies; what the journal and the volume hold is all that is left."""
        self.boot()

    @rule()
    @precondition(lambda self: self.credentials.valid)
    def lose_the_journal_and_crash(self) -> None:
        self.saved = Journal()
        self.done.clear()
        self.boot()
        assert self.saved.removal is None or self.saved.removal.cause is not Cause.RELINK

    @rule(garbage=st.booleans())
    def corrupt_and_crash(self, garbage: bool) -> None:
        if garbage and self.credentials.present:
            self.credentials = Credentials(present=True, valid=False)
        self.boot()

    @rule(reason=st.sampled_from([Reason.VOLUME_FULL, Reason.VOLUME_READ_ONLY, Reason.CREDENTIALS_CONFLICT]))
    def volume_fails(self, reason: Reason) -> None:
        self.feed(m.VolumeFailed(reason))

    @invariant()
    def connected_means_paired_and_a_worker(self) -> None:
        if self.state.phase is Phase.CONNECTED:
            assert self.worker
            assert self.state.credentials.present
            assert self.state.credentials.valid
            assert self.credentials.valid

    @invariant()
    def the_machine_knows_its_worker(self) -> None:
        assert self.worker is (self.state.phase in WITH_WORKER)

    @invariant()
    def the_journal_is_saved(self) -> None:
        assert not self.state.opened or self.state.journal == self.saved

    @invariant()
    def there_is_a_way_out(self) -> None:
        """Every phase ends by itself, or is one in which a person or the operator is asked for something."""
        state = self.state
        assert state.phase not in (Phase.INSPECTING, Phase.INSPECTED, Phase.WIPING)
        if state.phase is Phase.UNLINKED:
            assert self.desired.unlink
            return
        if state.phase is Phase.CONNECTED:
            return
        if state.phase is Phase.HELD and state.deadline is None:
            assert state.journal.hold is not None
            assert state.journal.hold.until is None
            return
        assert m.next_deadline(state) is not None, state.phase

    @invariant()
    def a_relink_is_done_once(self) -> None:
        assert len(self.done) == len(set(self.done))

    @invariant()
    def the_report_can_be_built(self) -> None:
        built = report.build(self.state, pod_uid="u", boot_id="b")
        assert None not in (built["machine"], built["reason"], built["message"])


SessionMachine.TestCase.settings = settings(stateful_step_count=60)
TestSessionMachine = SessionMachine.TestCase
