"""The machine as tables: what is done and told for each event in each situation."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from whatsapp_operator.api.reasons import MachineState, PairingMethod, Reason, RelinkOutcome
from whatsapp_operator.session import machine, wire
from whatsapp_operator.session.commands import (
    Command,
    Conceal,
    Inspect,
    KillWorker,
    LogOut,
    MoveAside,
    OpenVolume,
    Publish,
    Save,
    Stamp,
    StartWorker,
    Wipe,
)
from whatsapp_operator.session.events import (
    Concealed,
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
from whatsapp_operator.session.limits import LIMITS
from whatsapp_operator.session.model import Cause, Credentials, Desired, Hold, Journal, PairingSpec, Removal
from whatsapp_operator.session.state import WITH_WORKER, Phase, machine_reason, machine_state

PHONE = "+15551230001"
JID = "15551230001:3@s.whatsapp.net"
OTHER_JID = "15551230002:1@s.whatsapp.net"
LINKED = Credentials(present=True, valid=True, jid=JID, lid="9:3@lid", platform="android")
CONNECTED = wire.Connected(JID, "9:3@lid", "android", "", "")
PAIRED = wire.Paired(JID, "", "android", "")
START = 1_000_000.0


class Session:
    """A machine with its clock; answers the volume's commands as a healthy volume does."""

    def __init__(
        self, desired: Desired | None = None, credentials: Credentials | None = None, journal: Journal | None = None
    ) -> None:
        self.now = START
        self.credentials = credentials or Credentials()
        self.saved = journal or Journal()
        self.commands: list[Command] = []
        self.tokens = 0
        self.state, commands = machine.begin()
        assert commands == (OpenVolume(),)
        self.feed(DesiredChanged(desired or Desired()))
        self.done_at_start = self.feed(Opened(self.saved, self.credentials))

    def feed(self, *events: Event) -> list[Command]:
        """The commands of the events, and of the answers that follow."""
        self.commands = []
        pending = list(events)
        while pending:
            self.tokens += 1
            moment = Moment(self.now, 0.0, f"token{self.tokens}")
            self.state, commands = machine.step(self.state, pending.pop(0), moment)
            for command in commands:
                match command:
                    case Save(journal):
                        assert command is commands[0]
                        self.saved = journal
                    case Inspect():
                        pending.insert(0, Inspected(self.credentials))
                    case MoveAside():
                        self.credentials = Credentials()
                        pending.insert(0, Inspected(self.credentials))
                    case Wipe():
                        self.credentials = Credentials()
                        pending.insert(0, Wiped())
                    case _:
                        pass
                self.commands.append(command)
            assert not self.state.opened or self.saved == self.state.journal
        return self.commands

    def after(self, seconds: float) -> list[Command]:
        """Let time pass, with every deadline in it."""
        end = self.now + seconds
        commands: list[Command] = []
        while (due := machine.next_deadline(self.state)) is not None and due <= end:
            self.now = max(due, self.now)
            commands += self.feed(Tick())
        self.now = end
        return commands

    def show(self) -> None:
        self.feed(wire.WorkerStarted("0"), wire.QRCode("qr", "png"), Published())

    def scan(self, jid: str = JID) -> None:
        self.credentials = replace(LINKED, jid=jid)
        self.feed(replace(PAIRED, jid=jid))

    def pair(self) -> None:
        self.show()
        self.scan()
        self.feed(CONNECTED)

    def done(self, kind: type[Command]) -> list[Command]:
        return [command for command in self.commands if isinstance(command, kind)]

    def at(self, phase: Phase) -> bool:
        return self.state.phase is phase

    @property
    def told(self) -> tuple[MachineState, Reason]:
        return machine_state(self.state), machine_reason(self.state)


def paired(desired: Desired | None = None, **journal: object) -> Session:
    """A session that has logged in with credentials from before."""
    known = Journal(registered_at=START - 9e5, last_used_at=START - 60)
    session = Session(desired, LINKED, replace(known, **journal))  # type: ignore[arg-type]
    session.feed(CONNECTED)
    return session


def showing(desired: Desired | None = None) -> Session:
    session = Session(desired)
    session.show()
    return session


def test_waits_for_volume_and_desired_state() -> None:
    state, _ = machine.begin()
    moment = Moment(START, 0.0, "t")
    one, commands = machine.step(state, DesiredChanged(Desired()), moment)
    assert (one.phase, commands) == (Phase.BOOTING, ())
    other, commands = machine.step(state, Opened(Journal(), Credentials()), moment)
    assert (other.phase, commands) == (Phase.BOOTING, ())
    assert machine.step(one, Opened(Journal(), Credentials()), moment)[1] == (Inspect(),)
    assert machine.step(other, DesiredChanged(Desired()), moment)[1] == (Inspect(),)


def test_happy_path_by_qr() -> None:
    session = Session()
    assert session.done(StartWorker) == [StartWorker("Chrome (Linux)", None)]
    assert session.told == (MachineState.CONNECTING, Reason.STARTING)
    session.now += 0.4
    session.feed(wire.WorkerStarted("0"), wire.QRCode("qr1", "png1"))
    assert session.done(Publish) == [Publish(session.now + 60.0, qr="qr1", png="png1")]
    assert session.told == (MachineState.CONNECTING, Reason.STARTING), "not shown before the Secret has it"
    session.feed(Published())
    assert session.told == (MachineState.SHOWING_QR, Reason.QR_AVAILABLE)
    session.now += 60
    session.feed(wire.QRCode("qr2", "png2"))
    assert session.done(Publish) == [Publish(session.now + 20.0, qr="qr2", png="png2")]
    session.now += 8
    session.scan()
    assert session.done(Conceal) == [Conceal()]
    assert session.told == (MachineState.AUTHENTICATING, Reason.CONNECTING)
    session.feed(wire.PairingEnded("success"), wire.Disconnected())
    session.now += 1.5
    session.feed(CONNECTED)
    assert session.told == (MachineState.CONNECTED, Reason.CONNECTED)
    assert session.state.journal.seq == 0, "not before it has proven stable"
    session.after(LIMITS.stable)
    journal = session.state.journal
    assert (journal.seq, journal.succeeded, journal.failed, journal.attempts_used) == (1, 1, 0, 0)
    (entry,) = journal.history
    assert entry.succeeded
    assert entry.reason is Reason.PAIRED
    assert (entry.seconds_to_qr, entry.seconds_to_scan, entry.seconds_to_connected) == pytest.approx((0.4, 68.0, 1.5))


def test_happy_path_by_code() -> None:
    desired = Desired(phone=PHONE, pairing=PairingSpec(PairingMethod.PAIRING_CODE))
    session = Session(desired)
    assert session.done(StartWorker) == [StartWorker("Chrome (Linux)", "15551230001")]
    session.feed(wire.QRCode("", ""))
    assert session.commands == []
    session.feed(wire.PairingCode("ABCD-EFGH"))
    assert session.done(Publish) == [Publish(session.now + 160.0, code="ABCD-EFGH")]
    session.feed(Published())
    assert session.told == (MachineState.SHOWING_CODE, Reason.CODE_AVAILABLE)
    session.feed(wire.QRCode("", ""))
    assert session.commands == []
    session.scan()
    session.feed(CONNECTED)
    assert session.told == (MachineState.CONNECTED, Reason.CONNECTED)


def test_logs_in_with_the_credentials_of_the_volume() -> None:
    session = Session(None, LINKED)
    assert session.done(StartWorker) == [StartWorker("Chrome (Linux)", None)]
    assert session.told == (MachineState.CONNECTING, Reason.CONNECTING)
    session.feed(CONNECTED)
    assert session.told == (MachineState.CONNECTED, Reason.CONNECTED)
    assert session.state.journal.history == ()


def test_a_login_without_a_device_is_no_connection() -> None:
    session = Session(None, LINKED)
    session.state = replace(session.state, credentials=Credentials())
    session.feed(wire.Connected("", "", "", "", ""))
    assert session.state.phase is not Phase.CONNECTED


def test_attempts_are_exhausted_and_a_relink_begins_anew() -> None:
    session = Session(Desired(pairing=PairingSpec(attempts=2)))
    for number in (1, 2):
        session.show()
        assert session.state.journal.attempt is not None
        assert session.state.journal.attempt.number == number
        for _ in range(5):
            session.now += LIMITS.first_qr if number == 1 else LIMITS.next_qr
            session.feed(wire.QRCode("qr", "png"))
        session.now += LIMITS.next_qr
        session.feed(wire.PairingEnded("timeout"))
        session.after(0.0)
    assert session.told == (MachineState.HELD, Reason.ATTEMPTS_EXHAUSTED)
    assert [entry.reason for entry in session.state.journal.history] == [Reason.EXPIRED, Reason.EXPIRED]
    assert session.after(100_000) == []
    session.feed(DesiredChanged(Desired(pairing=PairingSpec(attempts=2), relink_request_id="r")))
    session.after(0.0)
    assert session.at(Phase.REQUESTING)
    assert session.state.journal.attempts_used == 0


def test_more_attempts_end_the_exhaustion() -> None:
    session = showing(Desired(pairing=PairingSpec(attempts=1)))
    session.after(LIMITS.window + LIMITS.window_grace)
    assert session.told == (MachineState.HELD, Reason.ATTEMPTS_EXHAUSTED)
    session.feed(DesiredChanged(Desired(pairing=PairingSpec(attempts=2))))
    assert session.at(Phase.REQUESTING)


def test_exhaustion_survives_a_restart() -> None:
    session = showing(Desired(pairing=PairingSpec(attempts=1)))
    session.after(LIMITS.window + LIMITS.window_grace)
    again = Session(Desired(pairing=PairingSpec(attempts=1)), journal=session.saved)
    assert again.told == (MachineState.HELD, Reason.ATTEMPTS_EXHAUSTED)


def test_a_window_cut_short_by_the_network_does_not_count() -> None:
    session = showing()
    session.now += 10
    session.feed(wire.PairingEnded("timeout"))
    assert session.state.journal.attempts_used == 0
    assert session.done(Conceal) == [Conceal()]
    assert session.told == (MachineState.CONNECTING, Reason.CONNECT_FAILURE)
    session.after(1.0)
    assert session.at(Phase.REQUESTING)


@pytest.mark.parametrize("status", ["error", "err-scanned-without-multidevice", "err-unexpected-state"])
def test_a_refused_scan_is_a_failed_attempt(status: str) -> None:
    session = showing()
    session.feed(wire.PairingEnded(status))
    assert session.state.journal.history[0].reason is Reason.NOT_PAIRED
    session.after(1.0)
    assert session.at(Phase.REQUESTING)


def test_a_passkey_ends_the_attempts() -> None:
    session = showing()
    session.feed(wire.PairingEnded("passkey-request"))
    session.after(100_000)
    assert session.told == (MachineState.HELD, Reason.PASSKEY_REQUIRED)


def test_pairing_codes_are_limited() -> None:
    desired = Desired(phone=PHONE, pairing=PairingSpec(PairingMethod.PAIRING_CODE))
    session = Session(desired)
    for seconds in (300.0, 600.0, 1200.0):
        session.feed(wire.QRCode("", ""), wire.PairingCodeRefused("rate_limited", ""))
        session.after(0.0)
        assert session.told == (MachineState.HELD, Reason.RATE_LIMITED)
        assert machine.next_deadline(session.state) == session.now + seconds
        session.after(seconds)
        assert session.at(Phase.REQUESTING)


def test_no_code_within_its_time_is_tried_again() -> None:
    session = Session(Desired(phone=PHONE, pairing=PairingSpec(PairingMethod.PAIRING_CODE)))
    session.feed(wire.QRCode("", ""))
    for wait in (1.0, 2.0, 4.0):
        assert KillWorker() in session.after(LIMITS.code)
        assert session.at(Phase.IDLE)
        session.after(wait)
        assert session.at(Phase.REQUESTING)
        session.feed(wire.QRCode("", ""))


def test_a_code_without_a_phone_is_an_invalid_spec() -> None:
    session = Session(Desired(pairing=PairingSpec(PairingMethod.PAIRING_CODE)))
    session.after(0.0)
    assert session.told == (MachineState.HELD, Reason.INVALID_SPEC)
    session.feed(DesiredChanged(Desired(phone=PHONE, pairing=PairingSpec(PairingMethod.PAIRING_CODE))))
    assert session.at(Phase.REQUESTING)


def test_relink_of_a_connected_session_logs_out_wipes_and_pairs_anew() -> None:
    session = paired()
    session.feed(DesiredChanged(Desired(relink_request_id="r1")))
    assert session.commands == [Save(session.state.journal), LogOut()]
    assert session.state.journal.removal == Removal(Cause.RELINK, session.now + LIMITS.removal, request_id="r1")
    session.feed(wire.LogoutDone(""))
    assert [type(command) for command in session.commands][:3] == [Save, KillWorker, Wipe]
    assert session.state.journal.relink_request_id == "r1"
    assert session.state.journal.relink_outcome is RelinkOutcome.COMPLETED
    session.after(0.0)
    assert session.at(Phase.REQUESTING)
    assert session.feed(DesiredChanged(Desired(relink_request_id="r1"))) == []


@pytest.mark.parametrize("seconds", [0.0, 59.9])
def test_relink_is_absorbed_by_a_fresh_qr(seconds: float) -> None:
    session = showing()
    session.now += seconds
    session.feed(DesiredChanged(Desired(relink_request_id="r1")))
    assert session.commands == [Save(session.state.journal)]
    assert session.state.journal.relink_outcome is RelinkOutcome.ABSORBED
    assert session.at(Phase.SHOWING)


@pytest.mark.parametrize(
    ("seconds", "desired"),
    [
        (60.0, Desired(relink_request_id="r1")),
        (1.0, Desired(relink_request_id="r1", pairing=PairingSpec(display_name="Edge (Windows)"))),
    ],
)
def test_relink_is_not_absorbed_by_an_older_or_another_window(seconds: float, desired: Desired) -> None:
    session = showing()
    session.now += seconds
    session.feed(DesiredChanged(desired))
    session.after(0.0)
    assert session.state.journal.relink_outcome is RelinkOutcome.COMPLETED
    assert session.at(Phase.REQUESTING)


def test_relink_without_a_server_wipes_in_time_and_has_failed() -> None:
    session = Session(Desired(relink_request_id="r1"), LINKED, Journal(registered_at=START - 60))
    assert session.done(StartWorker), "it connects to log out"
    session.feed(wire.ConnectEnded("network", 0, ""))
    session.after(LIMITS.removal)
    assert session.state.journal.relink_request_id == "r1"
    assert session.state.journal.relink_outcome is RelinkOutcome.FAILED
    assert not session.state.credentials.present
    assert session.at(Phase.REQUESTING), "a new pairing is offered all the same"


def test_relink_whose_log_out_is_refused_has_failed() -> None:
    session = paired()
    session.feed(DesiredChanged(Desired(relink_request_id="r1")), wire.LogoutDone("timeout"))
    assert session.state.journal.relink_outcome is RelinkOutcome.FAILED


def test_a_failed_relink_is_known_as_such_after_a_crash_in_its_wipe() -> None:
    session = paired()
    session.feed(DesiredChanged(Desired(relink_request_id="r1")))
    moment = Moment(session.now + LIMITS.removal, 0.0, "t")
    _, (save, *_) = machine.step(session.state, Tick(), moment)
    assert isinstance(save, Save)
    again = Session(Desired(relink_request_id="r1"), Credentials(), save.journal)
    assert again.state.journal.relink_outcome is RelinkOutcome.FAILED


def test_relink_of_a_device_that_the_server_knows_no_longer_is_complete() -> None:
    session = Session(Desired(relink_request_id="r1"), LINKED, Journal(registered_at=START - 60))
    session.feed(wire.LoggedOut(main_device_gone=False))
    assert session.state.journal.relink_outcome is RelinkOutcome.COMPLETED


@pytest.mark.parametrize("desired_first", [False, True])
def test_good_credentials_outlive_the_loss_of_the_journal(desired_first: bool) -> None:
    state, _ = machine.begin()
    events: list[Event] = [Opened(Journal(), LINKED), DesiredChanged(Desired(relink_request_id="r1"))]
    for event in reversed(events) if desired_first else events:
        state, commands = machine.step(state, event, Moment(START, 0.0, "t"))
    assert commands == (Save(state.journal), Inspect())
    assert (state.journal.relink_request_id, state.journal.removal) == ("r1", None)


@pytest.mark.parametrize("adopted", [None, "r1"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_relink_asked_for_after_the_loss_of_the_journal_is_done(adopted: str | None, restart: bool) -> None:
    session = Session(Desired(relink_request_id=adopted), LINKED)
    assert session.at(Phase.OPENING)
    later = Desired(relink_request_id="r2")
    if restart:
        session = Session(later, LINKED, session.saved)
    else:
        session.feed(DesiredChanged(later))
    session.feed(CONNECTED, wire.LogoutDone(""))
    assert session.state.journal.relink_request_id == "r2"
    assert session.state.journal.relink_outcome is RelinkOutcome.COMPLETED


@pytest.mark.parametrize("credentials", [Credentials(), Credentials(present=True, valid=False)])
def test_a_new_volume_without_good_credentials_does_the_relink(credentials: Credentials) -> None:
    session = Session(Desired(relink_request_id="r1"), credentials)
    session.after(0.0)
    assert session.state.journal.relink_outcome is RelinkOutcome.COMPLETED
    assert session.at(Phase.REQUESTING)


@pytest.mark.parametrize("removed", [False, True])
def test_relink_goes_on_after_a_crash(removed: bool) -> None:
    session = paired()
    session.feed(DesiredChanged(Desired(relink_request_id="r1")))
    again = Session(Desired(relink_request_id="r1"), Credentials() if removed else LINKED, session.saved)
    if not removed:
        assert again.state.phase is Phase.OPENING
        again.feed(CONNECTED)
        assert again.commands[-1] == LogOut()
        again.feed(wire.LogoutDone(""))
    again.after(0.0)
    assert again.state.journal.relink_request_id == "r1"
    assert again.state.phase is Phase.REQUESTING
    once_more = Session(Desired(relink_request_id="r1"), Credentials(), again.saved)
    assert once_more.done(Wipe) == []


def test_unlink_logs_out_wipes_and_stays_idle() -> None:
    session = paired()
    session.feed(DesiredChanged(Desired(unlink=True)))
    assert session.commands[-1] == LogOut()
    session.feed(wire.LogoutDone(""))
    assert session.told == (MachineState.UNLINKED, Reason.UNLINKED)
    assert session.after(1e6) == []
    assert session.feed(DesiredChanged(Desired(unlink=True, relink_request_id="x"))) == []


def test_an_unlink_that_is_no_longer_asked_for_ends_in_a_new_pairing() -> None:
    session = paired(Desired(unlink=True))
    session.feed(wire.LogoutDone(""))
    assert session.at(Phase.UNLINKED)
    session.feed(DesiredChanged(Desired()))
    assert session.at(Phase.REQUESTING)
    session.pair()
    assert session.at(Phase.CONNECTED)


def test_an_unlink_left_on_a_kept_volume_is_dropped() -> None:
    session = Session(Desired(), LINKED, Journal(registered_at=START - 60, removal=Removal(Cause.UNLINK, None)))
    assert session.state.journal.removal is None
    session.feed(CONNECTED)
    assert session.done(LogOut) == []
    assert session.told == (MachineState.CONNECTED, Reason.CONNECTED)


def test_an_unlink_that_the_server_has_done_is_finished_and_paired_anew() -> None:
    left = Removal(Cause.UNLINK, None, logged_out=True)
    session = Session(Desired(), LINKED, Journal(attempts_used=3, removal=left))
    assert session.credentials == Credentials()
    assert session.at(Phase.REQUESTING)


def test_an_unlink_that_waits_for_the_server_is_dropped_when_no_longer_asked_for() -> None:
    session = paired(Desired(unlink=True))
    session.feed(wire.LogoutDone("timeout"))
    assert session.at(Phase.IDLE)
    session.feed(DesiredChanged(Desired()))
    assert session.at(Phase.OPENING)
    assert session.state.detail == ""
    session.feed(CONNECTED)
    assert session.told == (MachineState.CONNECTED, Reason.CONNECTED)


@pytest.mark.parametrize(("error", "phase"), [("", Phase.REQUESTING), ("timeout", Phase.OPENING)])
def test_a_log_out_on_its_way_is_awaited(error: str, phase: Phase) -> None:
    session = paired(Desired(unlink=True))
    assert session.feed(DesiredChanged(Desired())) == []
    session.feed(wire.LogoutDone(error))
    session.after(2.0)
    assert session.at(phase)


def test_a_relink_that_an_unlink_took_over_is_done_after_all() -> None:
    session = Session(Desired(relink_request_id="r1"), LINKED, Journal(registered_at=START - 60))
    session.feed(DesiredChanged(Desired(relink_request_id="r1", unlink=True)))
    session.feed(DesiredChanged(Desired(relink_request_id="r1")))
    session.feed(CONNECTED, wire.LogoutDone(""))
    assert session.state.journal.relink_request_id == "r1"
    session.after(0.0)
    assert session.at(Phase.REQUESTING)


def test_unlink_never_wipes_before_the_device_is_logged_out() -> None:
    session = Session(Desired(unlink=True), LINKED)
    for _ in range(20):
        assert session.done(Wipe) == []
        session.feed(wire.ConnectEnded("network", 0, ""))
        session.after(60)
    session.feed(CONNECTED, wire.LogoutDone("timeout"))
    assert session.done(Wipe) == []
    session.after(60)
    session.feed(CONNECTED, wire.LogoutDone(""))
    assert session.told == (MachineState.UNLINKED, Reason.UNLINKED)


def test_unlink_in_the_middle_of_a_qr() -> None:
    session = showing()
    session.feed(DesiredChanged(Desired(unlink=True)))
    assert Conceal() in session.commands
    assert session.told == (MachineState.UNLINKED, Reason.UNLINKED)


def test_unlink_takes_over_a_relink() -> None:
    session = paired()
    session.feed(DesiredChanged(Desired(relink_request_id="r1")))
    session.feed(DesiredChanged(Desired(relink_request_id="r1", unlink=True)))
    session.feed(wire.LogoutDone(""))
    assert session.told == (MachineState.UNLINKED, Reason.UNLINKED)


def test_another_phone_is_logged_out_and_the_attempt_failed() -> None:
    session = showing(Desired(phone=PHONE))
    session.scan(OTHER_JID)
    assert session.state.journal.removal is not None
    session.feed(replace(CONNECTED, jid=OTHER_JID))
    assert session.commands[-1] == LogOut()
    assert session.told == (MachineState.CONNECTING, Reason.PHONE_MISMATCH)
    session.feed(wire.LogoutDone(""))
    session.after(0.0)
    assert session.state.journal.history[0].reason is Reason.PHONE_MISMATCH
    assert session.state.journal.attempts_used == 1
    assert session.at(Phase.REQUESTING)


def test_a_change_of_the_phone_pairs_anew_without_a_failed_attempt() -> None:
    session = paired(Desired(phone=PHONE))
    session.feed(DesiredChanged(Desired(phone="+15551230009")))
    assert session.commands[-1] == LogOut()
    session.feed(wire.LogoutDone(""))
    session.after(0.0)
    assert session.state.journal.failed == 0
    assert session.at(Phase.REQUESTING)


@pytest.mark.parametrize(
    ("declared", "linked"),
    [("+5511987654321", "551187654321"), ("+525512345678", "5215512345678"), ("+5491123456789", "541123456789")],
)
def test_two_spellings_of_an_account_are_one_phone(declared: str, linked: str) -> None:
    jid = f"{linked}:3@s.whatsapp.net"
    session = showing(Desired(phone=declared))
    session.scan(jid)
    session.feed(replace(CONNECTED, jid=jid))
    session.after(LIMITS.stable)
    assert session.at(Phase.CONNECTED)
    session.feed(DesiredChanged(Desired(phone=declared, rejected_phone=declared)))
    assert session.state.journal.removal is not None
    assert session.state.journal.removal.cause is Cause.PHONE_REJECTED


class KeptVolume(Session):
    """A session whose volume was kept from an earlier object."""

    def open(self, desired: Desired | None, credentials: Credentials, journal: Journal) -> list[Command]:
        self.credentials, self.saved = credentials, journal
        self.state, _ = machine.begin()
        if desired is not None:
            self.feed(DesiredChanged(desired))
        return self.feed(Opened(journal, credentials, kept=True))


KEPT_JOURNAL = Journal(
    seq=3,
    failed=3,
    attempts_used=3,
    relink_request_id="old",
    secret_shown=True,
    hold=Hold(Reason.ATTEMPTS_EXHAUSTED, None),
    removal=Removal(Cause.RELINK, START, request_id="older"),
    registered_at=START - 60,
)


def test_a_kept_volume_with_another_phone_is_left_alone_until_the_phone_fits() -> None:
    session = KeptVolume()
    desired = Desired(phone="+15551230009", relink_request_id="new", rejected_phone=PHONE, unlink=True, expire=True)
    assert session.open(desired, LINKED, KEPT_JOURNAL) == []
    assert session.told == (MachineState.FAILED, Reason.VOLUME_FOREIGN)
    assert session.after(LIMITS.volume_retry) == [OpenVolume()]
    assert session.feed(Opened(KEPT_JOURNAL, LINKED, kept=True)) == []
    session.feed(DesiredChanged(Desired(phone=PHONE)))
    assert session.after(0.0) == [OpenVolume()], "at once"
    session.feed(Opened(KEPT_JOURNAL, LINKED, kept=True))
    assert Stamp() in session.commands
    assert session.at(Phase.OPENING)
    assert session.credentials.present


@pytest.mark.parametrize(
    ("phone", "credentials"),
    [
        (None, LINKED),
        (PHONE, LINKED),
        ("+15551230009", Credentials()),
        ("+15551230009", Credentials(present=True, valid=False)),
    ],
)
def test_a_kept_volume_that_fits_is_taken_without_what_was_asked_of_it(
    phone: str | None, credentials: Credentials
) -> None:
    session = KeptVolume()
    session.open(Desired(phone=phone), credentials, KEPT_JOURNAL)
    assert Stamp() in session.commands
    assert session.done(Wipe) == []
    assert session.state.phase in (Phase.OPENING, Phase.REQUESTING)
    journal = session.saved
    assert (journal.seq, journal.attempts_used, journal.hold, journal.removal) == (3, 0, None, None)


def test_whose_a_kept_volume_is_shows_only_with_what_is_asked_for() -> None:
    session = KeptVolume()
    assert session.open(None, Credentials(present=True, valid=False), KEPT_JOURNAL) == []
    assert session.at(Phase.BOOTING)
    session.feed(DesiredChanged(Desired()))
    assert session.after(0.0) == [OpenVolume()]


def test_removing_the_phone_wipes_nothing() -> None:
    session = paired(Desired(phone=PHONE))
    assert session.feed(DesiredChanged(Desired())) == []


def test_a_rejected_phone_is_held_until_it_is_asked_anew() -> None:
    session = paired()
    session.feed(DesiredChanged(Desired(rejected_phone=PHONE)))
    session.feed(wire.LogoutDone(""))
    session.after(0.0)
    assert session.told == (MachineState.HELD, Reason.PHONE_CLAIM_CONFLICT)
    assert session.after(1e6) == []
    session.feed(DesiredChanged(Desired(rejected_phone=PHONE, relink_request_id="r1")))
    session.after(0.0)
    assert session.at(Phase.REQUESTING)


def test_a_rejection_that_was_cut_short_after_the_wipe_is_finished() -> None:
    session = paired()
    session.feed(DesiredChanged(Desired(rejected_phone=PHONE)))
    again = Session(Desired(rejected_phone=PHONE), Credentials(), session.saved)
    assert again.told == (MachineState.HELD, Reason.PHONE_CLAIM_CONFLICT)


@pytest.mark.parametrize("asked", [Desired(phone="+15551230009"), Desired(rejected_phone=PHONE)])
def test_a_removal_that_is_no_longer_asked_for_costs_nothing(asked: Desired) -> None:
    """The number was mistyped, and the server could not be told yet."""
    session = Session(asked, LINKED, Journal(registered_at=START - 60))
    assert session.state.journal.removal is not None
    session.feed(DesiredChanged(Desired(phone=PHONE)))
    session.feed(CONNECTED)
    session.after(LIMITS.removal)
    assert session.at(Phase.CONNECTED)
    assert session.credentials.present


@pytest.mark.parametrize("asked", [Desired(phone="+15551230009"), Desired(rejected_phone=PHONE), Desired(expire=True)])
@pytest.mark.parametrize("answer", [wire.LogoutDone("timeout"), WorkerExited(), None])
def test_a_removal_taken_back_during_a_log_out_that_fails_costs_nothing(asked: Desired, answer: Event | None) -> None:
    session = paired(asked)
    assert session.done(LogOut) == [LogOut()]
    session.feed(DesiredChanged(Desired(phone=PHONE)))
    if answer is not None:
        session.feed(answer)
    session.after(LIMITS.logout + 1.0)
    session.feed(CONNECTED)
    session.after(LIMITS.patient_removal)
    assert session.at(Phase.CONNECTED)
    assert session.credentials.present


def test_a_log_out_has_its_time() -> None:
    session = Session(Desired(relink_request_id="r1"), LINKED, Journal(registered_at=START - 60))
    session.after(LIMITS.removal - 1.0)
    session.feed(CONNECTED)
    session.after(LIMITS.logout - 1.0)
    session.feed(wire.LogoutDone(""))
    assert session.state.journal.relink_outcome is RelinkOutcome.COMPLETED


def test_a_login_that_the_server_has_let_in_can_log_out() -> None:
    session = Session(Desired(relink_request_id="r1"), LINKED, Journal(registered_at=START - 60))
    session.feed(wire.Pong(1, connected=True, logged_in=False))
    assert session.done(LogOut) == []
    session.feed(wire.Pong(2, connected=True, logged_in=True))
    assert session.done(LogOut) == [LogOut()]


def test_a_removal_goes_on_with_all_its_time_in_the_next_process() -> None:
    session = Session(Desired(relink_request_id="r1"), LINKED, Journal(registered_at=START - 60))
    late = replace(session.saved, removal=Removal(Cause.RELINK, START - 100.0, request_id="r1"))
    again = Session(Desired(relink_request_id="r1"), LINKED, late)
    again.feed(CONNECTED, wire.LogoutDone(""))
    assert again.state.journal.relink_outcome is RelinkOutcome.COMPLETED


def test_a_strangers_phone_is_given_time_to_lose_our_device() -> None:
    session = showing(Desired(phone=PHONE))
    session.scan(OTHER_JID)
    assert Wipe() not in session.after(LIMITS.removal + 5.0)
    session.feed(replace(CONNECTED, jid=OTHER_JID))
    assert session.done(LogOut) == [LogOut()]


def test_rejection_is_lifted_by_a_document_without_it() -> None:
    session = paired(Desired(rejected_phone=PHONE))
    session.feed(wire.LogoutDone(""))
    session.feed(DesiredChanged(Desired()))
    session.after(0.0)
    assert session.at(Phase.REQUESTING)


def test_logged_out_offers_one_pairing_then_waits_longer_and_longer() -> None:
    session = paired()
    waits: list[float] = []
    for _ in range(10):
        session.feed(wire.LoggedOut(main_device_gone=False))
        assert Wipe() in session.commands
        before = session.now
        session.after(0.0)
        while session.state.phase is not Phase.REQUESTING:
            assert session.told == (MachineState.HELD, Reason.LOGGED_OUT)
            due = machine.next_deadline(session.state)
            assert due is not None
            session.after(due - session.now)
        waits.append(session.now - before)
        session.pair()
        session.after(120)
    assert waits == [0.0, 300.0, 600.0, 1200.0, 2400.0, 4800.0, 9600.0, 19200.0, 21600.0, 21600.0]


def test_logouts_are_no_short_connections_of_one_device() -> None:
    session = paired()
    for _ in range(6):
        session.feed(wire.Disconnected())
        assert session.at(Phase.RECONNECTING), "the library tells the reason of the log-out yet"
        session.feed(wire.LoggedOut(main_device_gone=True))
        session.after(0.0)
        while session.state.phase is not Phase.REQUESTING:
            due = machine.next_deadline(session.state)
            assert due is not None
            session.after(due - session.now)
        session.pair()


def test_logged_out_is_held_where_asked_for() -> None:
    session = paired(Desired(relink_on_logout=False))
    session.feed(wire.LoggedOut(main_device_gone=True))
    session.after(1e6)
    assert session.told == (MachineState.HELD, Reason.MAIN_DEVICE_GONE)
    session.feed(DesiredChanged(Desired(relink_on_logout=False, relink_request_id="r")))
    session.after(0.0)
    assert session.at(Phase.REQUESTING)


def test_a_device_removed_right_after_pairing_is_a_failed_attempt() -> None:
    session = showing()
    session.scan()
    session.feed(CONNECTED)
    session.now += 12
    session.feed(wire.LoggedOut(main_device_gone=False))
    (entry,) = session.state.journal.history
    assert (entry.succeeded, entry.reason) == (False, Reason.LOGGED_OUT)


def test_unused_credentials_that_are_refused_have_expired() -> None:
    session = Session(Desired(inactive_expiry=3600.0), LINKED, Journal(last_used_at=START - 4000))
    session.feed(wire.LoggedOut(main_device_gone=False))
    assert session.state.journal.last_reason is Reason.EXPIRED


def test_the_volume_knows_to_the_day_how_long_a_connection_has_lasted() -> None:
    session = paired()
    before = session.state
    commands = session.after(100 * 86_400.0 - 1.0)
    assert commands == [Save(replace(before.journal, last_used_at=START + day * 86_400.0)) for day in range(1, 100)]
    assert replace(session.state, journal=before.journal) == before


def test_no_login_after_the_scan_restarts_and_at_last_pairs_anew() -> None:
    session = showing()
    session.scan()
    assert KillWorker() in session.after(LIMITS.login)
    for _ in range(LIMITS.logins):
        session.after(2.0)
        assert session.at(Phase.AUTHENTICATING)
        assert session.credentials.present
        session.feed(wire.Pong(1, connected=True, logged_in=False))
        session.after(LIMITS.connect)
    assert session.state.journal.history[0].reason is Reason.NOT_PAIRED
    assert not session.credentials.present
    session.after(10.0)
    assert session.at(Phase.REQUESTING)


def test_an_unreachable_server_after_the_scan_never_wipes() -> None:
    session = showing()
    session.scan()
    session.after(LIMITS.login)
    for _ in range(20):
        assert session.at(Phase.AUTHENTICATING)
        session.now += 30.0
        session.feed(wire.ConnectEnded("network", 0, ""))
        assert session.at(Phase.IDLE)
        session.after((session.state.deadline or 0.0) - session.now)
        assert session.at(Phase.AUTHENTICATING)
        session.feed(wire.Pong(1, connected=False, logged_in=False))
        session.after(LIMITS.connect)
        session.after((session.state.deadline or 0.0) - session.now)
        assert session.state.journal.attempt is not None
        assert session.state.journal.attempt.logins == 0
    assert session.credentials.present


@pytest.mark.parametrize("scanned", [False, True])
def test_a_login_that_the_server_has_let_in_gets_its_time(scanned: bool) -> None:
    """Prekey requests without an answer hold the login up for minutes."""
    if scanned:
        session = showing()
        session.scan()
    else:
        session = Session(None, LINKED)
    phase = session.state.phase
    session.now += 5.0
    session.feed(wire.Pong(1, connected=True, logged_in=True))
    until = session.now + LIMITS.sync
    assert machine.next_deadline(session.state) == until
    assert session.after(LIMITS.sync - 5.0) == []
    session.feed(wire.Pong(2, connected=True, logged_in=True))
    assert machine.next_deadline(session.state) == until, "once"
    session.after(5.0)
    assert session.at(Phase.IDLE)
    session.after(2.0)
    assert session.at(phase)
    assert session.state.journal.attempt is None or session.state.journal.attempt.logins == 0
    assert machine.next_deadline(session.state) == session.state.worker_since + LIMITS.connect  # type: ignore[operator]


def test_a_crash_between_scan_and_commit_is_a_failed_attempt() -> None:
    session = showing()
    session.scan()
    again = Session(Desired(relink_on_logout=False), Credentials(), session.saved)
    assert again.state.journal.history[0].reason is Reason.NOT_PAIRED
    assert again.state.phase is Phase.REQUESTING
    assert again.state.journal.logouts == 0
    assert again.state.journal.attempts_used == 1


@pytest.mark.parametrize("crash", [False, True])
def test_a_scan_that_the_worker_could_not_tell_of_is_counted(crash: bool) -> None:
    session = showing()
    session.credentials = LINKED
    if crash:
        session = Session(None, LINKED, session.saved)
    else:
        session.feed(WorkerExited())
    session.feed(CONNECTED)
    session.after(LIMITS.stable)
    assert [entry.reason for entry in session.state.journal.history] == [Reason.PAIRED]


@pytest.mark.parametrize("stable", [False, True])
def test_a_logout_that_the_worker_could_not_tell_of_is_one(stable: bool) -> None:
    session = Session(Desired(relink_on_logout=False))
    session.pair()
    session.after(LIMITS.stable + 1.0 if stable else 12.0)
    session.credentials = Credentials()
    session.feed(WorkerExited())
    assert session.told == (MachineState.HELD, Reason.LOGGED_OUT)
    reasons = [entry.reason for entry in session.state.journal.history]
    assert reasons == [Reason.PAIRED if stable else Reason.LOGGED_OUT]
    assert Session(Desired(relink_on_logout=False), Credentials(), session.saved).at(Phase.HELD)


def test_a_crash_while_a_qr_shows_clears_it_and_counts_nothing() -> None:
    session = showing()
    again = Session(None, Credentials(), session.saved)
    assert again.state.journal.attempt is None
    assert again.state.journal.attempts_used == 0
    assert Conceal() in again.commands


def test_disconnect_is_mended_by_the_library_or_by_a_new_worker() -> None:
    session = paired()
    session.feed(wire.Disconnected())
    assert session.told == (MachineState.RECONNECTING, Reason.RECONNECTING)
    session.feed(CONNECTED)
    assert session.told == (MachineState.CONNECTED, Reason.CONNECTED)
    session.feed(wire.Disconnected())
    commands = session.after(LIMITS.reconnect)
    assert KillWorker() in commands
    assert session.at(Phase.OPENING)
    assert session.state.journal.disconnects == 2


def test_connections_that_do_not_last_are_opened_less_and_less_often() -> None:
    session = paired()
    session.now += LIMITS.calm
    waits = []
    for _ in range(9):
        session.feed(wire.Disconnected())
        waits.append((session.state.deadline or 0.0) - session.now if session.at(Phase.IDLE) else None)
        session.after(waits[-1] or 0.1)
        session.feed(CONNECTED)
        session.now += LIMITS.calm - 1.0
    assert waits == [None, None, None, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    session.now += 1.0
    session.feed(wire.Disconnected())
    assert session.at(Phase.RECONNECTING), "the library mends it after a calm time"


def test_unanswered_keepalives_are_no_connection() -> None:
    session = paired()
    session.feed(wire.KeepAliveTimeout(1))
    assert session.told == (MachineState.RECONNECTING, Reason.KEEP_ALIVE_TIMEOUT)
    session.feed(wire.KeepAliveRestored())
    assert session.told == (MachineState.CONNECTED, Reason.CONNECTED)
    session.feed(wire.KeepAliveTimeout(1))
    session.after(LIMITS.keepalive)
    assert session.at(Phase.OPENING)


def test_a_pong_without_a_socket_is_no_connection() -> None:
    session = paired()
    session.feed(wire.Pong(1, connected=True, logged_in=True))
    assert session.at(Phase.CONNECTED)
    session.feed(wire.Pong(2, connected=False, logged_in=True))
    assert session.at(Phase.RECONNECTING)


def test_what_only_a_pong_has_said_another_may_take_back() -> None:
    no, yes = wire.Pong(1, connected=False, logged_in=False), wire.Pong(2, connected=True, logged_in=True)
    session = paired()
    session.feed(no, yes)
    assert session.at(Phase.CONNECTED)
    session.after(100.0)
    assert session.at(Phase.CONNECTED)
    session.feed(no, wire.Disconnected(), yes)
    assert session.at(Phase.RECONNECTING), "the library itself has said so"
    session.feed(CONNECTED, wire.Disconnected(), yes)
    assert session.at(Phase.RECONNECTING)


def test_a_silence_that_a_pong_has_seen_another_may_end() -> None:
    session = paired()
    session.feed(wire.Pong(1, connected=True, logged_in=True, silence=LIMITS.silence + 1))
    session.feed(wire.Pong(2, connected=True, logged_in=True, silence=LIMITS.silence + 6))
    assert session.at(Phase.RECONNECTING)
    session.feed(wire.Pong(3, connected=True, logged_in=True, silence=0.5))
    assert session.at(Phase.CONNECTED)


def test_a_worker_that_starts_slowly_has_all_its_time_to_connect() -> None:
    for session in (Session(None, LINKED), Session()):
        session.after(LIMITS.connect - 1.0)
        session.feed(wire.WorkerStarted("0"))
        assert KillWorker() not in session.after(LIMITS.connect - 1.0)
        assert KillWorker() in session.after(1.0)


def test_an_answered_keepalive_opens_no_closed_socket() -> None:
    session = paired()
    session.feed(wire.KeepAliveTimeout(1), wire.Disconnected(), wire.KeepAliveRestored())
    assert session.told == (MachineState.RECONNECTING, Reason.RECONNECTING)
    assert session.state.journal.disconnects == 1


def test_a_silent_connection_is_none() -> None:
    session = paired()
    for silence in (None, 0.0, LIMITS.silence):
        session.feed(wire.Pong(1, connected=True, logged_in=True, silence=silence))
        assert session.at(Phase.CONNECTED)
    session.feed(wire.Pong(2, connected=True, logged_in=True, silence=LIMITS.silence + 1))
    assert session.told == (MachineState.RECONNECTING, Reason.KEEP_ALIVE_TIMEOUT)
    session.after(LIMITS.keepalive)
    assert session.at(Phase.OPENING)


def test_a_qr_that_does_not_come_over_an_open_connection_is_asked_for_again() -> None:
    session = Session()
    waits = []
    for _ in range(4):
        session.feed(wire.Pong(1, connected=False, logged_in=False, silence=None))
        session.now += 5.0
        session.feed(wire.Pong(2, connected=False, logged_in=False, silence=1.0))
        assert session.after(LIMITS.code - 1.0) == []
        session.feed(wire.Pong(3, connected=False, logged_in=False, silence=20.0))
        assert KillWorker() in session.after(1.0)
        waits.append((session.state.deadline or 0.0) - session.now)
        session.after(waits[-1])
        assert session.at(Phase.REQUESTING)
    assert waits == [1.0, 2.0, 4.0, 8.0]


def test_a_worker_that_dies_is_restarted_at_once_then_with_backoff() -> None:
    session = paired()
    waits = []
    for _ in range(9):
        session.feed(WorkerExited())
        waits.append((session.state.deadline or 0.0) - session.now if session.state.phase is Phase.IDLE else 0.0)
        session.after(waits[-1])
        assert session.at(Phase.OPENING)
    assert waits == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    session.feed(CONNECTED)
    session.now += LIMITS.calm
    session.feed(WorkerExited())
    assert session.at(Phase.OPENING)


def test_failed_dials_are_retried_for_ever() -> None:
    session = Session(None, LINKED)
    waits = []
    for _ in range(9):
        session.feed(wire.ConnectEnded("proxy", 403, "Forbidden"))
        assert session.told == (MachineState.CONNECTING, Reason.PROXY_FAILED)
        assert "403" in session.state.detail
        due = machine.next_deadline(session.state)
        assert due is not None
        waits.append(due - session.now)
        session.after(waits[-1])
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_a_silent_connect_is_ended() -> None:
    for session in (Session(), Session(None, LINKED)):
        assert KillWorker() in session.after(LIMITS.connect)
        assert session.at(Phase.IDLE)


@pytest.mark.parametrize(
    ("event", "reason", "seconds"),
    [
        (wire.TemporaryBan(101, 3600), Reason.TEMPORARY_BAN, 3600.0),
        (wire.ClientOutdated(), Reason.CLIENT_OUTDATED, 3600.0),
        (wire.StreamReplaced(), Reason.STREAM_REPLACED, 300.0),
    ],
)
def test_holds_keep_the_credentials_and_end_by_themselves(
    event: wire.WorkerEvent, reason: Reason, seconds: float
) -> None:
    for session in (paired(), Session(None, LINKED)):
        session.feed(event)
        session.after(0.0)
        assert session.told == (MachineState.HELD, reason)
        assert machine.next_deadline(session.state) == session.now + seconds
        assert session.after(seconds - 1) == []
        session.after(1)
        assert session.at(Phase.OPENING)
        assert session.credentials.present


def test_a_ban_outlives_a_restart_and_an_outdated_client_does_not() -> None:
    session = paired()
    session.feed(wire.TemporaryBan(101, 3600))
    assert Session(None, LINKED, session.saved).told == (MachineState.HELD, Reason.TEMPORARY_BAN)
    session = paired()
    session.feed(wire.ClientOutdated())
    assert Session(None, LINKED, session.saved).state.phase is Phase.OPENING


def test_a_replaced_stream_is_not_fought_over() -> None:
    session = paired()
    waits = []
    for _ in range(3):
        session.feed(wire.StreamReplaced())
        session.after(0.0)
        due = machine.next_deadline(session.state)
        assert due is not None
        waits.append(due - session.now)
        session.after(waits[-1])
        session.feed(CONNECTED)
    assert waits == [300.0, 600.0, 1200.0]
    session.now += LIMITS.replaced
    session.feed(wire.StreamReplaced())
    assert session.state.journal.replaced == 1


@pytest.mark.parametrize("reason", [Reason.VOLUME_FULL, Reason.VOLUME_READ_ONLY, Reason.VOLUME_FOREIGN])
def test_a_bad_volume_ends_the_worker_and_is_tried_again(reason: Reason) -> None:
    session = paired()
    session.feed(VolumeFailed(reason))
    assert session.commands == [KillWorker()]
    assert session.told == (MachineState.FAILED, reason)
    assert session.after(LIMITS.volume_retry) == [OpenVolume()]
    session.feed(Opened(session.saved, LINKED))
    assert session.at(Phase.OPENING)


def test_nobody_logs_in_while_the_volume_stays_full() -> None:
    session = paired()
    session.feed(VolumeFailed(Reason.VOLUME_FULL))
    session.now += LIMITS.volume_retry
    before = session.state
    moment = Moment(session.now, 0.0, "t")
    assert machine.step(before, Tick(), moment)[1] == (OpenVolume(),)
    state, commands = machine.step(before, Opened(session.saved, LINKED), moment)
    assert commands[0] == Save(state.journal), "it shows whether the volume takes anything"


def test_corrupt_credentials_are_moved_aside_and_paired_anew() -> None:
    session = Session(None, Credentials(present=True, valid=False))
    assert MoveAside() in session.commands
    session.after(0.0)
    assert session.at(Phase.REQUESTING)
    assert session.state.corrupt
    session.pair()
    assert not session.state.corrupt


@pytest.mark.parametrize("scanned", [False, True])
def test_corruption_fails_an_attempt_only_if_there_was_a_scan(scanned: bool) -> None:
    session = showing()
    if scanned:
        session.scan()
    again = Session(None, Credentials(present=True, valid=False), session.saved)
    assert [entry.reason for entry in again.state.journal.history] == [Reason.CREDENTIALS_CORRUPT] * scanned
    assert again.state.journal.attempts_used == scanned
    assert again.at(Phase.REQUESTING)


def test_a_missing_secret_is_told_and_mended() -> None:
    session = Session()
    session.feed(wire.QRCode("qr", "png"), PublishFailed(404))
    assert session.told == (MachineState.CONNECTING, Reason.CONFIG_MISSING)
    session.feed(Published())
    assert session.told == (MachineState.SHOWING_QR, Reason.QR_AVAILABLE)
    session.feed(PublishFailed(500))
    assert session.told == (MachineState.SHOWING_QR, Reason.QR_AVAILABLE)


def test_a_secret_deleted_in_a_window_is_told_and_mended() -> None:
    session = showing()
    for _ in range(2):
        session.now += LIMITS.next_qr
        session.feed(wire.QRCode("next", "png"), PublishFailed(404))
        assert session.told == (MachineState.CONNECTING, Reason.CONFIG_MISSING)
    session.feed(Published())
    assert session.told == (MachineState.SHOWING_QR, Reason.QR_AVAILABLE)
    assert session.state.detail == ""
    assert session.at(Phase.SHOWING)


def test_a_worker_death_in_a_window_does_not_count() -> None:
    session = showing()
    session.feed(WorkerExited())
    assert session.state.journal.attempts_used == 0
    assert Conceal() in session.commands
    session.after(0.0)
    assert session.at(Phase.REQUESTING)


@pytest.mark.parametrize("end", [WorkerExited(), wire.PairingEnded("timeout")])
def test_windows_that_are_cut_at_once_are_opened_less_and_less_often(end: Event) -> None:
    session = Session()
    windows = 0
    while session.now < START + 3600.0:
        session.show()
        windows += 1
        session.feed(end)
        session.after((machine.next_deadline(session.state) or 0.0) - session.now)
    assert windows < 70
    session.show()
    session.now += LIMITS.calm
    session.feed(WorkerExited())
    session.after(0.0)
    assert session.at(Phase.REQUESTING), "a window that lasted begins the backoff afresh"


def test_what_is_shown_is_cleared_by_the_next_process_unless_it_was_cleared() -> None:
    session = showing()
    session.scan()
    assert session.done(Conceal) == [Conceal()]
    assert Conceal() in Session(None, LINKED, session.saved).done_at_start
    session.feed(Concealed())
    assert Conceal() not in Session(None, LINKED, session.saved).done_at_start


def test_what_was_cleared_before_is_not_what_shows_now() -> None:
    session = showing()
    session.feed(WorkerExited())
    session.after(0.0)
    session.show()
    session.feed(Concealed())
    assert session.saved.secret_shown


def test_history_keeps_the_last_ten() -> None:
    session = Session(Desired(pairing=PairingSpec(attempts=20)))
    for _ in range(12):
        session.show()
        session.after(LIMITS.window + LIMITS.window_grace)
    assert [entry.seq for entry in session.state.journal.history] == list(range(3, 13))
    assert session.state.journal.failed == 12


def test_backoff_is_bounded_and_jittered() -> None:
    for failures in range(2000):
        for jitter in (0.0, 0.5, 0.999):
            wait = machine.backoff(failures, jitter, first=1.0, cap=60.0)
            assert 0.8 <= wait <= 60.0
    assert machine.backoff(10, 0.999, first=1.0, cap=60.0) < machine.backoff(10, 0.0, first=1.0, cap=60.0)


def test_a_hold_for_a_spec_ends_with_another_image_or_spec() -> None:
    for reason in (Reason.CLIENT_OUTDATED, Reason.INVALID_SPEC):
        session = Session(None, LINKED, Journal(hold=Hold(reason, None)))
        assert session.at(Phase.OPENING)


def test_an_expiry_logs_out_wipes_and_rests() -> None:
    session = paired(Desired(expire=True))
    assert session.told == (MachineState.CONNECTING, Reason.EXPIRED)
    assert session.done(LogOut) == [LogOut()]
    session.feed(wire.LogoutDone(""))
    session.after(1e6)
    assert not session.credentials.present
    assert session.told == (MachineState.HELD, Reason.EXPIRED)
    again = Session(Desired(expire=True), Credentials(), session.saved)
    assert again.told == (MachineState.HELD, Reason.EXPIRED)
    again.feed(DesiredChanged(Desired()))
    again.after(0.0)
    assert again.at(Phase.REQUESTING)
    assert not again.state.journal.expired


def test_an_expiry_does_not_wait_for_ever_for_a_server_that_is_away() -> None:
    session = Session(Desired(expire=True, relink_on_logout=False), LINKED, Journal(registered_at=START - 60))
    assert Wipe() not in session.after(LIMITS.patient_removal - 1.0)
    session.after(1.0)
    assert session.told == (MachineState.HELD, Reason.EXPIRED)
    assert not session.credentials.present
    session.feed(DesiredChanged(Desired(relink_on_logout=False)))
    session.after(0.0)
    assert session.at(Phase.REQUESTING)


def test_an_expiry_tries_again_to_log_out() -> None:
    session = paired(Desired(expire=True))
    session.feed(wire.LogoutDone("timeout"))
    session.after(2.0)
    session.feed(CONNECTED)
    assert session.done(LogOut) == [LogOut()]
    session.feed(wire.LogoutDone(""))
    assert session.told == (MachineState.HELD, Reason.EXPIRED)
    assert not session.state.left_behind


def test_an_expiry_has_its_time_after_a_clock_that_was_set_back_too() -> None:
    ahead = Removal(Cause.EXPIRED, START + 1e6)
    session = Session(Desired(expire=True), LINKED, Journal(registered_at=START - 60, removal=ahead))
    assert session.state.journal.removal == replace(ahead, until=START + LIMITS.patient_removal)


def test_an_expiry_of_what_is_not_paired_wipes_nothing() -> None:
    for session in (Session(Desired(expire=True)), showing()):
        session.feed(DesiredChanged(Desired(expire=True)))
        assert session.told == (MachineState.HELD, Reason.EXPIRED)
        assert session.done(Wipe) == []
        assert session.state.shown is None
    corrupt = Session(Desired(expire=True), Credentials(present=True, valid=False))
    assert corrupt.told == (MachineState.HELD, Reason.EXPIRED)
    assert not corrupt.state.corrupt


def test_an_expiry_is_over_with_a_new_relink_and_not_asked_for_again() -> None:
    session = paired(Desired(expire=True))
    session.feed(wire.LogoutDone(""), DesiredChanged(Desired(expire=True, relink_request_id="r1")))
    session.after(0.0)
    assert session.at(Phase.REQUESTING)
    session.pair()
    session.after(LIMITS.stable)
    assert session.at(Phase.CONNECTED)
    assert Session(Desired(expire=True, relink_request_id="r1"), LINKED, session.saved).at(Phase.OPENING)


def test_an_expiry_that_is_taken_back_in_time_costs_nothing() -> None:
    session = Session(Desired(expire=True), LINKED, Journal(registered_at=START - 60))
    session.feed(DesiredChanged(Desired()))
    assert session.state.journal.removal is None
    session.feed(CONNECTED)
    assert session.at(Phase.CONNECTED)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("error", "verified"),
        ("err-scanned-without-multidevice", "cannot link"),
        ("err-unexpected-state", "WhatsApp ended"),
        ("surprise", "does not know"),
    ],
)
def test_a_refused_scan_says_why_and_goes_on_saying_it(status: str, word: str) -> None:
    session = showing()
    session.feed(wire.PairingEnded(status))
    assert session.told == (MachineState.CONNECTING, Reason.NOT_PAIRED)
    assert word in session.state.detail
    session.after(2.0)
    session.show()
    (entry,) = session.state.journal.history
    assert (entry.reason, word in entry.message) == (Reason.NOT_PAIRED, True)
    before_the_qr = Session()
    before_the_qr.feed(wire.PairingEnded(status))
    assert before_the_qr.told == (MachineState.CONNECTING, Reason.CONNECT_FAILURE)
    assert word in before_the_qr.state.detail


@pytest.mark.parametrize("status", ["passkey-request", "passkey-confirmation"])
def test_a_passkey_stops_the_round(status: str) -> None:
    session = showing()
    session.feed(wire.PairingEnded(status))
    session.after(1e6)
    assert session.told == (MachineState.HELD, Reason.PASSKEY_REQUIRED)
    assert session.state.journal.failed == 1
    session.feed(DesiredChanged(Desired(relink_request_id="r1")))
    session.after(0.0)
    assert session.at(Phase.REQUESTING)


@pytest.mark.parametrize("refs", range(1, 7))
def test_refs_that_run_out_are_the_end_of_an_attempt(refs: int) -> None:
    session = showing()
    session.now += LIMITS.first_qr if refs == 6 else LIMITS.next_qr
    for _ in range(refs - 1):
        session.feed(wire.QRCode("qr", "png"))
        session.now += LIMITS.next_qr
    session.feed(wire.PairingEnded("timeout"))
    assert [entry.reason for entry in session.state.journal.history] == [Reason.EXPIRED]


@pytest.mark.parametrize("seconds", [0.5, 4.0, 19.0])
def test_a_code_that_came_late_runs_out_with_its_qrs(seconds: float) -> None:
    session = Session(Desired(phone=PHONE, pairing=PairingSpec(PairingMethod.PAIRING_CODE)))
    session.feed(wire.QRCode("", ""))
    session.now += seconds
    session.feed(wire.PairingCode("ABCD-EFGH"), Published())
    session.now += LIMITS.window - seconds
    session.feed(wire.PairingEnded("timeout"))
    assert session.state.journal.attempts_used == 1


@pytest.mark.parametrize("seconds", [0.5, 8.0, 28.0])
def test_a_connection_that_is_lost_in_a_window_is_not_the_end_of_an_attempt(seconds: float) -> None:
    session = showing()
    session.now += seconds
    session.feed(wire.PairingEnded("timeout"))
    assert session.told == (MachineState.CONNECTING, Reason.CONNECT_FAILURE)
    assert session.state.journal.history == ()


def test_an_unusable_phone_is_named() -> None:
    by_code = PairingSpec(PairingMethod.PAIRING_CODE)
    session = Session(Desired(pairing=by_code))
    session.after(0.0)
    assert session.told == (MachineState.HELD, Reason.INVALID_SPEC)
    assert "spec.phone is required" in session.state.detail
    session.feed(DesiredChanged(Desired(phone=PHONE, pairing=by_code)))
    session.after(0.0)
    session.feed(wire.QRCode("", ""), wire.PairingCodeRefused("invalid_phone", ""))
    session.after(0.0)
    assert session.told == (MachineState.HELD, Reason.INVALID_SPEC)
    assert "spec.phone" in session.state.detail


@pytest.mark.parametrize("unanswered", [False, True])
def test_a_code_that_is_refused_or_does_not_come_is_asked_for_again(unanswered: bool) -> None:
    session = Session(Desired(phone=PHONE, pairing=PairingSpec(PairingMethod.PAIRING_CODE)))
    waits = []
    for _ in range(4):
        session.feed(wire.QRCode("", ""))
        if unanswered:
            assert session.after(LIMITS.code - 1.0) == []
            session.after(1.0)
        else:
            session.feed(wire.PairingCodeRefused("other", ""))
        waits.append((session.state.deadline or 0.0) - session.now)
        session.after(waits[-1])
    assert waits == [1.0, 2.0, 4.0, 8.0]


def test_a_ban_without_an_end_is_waited_for() -> None:
    session = Session(None, LINKED)
    session.feed(wire.ConnectEnded("ban", 0, ""))
    session.after(0.0)
    assert session.told == (MachineState.HELD, Reason.TEMPORARY_BAN)
    assert machine.next_deadline(session.state) == session.now + LIMITS.ban_of_unknown_kind


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    """A journal of a node whose clock was a year ahead."""
    ahead = paired()
    ahead.now += 3e7
    ahead.feed(wire.TemporaryBan(101, 3600))
    session = Session(None, LINKED, ahead.saved)
    assert session.told == (MachineState.HELD, Reason.TEMPORARY_BAN)
    assert machine.next_deadline(session.state) == START + 3600

    ahead = showing()
    ahead.now += 3e7
    ahead.scan()
    ahead.feed(CONNECTED)
    session = Session(None, LINKED, ahead.saved)
    session.feed(CONNECTED)
    session.after(LIMITS.stable)
    (entry,) = session.state.journal.history
    assert entry.succeeded
    assert None not in (entry.seconds_to_qr, entry.seconds_to_scan, entry.seconds_to_connected)
    assert min(entry.seconds_to_qr or 0.0, entry.seconds_to_scan or 0.0, entry.seconds_to_connected or 0.0) >= 0.0

    ahead = paired(Desired(relink_request_id="r1"))
    ahead.saved = replace(ahead.saved, removal=Removal(Cause.RELINK, START + 3e7, request_id="r1"))
    session = Session(Desired(relink_request_id="r1"), LINKED, ahead.saved)
    session.after(LIMITS.removal)
    assert session.state.journal.relink_request_id == "r1"


CRASHES: dict[str, Callable[[], Session]] = {
    "opening": lambda: Session(None, LINKED),
    "requesting": Session,
    "showing": showing,
    "connected": paired,
    "reconnecting": lambda: fed(paired(), wire.Disconnected()),
    "logging out": lambda: fed(paired(), DesiredChanged(Desired(unlink=True))),
    "relinking": lambda: fed(paired(), DesiredChanged(Desired(relink_request_id="r1"))),
}


def fed(session: Session, *events: Event) -> Session:
    session.feed(*events)
    return session


@pytest.mark.parametrize("situation", CRASHES)
def test_a_worker_crash_loses_nothing_and_costs_one_step(situation: str) -> None:
    session = CRASHES[situation]()
    before, credentials = session.state, session.credentials
    assert before.phase in WITH_WORKER
    session.feed(WorkerExited())
    after = session.state
    assert session.credentials == credentials
    assert after.failures <= before.failures + 1
    assert (after.journal.seq, after.journal.attempts_used) == (before.journal.seq, before.journal.attempts_used)
    assert after.journal.removal == before.journal.removal
    assert len(session.done(StartWorker)) == 1, "the first is made good at once"
    session.feed(WorkerExited())
    assert session.at(Phase.IDLE)
    session.after(1.0)
    assert session.state.phase in WITH_WORKER
