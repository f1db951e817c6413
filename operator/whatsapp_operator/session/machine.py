"""The state machine of a session: (state, event, moment) -> (state, commands). No clock, no I/O, no randomness.

An event changes facts; then settling compares them with what is desired and takes the next step. So a request that
comes at any time, in any phase, or was left half-done by a crash, is picked up the same way.

The supervisor executes the commands in their order. `Save` is always the first, and when it fails the whole
transition is dropped and `VolumeFailed` comes instead: nothing is ever done that the journal does not know. A
`DesiredChanged` that is dropped so comes again after it.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from whatsapp_operator.api.phones import same_account
from whatsapp_operator.api.reasons import PairingMethod, Reason, RelinkOutcome
from whatsapp_operator.session import wire
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
from whatsapp_operator.session.identity import phone_of
from whatsapp_operator.session.journal import finished, not_after, taken_over
from whatsapp_operator.session.limits import LIMITS, PATIENT, Limits
from whatsapp_operator.session.model import (
    Attempt,
    Cause,
    Credentials,
    Desired,
    Hold,
    Journal,
    PairingSpec,
    Removal,
)
from whatsapp_operator.session.state import WITH_LOGIN, WITH_WORKER, Phase, Shown, State


def begin() -> tuple[State, tuple[Command, ...]]:
    return State(), (OpenVolume(),)


def step(state: State, event: Event, moment: Moment, limits: Limits = LIMITS) -> tuple[State, tuple[Command, ...]]:
    """The one transition function. An event that does not fit the phase changes nothing."""
    transition = _Transition(state, moment, limits)
    transition.apply(event)
    transition.settle()
    taken = transition.state.opened and not state.opened
    saved = event.journal if isinstance(event, Opened) and taken else state.journal
    journal = transition.state.journal
    # After a failure it shows whether the volume takes anything, before the server sees another login.
    due = journal != saved or (taken and state.was_opened)
    return transition.state, (*([Save(journal)] if due else []), *transition.commands)


def next_deadline(state: State, limits: Limits = LIMITS) -> float | None:
    """When the next Tick is due."""
    removal, attempt = state.journal.removal, state.journal.attempt
    due = [state.deadline]
    if removal is not None and state.phase in (WITH_WORKER | {Phase.IDLE, Phase.HELD}) - {Phase.LOGGING_OUT}:
        due.append(removal.until)
    if state.phase is Phase.CONNECTED:
        if attempt is not None and attempt.connected_at is not None:
            due.append(attempt.connected_at + limits.stable)
        if state.journal.last_used_at is not None:
            due.append(state.journal.last_used_at + limits.note_use)
    return min((at for at in due if at is not None), default=None)


def backoff(failures: int, jitter: float, *, first: float, cap: float) -> float:
    """`first`, doubled with each further failure up to `cap`; a fifth less at most, so that many do not meet."""
    return min(first * 2.0 ** min(max(failures - 1, 0), 32), cap) * (1.0 - 0.2 * jitter)


_REASONS: Final[Mapping[Cause, Reason]] = MappingProxyType(
    {
        Cause.RELINK: Reason.CONNECTING,
        Cause.UNLINK: Reason.CONNECTING,
        Cause.PHONE_CHANGED: Reason.CONNECTING,
        Cause.PHONE_MISMATCH: Reason.PHONE_MISMATCH,
        Cause.PHONE_REJECTED: Reason.PHONE_CLAIM_CONFLICT,
        Cause.LOGGED_OUT: Reason.LOGGED_OUT,
        Cause.MAIN_DEVICE_GONE: Reason.MAIN_DEVICE_GONE,
        Cause.NEVER_LOGGED_IN: Reason.NOT_PAIRED,
        Cause.EXPIRED: Reason.EXPIRED,
    }
)
"""What a removal is reported as."""

_REFUSALS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "error": "The phone scanned, but what it or the server sent could not be verified.",
        "err-scanned-without-multidevice": "The phone that scanned cannot link devices; update WhatsApp on it.",
        "err-unexpected-state": "WhatsApp ended the pairing.",
    }
)
"""What the outcomes of a pairing window mean that are the phone's or the server's doing."""


class _Transition:
    """One step under construction."""

    def __init__(self, state: State, moment: Moment, limits: Limits) -> None:
        self.state = state
        self.commands: list[Command] = []
        self._moment = moment
        self._limits = limits

    # Facts.

    def apply(self, event: Event) -> None:
        match event:
            case Tick():
                self._deadline_passed()
            case DesiredChanged(desired):
                self._desired_changed(desired)
            case Opened(journal, credentials, kept):
                self._opened(journal, credentials, kept=kept)
            case Inspected(credentials):
                self._inspected(credentials)
            case VolumeFailed(reason):
                self._volume_failed(reason)
            case Wiped():
                self._wiped()
            case Concealed():
                if self.state.shown is None:
                    self._journal(secret_shown=False)
            case Published():
                self._published()
            case PublishFailed(status):
                self._publish_failed(status)
            case WorkerExited():
                self._connection_failed(Reason.CONNECT_FAILURE, "The client ended unexpectedly.", first=0.0)
            case wire.QRCode(text, png):
                self._qr(text, png)
            case wire.PairingCode(code):
                self._pairing_code(code)
            case wire.PairingCodeRefused(kind):
                self._code_refused(kind)
            case wire.PairingEnded(status):
                self._pairing_ended(status)
            case wire.Paired():
                self._paired(event)
            case wire.Connected():
                self._connected(event)
            case wire.Disconnected():
                self._lost(Reason.RECONNECTING, self._limits.reconnect)
            case wire.StreamError():
                self._lost(Reason.CONNECT_FAILURE, self._limits.reconnect)
            case wire.KeepAliveTimeout():
                self._lost(Reason.KEEP_ALIVE_TIMEOUT, self._limits.keepalive)
            case wire.KeepAliveRestored():
                if self.state.phase is Phase.RECONNECTING and self.state.fault is Reason.KEEP_ALIVE_TIMEOUT:
                    self._enter_connected()
            case wire.Pong():
                self._pong(event)
            case wire.LoggedOut(main_device_gone):
                self._logged_out(main_device_gone)
            case wire.LogoutDone(error):
                self._logout_done(failed=error != "")
            case wire.TemporaryBan(_, seconds):
                self._hold(Reason.TEMPORARY_BAN, self._later(max(float(seconds), self._limits.ban)))
            case wire.ClientOutdated():
                self._hold(Reason.CLIENT_OUTDATED, self._later(self._limits.outdated))
            case wire.StreamReplaced():
                self._stream_replaced()
            case wire.ConnectFailure():
                self._connection_failed(Reason.CONNECT_FAILURE, "WhatsApp refuses the login.", first=1.0)
            case wire.ConnectEnded(kind, status):
                self._connect_ended(kind, status)
            case wire.WorkerStarted():
                if self.state.phase in (Phase.OPENING, Phase.REQUESTING, Phase.AUTHENTICATING):
                    self._set(deadline=self._moment.now + self._limits.connect)
            case wire.SendDone() | wire.MessageReceived() | wire.Undecryptable():
                pass

    def _desired_changed(self, desired: Desired) -> None:
        before = self.state.desired
        self._set(desired=desired)
        if not self.state.opened:
            if self.state.deadline is not None:
                self._set(deadline=self._moment.now)  # a volume that was foreign may fit now
            return
        if before is None or before.window == desired.window:
            return
        # Another method, name or number for the code: the round begins anew, and what is shown is void.
        hold = self.state.journal.hold
        if hold is not None and hold.reason in (Reason.INVALID_SPEC, Reason.RATE_LIMITED, Reason.PASSKEY_REQUIRED):
            hold = None
        self._journal(attempts_used=0, hold=hold)
        if self.state.phase in (Phase.REQUESTING, Phase.SHOWING):
            self._drop_attempt()
            self._idle(0.0)

    def _opened(self, journal: Journal, credentials: Credentials, *, kept: bool) -> None:
        if self.state.opened:
            return
        if kept:
            if not self._may_take(credentials):
                return
            journal = taken_over(journal, credentials)
            self.commands.append(Stamp())
        journal = not_after(journal, self._moment.now, self._limits)
        self._set(
            opened=True, was_opened=True, journal=journal, phase=Phase.BOOTING, deadline=None, fault=None, detail=""
        )
        if journal.secret_shown:
            # Left by a process that died in the middle of a window; that window is gone with its connection.
            self.commands.append(Conceal())
        if journal.hold is not None and journal.hold.reason in (Reason.CLIENT_OUTDATED, Reason.INVALID_SPEC):
            self._journal(hold=None)  # perhaps another image, or another spec
        self._take_credentials(credentials)

    def _may_take(self, credentials: Credentials) -> bool:
        """Whether a kept volume may become that of this session; one that holds another phone's device may not."""
        now, limits, desired = self._moment.now, self._limits, self.state.desired
        if desired is None:
            self._set(phase=Phase.BOOTING, deadline=now + limits.lock_retry)
            return False
        linked = phone_of(credentials.jid) if credentials.valid else None
        if linked is not None and desired.phone is not None and not same_account(linked, desired.phone):
            self._set(
                phase=Phase.FAULTY,
                deadline=now + limits.volume_retry,
                fault=Reason.VOLUME_FOREIGN,
                detail="The volume was kept from another session and holds the device of another phone.",
            )
            return False
        return True

    def _inspected(self, credentials: Credentials) -> None:
        self._take_credentials(credentials)

    def _take_credentials(self, credentials: Credentials) -> None:
        self._set(credentials=credentials)
        if credentials.present and not credentials.valid:
            self._set(corrupt=True, credentials=Credentials(), phase=Phase.INSPECTING, fault=Reason.CREDENTIALS_CORRUPT)
            self.commands.append(MoveAside())
            self._journal(registered_at=None)
            lost = self.state.journal.attempt
            if lost is not None and lost.scanned_at is not None:
                self._finish_attempt(Reason.CREDENTIALS_CORRUPT, succeeded=False)
            self._journal(attempt=None)
            return
        attempt, now = self.state.journal.attempt, self._moment.now
        if attempt is not None and attempt.scanned_at is None:
            # The worker died in its window: perhaps after the scan, and before it could tell of it.
            scanned = replace(attempt, scanned_at=now) if credentials.present else None
            self._journal(attempt=scanned, registered_at=now if scanned else None)
        elif (
            not credentials.present
            and self.state.journal.registered_at is not None
            and self.state.journal.removal is None
            and (attempt is None or attempt.connected_at is not None)
        ):
            # The library deletes them once the server has refused the device; it died before it could tell of it.
            self._journal(removal=Removal(Cause.LOGGED_OUT, now, logged_out=True))
        elif attempt is not None and not credentials.present:
            # It died between the scan and the library's commit.
            self._finish_attempt(
                Reason.NOT_PAIRED, succeeded=False, message="The client ended before it had stored the pairing."
            )
            self._journal(registered_at=None)
        if self.state.phase is Phase.INSPECTING:
            self._set(phase=Phase.INSPECTED)

    def _volume_failed(self, reason: Reason) -> None:
        self._kill_worker()
        if self.state.shown is not None:
            self.commands.append(Conceal())
        conflict = reason is Reason.CREDENTIALS_CONFLICT
        self._set(
            phase=Phase.FAULTY,
            deadline=self._moment.now + (self._limits.lock_retry if conflict else self._limits.volume_retry),
            fault=reason,
            detail="Another process uses the volume." if conflict else "",
            opened=False,
            shown=None,
        )

    def _published(self) -> None:
        if self.state.shown is not None:
            self._set(shown=replace(self.state.shown, published=True), fault=None, detail="")

    def _publish_failed(self, status: int) -> None:
        if self.state.phase is not Phase.SHOWING or self.state.shown is None:
            return
        if status == 404:
            self._set(
                shown=replace(self.state.shown, published=False),
                fault=Reason.CONFIG_MISSING,
                detail="The session's Secret is missing; it is created again.",
            )
        elif not (self.state.shown.published and self.state.shown.expires_at > self._moment.now):
            self._set(fault=Reason.STARTING, detail="The QR or code cannot be written to the session's Secret yet.")

    # Pairing.

    def _qr(self, text: str, png: str) -> None:
        desired, now, limits = self._desired(), self._moment.now, self._limits
        by_code = desired.pairing.method is PairingMethod.PAIRING_CODE
        if self.state.phase is Phase.REQUESTING and by_code:
            self._set(deadline=now + limits.code, first_qr=now)
        elif self.state.phase is Phase.REQUESTING:
            self._open_window()
            self._show(Publish(now + limits.first_qr, qr=text, png=png))
        elif self.state.phase is Phase.SHOWING and not by_code:
            self._show(Publish(now + limits.next_qr, qr=text, png=png))

    def _pairing_code(self, code: str) -> None:
        if self.state.phase is Phase.REQUESTING:
            self._open_window()
            self._journal(rate_limited=0)
            self._show(Publish(self._moment.now + self._limits.window, code=code))

    def _open_window(self) -> None:
        now, journal = self._moment.now, self.state.journal
        since = self.state.worker_since
        self._journal(
            attempt=Attempt(
                id=self._moment.token,
                method=self._desired().pairing.method,
                number=journal.attempts_used + 1,
                requested_at=now if since is None else since,
                started_at=now,
                expires_at=now + self._limits.window,
            ),
            secret_shown=True,
        )
        self._set(
            phase=Phase.SHOWING,
            deadline=now + self._limits.window + self._limits.window_grace,
            fault=None,
            detail="",
        )

    def _show(self, publish: Publish) -> None:
        shown, by_code = self.state.shown, publish.code is not None
        since = self.state.first_qr if by_code else None
        self._set(
            shown=Shown(
                code=by_code,
                since=self._moment.now if since is None else since,
                expires_at=publish.expires_at,
                published=shown is not None and shown.published,
            )
        )
        self.commands.append(publish)

    def _code_refused(self, kind: str) -> None:
        if self.state.phase is not Phase.REQUESTING:
            return
        if kind == "rate_limited":
            count = self.state.journal.rate_limited + 1
            self._journal(rate_limited=count)
            limits = self._limits
            self._hold(
                Reason.RATE_LIMITED,
                backoff(count, self._moment.jitter, first=limits.rate_limited, cap=limits.rate_limited_cap),
            )
        elif kind == "invalid_phone":
            self._hold(Reason.INVALID_SPEC, None)
        else:
            self._connection_failed(Reason.CONNECT_FAILURE, "WhatsApp gave no pairing code.", first=1.0)

    def _pairing_ended(self, status: str) -> None:
        if self.state.phase not in (Phase.REQUESTING, Phase.SHOWING):
            return
        message = _REFUSALS.get(status, "The pairing ended in a way that this client does not know.")
        match status:
            case "success":
                return
            case "err-client-outdated":
                self._drop_attempt()
                self._hold(Reason.CLIENT_OUTDATED, self._later(self._limits.outdated))
            case "passkey-request" | "passkey-confirmation":
                self._fail_attempt(Reason.PASSKEY_REQUIRED, 0.0)
                self._hold(Reason.PASSKEY_REQUIRED, None)
            case "timeout" if self._ran_out():
                self._fail_attempt(Reason.EXPIRED, 0.0)
            case "timeout":
                # The library says the same when the connection is lost in the middle of a window.
                self._connection_failed(Reason.CONNECT_FAILURE, "The connection was lost.", first=1.0)
            case _ if self.state.journal.attempt is None:
                self._connection_failed(Reason.CONNECT_FAILURE, message, first=1.0)
            case _:
                self._fail_attempt(Reason.NOT_PAIRED, self._backoff(1.0), message)

    def _ran_out(self) -> bool:
        """Whether the library had no further QR to show: each lasts `next_qr`, the first of six three times as long.

        A server may offer fewer than six. Behind a pairing code there are QRs as well, from before it came.
        """
        shown, qr = self.state.shown, self._limits.next_qr
        if shown is None:
            return False
        lasted = self._moment.now - shown.since
        return lasted > qr / 2 and abs(lasted - qr * round(lasted / qr)) <= 1.0

    def _paired(self, event: wire.Paired) -> None:
        attempt = self.state.journal.attempt
        if self.state.phase is not Phase.SHOWING or attempt is None:
            return
        self._set(
            phase=Phase.AUTHENTICATING,
            deadline=self._moment.now + self._limits.login,
            reached=False,
            credentials=Credentials(
                present=True,
                valid=True,
                jid=event.jid,
                lid=event.lid,
                platform=event.platform,
                business_name=event.business_name,
            ),
            corrupt=False,
            left_behind=False,
            fault=None,
            detail="",
            failures=0,
        )
        self._journal(attempt=replace(attempt, scanned_at=self._moment.now), registered_at=self._moment.now)
        self._conceal()

    def _finish_attempt(self, reason: Reason, *, succeeded: bool, message: str = "") -> None:
        journal = finished(self.state.journal, self._moment.now, reason, succeeded=succeeded, message=message)
        self._set(journal=journal)

    def _fail_attempt(self, reason: Reason, wait: float, message: str = "") -> None:
        """The window failed; the next one, if the round has one left, begins after `wait`."""
        self._finish_attempt(reason, succeeded=False, message=message)
        self._conceal()
        self._idle(wait)
        self._set(fault=reason, detail=message, failures=0)

    def _drop_attempt(self) -> None:
        """The window ended without a result of its own; it does not count."""
        attempt = self.state.journal.attempt
        if attempt is not None and attempt.scanned_at is None:
            self._journal(attempt=None)
        self._conceal()

    def _conceal(self) -> None:
        if self.state.shown is not None:
            self._set(shown=None)
            self.commands.append(Conceal())  # the journal says that something is shown until it is done

    # The connection.

    def _connected(self, event: wire.Connected) -> None:
        if self.state.phase not in WITH_LOGIN:
            return
        credentials, now = self.state.credentials, self._moment.now
        if event.jid:
            credentials = Credentials(
                present=True,
                valid=True,
                jid=event.jid,
                lid=event.lid,
                platform=event.platform,
                business_name=event.business_name,
                push_name=event.push_name,
            )
        if not (credentials.present and credentials.valid):
            # Neither the volume nor the client knows a device: no login of ours.
            self._connection_failed(Reason.CONNECT_FAILURE, "", first=1.0)
            return
        attempt = self.state.journal.attempt
        if attempt is not None and attempt.connected_at is None:
            attempt = replace(attempt, connected_at=now)
        self._set(credentials=credentials)
        registered_at = self.state.journal.registered_at
        self._journal(
            attempt=attempt,
            registered_at=now if registered_at is None else registered_at,
            last_used_at=now,
            last_connected_at=now,
            hold=None,
        )
        self._enter_connected()

    def _enter_connected(self) -> None:
        self._set(
            phase=Phase.CONNECTED,
            deadline=None,
            connected_since=self._moment.now,
            was_connected=True,
            fault=None,
            detail="",
            corrupt=False,
            left_behind=False,
            doubted=False,
        )

    def _pong(self, pong: wire.Pong) -> None:
        """What no event of the library tells."""
        state, now, limits = self.state, self._moment.now, self._limits
        silent = pong.silence is not None and pong.silence > limits.silence
        match state.phase:
            case Phase.CONNECTED if not (pong.connected and pong.logged_in):
                self._lost(Reason.RECONNECTING, limits.reconnect)
                self._set(doubted=True)
            case Phase.RECONNECTING if state.doubted and pong.connected and pong.logged_in and not silent:
                self._enter_connected()
            case Phase.CONNECTED if silent:
                self._lost(Reason.KEEP_ALIVE_TIMEOUT, limits.keepalive)
                self._set(doubted=True)
            case Phase.OPENING | Phase.AUTHENTICATING if pong.connected:
                self._set(reached=True)
                if pong.logged_in and not state.let_in:
                    self._set(let_in=True, deadline=now + limits.sync)
            case Phase.REQUESTING if pong.silence is not None and not state.reached:
                # The dial is over, so only the server can keep a QR waiting.
                self._set(reached=True, deadline=min(state.deadline or now, now + limits.code))
            case _:
                pass

    def _lost(self, reason: Reason, patience: float) -> None:
        """The socket is closed or dead; the library gets a while to mend it."""
        if self.state.phase is Phase.CONNECTED:
            self._note_disconnect(reason)
            in_a_row = self.state.short_lived
            if in_a_row > 2 and reason is not Reason.KEEP_ALIVE_TIMEOUT:
                # The library knows no backoff between connections that succeed and are closed again.
                self._idle(backoff(in_a_row - 2, self._moment.jitter, first=1.0, cap=self._limits.backoff_cap))
                self._set(fault=reason, detail="")
                return
            # A fifth less at most, as for a backoff: an outage ends many connections at the same time.
            deadline = self._moment.now + patience * (1.0 - 0.2 * self._moment.jitter)
            self._set(phase=Phase.RECONNECTING, deadline=deadline, fault=reason, detail="")
        elif self.state.phase is Phase.RECONNECTING:
            # Neither a better pong nor an answered keepalive is enough any longer.
            self._set(doubted=False, fault=self.state.fault if reason is Reason.KEEP_ALIVE_TIMEOUT else reason)

    def _note_disconnect(self, reason: Reason) -> None:
        """A connection that was open is not any more."""
        since, now, journal = self.state.connected_since, self._moment.now, self.state.journal
        lasted = 0.0 if since is None else now - since
        calm = lasted >= self._limits.calm
        self._set(
            connected_since=None,
            failures=0 if calm else self.state.failures,
            short_lived=0 if calm else self.state.short_lived + 1,
        )
        self._journal(
            disconnects=journal.disconnects + 1,
            last_reason=reason,
            last_used_at=now,
            logouts=0 if lasted >= self._limits.forget_logouts else journal.logouts,
            replaced=0 if lasted >= self._limits.replaced else journal.replaced,
        )

    def _connect_ended(self, kind: str, status: int) -> None:
        match kind:
            case "proxy":
                detail = f"The proxy refuses the connection with status {status}." if status else ""
                self._connection_failed(Reason.PROXY_FAILED, detail, first=1.0)
            case "proxy_url":
                self._connection_failed(
                    Reason.PROXY_FAILED,
                    "The proxy's URL is none: http://, https:// or socks5://, a host, and perhaps a port.",
                    first=1.0,
                )
            case "proxy_name":
                self._connection_failed(Reason.PROXY_FAILED, "The proxy's name cannot be resolved.", first=1.0)
            case "proxy_address":
                self._connection_failed(
                    Reason.PROXY_FAILED,
                    "The proxy's name leads to a link-local address or a cloud's metadata service; it is not dialed.",
                    first=1.0,
                )
            case "tls":
                self._connection_failed(
                    Reason.CONNECT_FAILURE, "The server's certificate is not trusted; see spec.caBundle.", first=1.0
                )
            case "clock":
                self._connection_failed(
                    Reason.CONNECT_FAILURE, "The server's certificate is not valid at this node's time.", first=1.0
                )
            case "refused":
                self._connection_failed(Reason.CONNECT_FAILURE, "WhatsApp refuses the login.", first=1.0)
            case "ban":
                self._hold(Reason.TEMPORARY_BAN, self._later(self._limits.ban_of_unknown_kind))
            case "dns":
                self._connection_failed(
                    Reason.CONNECT_FAILURE, "The name of WhatsApp's server cannot be resolved.", first=1.0
                )
            case "storage":
                self._connection_failed(Reason.CONNECT_FAILURE, "The credential database cannot be opened.", first=1.0)
            case _:
                self._connection_failed(Reason.CONNECT_FAILURE, "", first=1.0)

    def _connection_failed(self, reason: Reason, detail: str, *, first: float) -> None:
        """The worker is of no more use; another one follows after a backoff that begins with `first` seconds."""
        phase = self.state.phase
        if phase not in WITH_WORKER:
            return
        if phase is Phase.CONNECTED:
            self._note_disconnect(reason)
        attempt = self.state.journal.attempt
        if phase is Phase.SHOWING and attempt is not None:
            self._conceal()
            if self._moment.now - attempt.started_at >= self._limits.calm:
                self._set(failures=0)
        wait = self._backoff(first)
        self._idle(wait)
        self._set(fault=reason, detail=detail, failures=self.state.failures + 1)

    def _backoff(self, first: float) -> float:
        """1, 2, 4 ... seconds; one that begins with 0 lets the first restart be at once."""
        failures = self.state.failures + (1 if first else 0)
        if failures == 0:
            return 0.0
        return backoff(failures, self._moment.jitter, first=1.0, cap=self._limits.backoff_cap)

    def _login_missed(self) -> None:
        """Scanned, and then no login, although the server was there and the worker had its time."""
        attempt = self.state.journal.attempt
        if attempt is None:
            return
        logins = attempt.logins + 1
        self._journal(attempt=replace(attempt, logins=logins))
        if logins >= self._limits.logins and self.state.journal.removal is None:
            self._journal(removal=Removal(Cause.NEVER_LOGGED_IN, self._moment.now, logged_out=True))

    def _logged_out(self, main_device_gone: bool) -> None:
        """The server knows the device no longer, and the library has deleted its credentials."""
        if self.state.phase not in WITH_LOGIN and self.state.phase is not Phase.LOGGING_OUT:
            return
        journal, now = self.state.journal, self._moment.now
        if journal.removal is not None:
            self._journal(removal=replace(journal.removal, logged_out=True))
        else:
            cause = Cause.MAIN_DEVICE_GONE if main_device_gone else Cause.LOGGED_OUT
            used = journal.last_used_at
            if self.state.phase is Phase.OPENING and used is not None:
                expired = now - used >= self._desired().inactive_expiry
                cause = Cause.EXPIRED if expired else cause
            self._journal(removal=Removal(cause, now, logged_out=True))
        if self.state.connected_since is not None:
            self._note_disconnect(Reason.MAIN_DEVICE_GONE if main_device_gone else Reason.LOGGED_OUT)
        # What ended these connections is known now, and log-outs have a backoff of their own.
        self._set(phase=Phase.LOGGING_OUT, deadline=None, fault=None, detail="", short_lived=0)

    def _stream_replaced(self) -> None:
        if self.state.phase not in WITH_LOGIN:
            return
        if self.state.connected_since is not None:
            self._note_disconnect(Reason.STREAM_REPLACED)
        limits, count = self._limits, self.state.journal.replaced + 1
        self._journal(replaced=count)
        self._hold(
            Reason.STREAM_REPLACED,
            backoff(count, self._moment.jitter, first=limits.replaced, cap=limits.replaced_cap),
        )

    def _hold(self, reason: Reason, seconds: float | None) -> None:
        """Stop trying, for a time or until something is asked for."""
        if self.state.journal.removal is not None:
            self._connection_failed(reason, "", first=1.0)  # the device is still to be logged out
            return
        if self.state.connected_since is not None:
            self._note_disconnect(reason)
        self._drop_attempt()
        self._keep_still(reason, seconds)
        self._idle(0.0)

    def _later(self, seconds: float) -> float:
        """Not before that, and up to a minute after, so that many who were told the same do not come back at once."""
        return seconds + min(seconds / 10, 60.0) * self._moment.jitter

    def _keep_still(self, reason: Reason, seconds: float | None) -> None:
        now = self._moment.now
        self._journal(hold=Hold(reason, None if seconds is None else now + seconds, now))

    # Removing credentials.

    def _logout_done(self, *, failed: bool) -> None:
        removal = self.state.journal.removal
        if self.state.phase is not Phase.LOGGING_OUT or removal is None:
            return
        if not failed:
            self._journal(removal=replace(removal, logged_out=True))
        elif removal.until is None or removal.cause in PATIENT or not self._asked_for(removal):
            self._connection_failed(Reason.CONNECT_FAILURE, "The device could not be logged out yet.", first=1.0)
        else:
            self._journal(removal=replace(removal, until=self._moment.now))
            self._idle(0.0)

    def _wiped(self) -> None:
        removal = self.state.journal.removal
        if self.state.phase is not Phase.WIPING or removal is None:
            return
        failed = removal.gave_up and not removal.logged_out
        self._set(
            credentials=Credentials(),
            was_connected=False,
            left_behind=self.state.left_behind or failed,
            fault=None,
            detail="",
            failures=0,
        )
        self._journal(removal=None, registered_at=None, last_used_at=None)
        self._idle(0.0)
        match removal.cause:
            case Cause.RELINK:
                self._drop_scanned_attempt()
                self._journal(
                    relink_request_id=removal.request_id,
                    relink_outcome=RelinkOutcome.FAILED if failed else RelinkOutcome.COMPLETED,
                    attempts_used=0,
                    hold=None,
                    logouts=0,
                    replaced=0,
                    rate_limited=0,
                )
            case Cause.PHONE_CHANGED:
                self._drop_scanned_attempt()
                self._journal(attempts_used=0, hold=None, logouts=0, replaced=0)
            case Cause.UNLINK:
                self._drop_scanned_attempt()
                self._set(phase=Phase.UNLINKED, deadline=None)
                self._journal(attempts_used=0, hold=None)
            case Cause.PHONE_MISMATCH:
                self._finish_attempt(Reason.PHONE_MISMATCH, succeeded=False)
                self._set(fault=Reason.PHONE_MISMATCH)
            case Cause.PHONE_REJECTED:
                self._finish_attempt(Reason.PHONE_CLAIM_CONFLICT, succeeded=False)
                self._keep_still(Reason.PHONE_CLAIM_CONFLICT, None)
                self._journal(attempts_used=0)
            case Cause.NEVER_LOGGED_IN:
                message = "The phone has linked the device, but WhatsApp did not let it log in."
                self._finish_attempt(Reason.NOT_PAIRED, succeeded=False, message=message)
                self._set(fault=Reason.NOT_PAIRED, detail=message)
            case Cause.EXPIRED if self._desired().expire:
                self._drop_scanned_attempt()
                self._expired()
            case Cause.LOGGED_OUT | Cause.MAIN_DEVICE_GONE | Cause.EXPIRED as cause:
                self._after_logout(_REASONS[cause])

    def _expired(self) -> None:
        """What the expiry was asked for is done, and rests until something else is asked for."""
        self._keep_still(Reason.EXPIRED, None)
        self._journal(expired=True, attempts_used=0, last_reason=Reason.EXPIRED)
        self._set(corrupt=False)

    def _drop_scanned_attempt(self) -> None:
        """A pairing that held is counted as such although what it made is removed now."""
        attempt = self.state.journal.attempt
        if attempt is not None and attempt.connected_at is not None:
            self._finish_attempt(Reason.PAIRED, succeeded=True)
        else:
            self._journal(attempt=None)

    def _after_logout(self, reason: Reason) -> None:
        limits = self._limits
        self._finish_attempt(reason, succeeded=False)
        count = self.state.journal.logouts + 1
        self._journal(logouts=count, last_reason=reason)
        if not self._desired().relink_on_logout:
            self._keep_still(reason, None)
        elif count > 1:
            wait = backoff(
                count - 1, self._moment.jitter, first=limits.relink_after_logout, cap=limits.relink_after_logout_cap
            )
            self._keep_still(reason, wait)
            self._journal(attempts_used=0)
        else:
            self._journal(attempts_used=0)
            self._set(fault=reason)

    # Deadlines.

    def _deadline_passed(self) -> None:
        state, now, limits = self.state, self._moment.now, self._limits
        attempt, used = state.journal.attempt, state.journal.last_used_at
        if state.phase is Phase.CONNECTED:
            if attempt is not None and attempt.connected_at is not None and now >= attempt.connected_at + limits.stable:
                self._finish_attempt(Reason.PAIRED, succeeded=True)
            if used is not None and now >= used + limits.note_use:
                self._journal(last_used_at=now)
        if state.deadline is None or now < state.deadline:
            return
        match state.phase:
            case Phase.FAULTY | Phase.BOOTING:
                self._set(deadline=now + limits.volume_retry)
                self.commands.append(OpenVolume())
            case Phase.OPENING | Phase.AUTHENTICATING if state.let_in:
                self._connection_failed(Reason.CONNECT_FAILURE, "The login was not finished.", first=1.0)
            case Phase.OPENING:
                self._connection_failed(Reason.CONNECT_FAILURE, "The server does not answer.", first=1.0)
            case Phase.REQUESTING:
                self._connection_failed(Reason.CONNECT_FAILURE, "No QR or code came.", first=1.0)
            case Phase.SHOWING:
                self._fail_attempt(Reason.EXPIRED, 0.0)
            case Phase.AUTHENTICATING:
                if state.reached:
                    self._login_missed()
                self._connection_failed(Reason.CONNECT_FAILURE, "The login after the scan did not come.", first=0.0)
            case Phase.RECONNECTING:
                self._connection_failed(state.fault or Reason.RECONNECTING, state.detail, first=0.0)
            case Phase.LOGGING_OUT:
                self._logout_done(failed=True)
            case _:
                pass  # IDLE and HELD: settling takes the next step

    # Decisions.

    def settle(self) -> None:
        """Compare what is with what is asked for, and take the next step."""
        state = self.state
        if not state.opened or state.desired is None or state.phase is Phase.FAULTY:
            return
        if any(isinstance(command, MoveAside) for command in self.commands):
            return
        self._adopt_request()
        self._take_requests()
        removal = self.state.journal.removal
        if removal is not None:
            self._pursue_removal(removal)
            return
        if self.state.phase is Phase.UNLINKED:
            return
        self._review_hold()
        hold = self.state.journal.hold
        if hold is not None:
            if self.state.phase is not Phase.HELD or self.state.deadline != hold.until:
                self._kill_worker()
                self._set(phase=Phase.HELD, deadline=hold.until, fault=hold.reason, detail=self._about(hold))
            return
        if self.state.phase in (Phase.BOOTING, Phase.HELD) or (
            self.state.phase is Phase.IDLE and self._moment.now >= (self.state.deadline or 0.0)
        ):
            self._set(phase=Phase.INSPECTING, deadline=None)
            self.commands.append(Inspect())
        elif self.state.phase is Phase.INSPECTED:
            self._start_worker()

    def _about(self, hold: Hold) -> str:
        """What a person must know of a hold besides its reason."""
        if hold.reason is not Reason.INVALID_SPEC:
            return ""
        if self._desired().phone is None:
            return "spec.phone is required for the pairing method PairingCode."
        return "WhatsApp takes spec.phone for no number of a phone: its country code or its length is wrong."

    def _adopt_request(self) -> None:
        """Take the request on record as done where the journal was lost: every pairing writes to it.

        The document keeps a request for ever, and good credentials are not to be wiped for one of long ago.
        """
        if self.state.phase is Phase.BOOTING and self.state.credentials.valid and self.state.journal == Journal():
            # With a time in it the journal is not taken for a lost one again, even if there is no request.
            self._journal(relink_request_id=self._desired().relink_request_id, registered_at=self._moment.now)

    def _take_requests(self) -> None:
        state, desired, journal = self.state, self._desired(), self.state.journal
        pending = journal.removal
        if desired.unlink:
            if state.phase is not Phase.UNLINKED and (pending is None or pending.cause is not Cause.UNLINK):
                logged_out = pending is not None and pending.logged_out
                self._journal(removal=Removal(Cause.UNLINK, None, logged_out=logged_out))
            return
        if pending is not None and not self._asked_for(pending):
            pending = self._take_back(pending)
        if pending is not None:
            return
        if state.phase is Phase.UNLINKED:
            self._idle(0.0)
        self._heed_expiry_taken_back()
        journal = self.state.journal
        request = desired.relink_request_id
        if request is not None and request != journal.relink_request_id:
            if self._absorbs():
                self._journal(relink_request_id=request, relink_outcome=RelinkOutcome.ABSORBED)
            else:
                self._remove(Cause.RELINK, request)
                return
        if desired.expire and not journal.expired:
            if state.credentials.present:
                self._remove(Cause.EXPIRED)
            else:
                self._drop_attempt()
                self._expired()
            return
        linked = phone_of(state.credentials.jid) if state.credentials.present else None
        if linked is None:
            return
        if same_account(linked, desired.rejected_phone):
            self._remove(Cause.PHONE_REJECTED)
        elif desired.phone is not None and not same_account(linked, desired.phone):
            fresh = journal.attempt is not None
            self._remove(Cause.PHONE_MISMATCH if fresh else Cause.PHONE_CHANGED)

    def _remove(self, cause: Cause, request_id: str | None = None) -> None:
        until = self._moment.now + self._limits.patience(cause)
        self._journal(removal=Removal(cause, until, request_id=request_id))

    def _heed_expiry_taken_back(self) -> None:
        journal = self.state.journal
        if journal.expired and not self._desired().expire:
            hold = journal.hold if journal.hold is not None and journal.hold.reason is not Reason.EXPIRED else None
            self._journal(expired=False, hold=hold)

    def _asked_for(self, removal: Removal) -> bool:
        """Whether what began the removal holds still; a relink and what the server did are not taken back."""
        desired, credentials = self._desired(), self.state.credentials
        linked = phone_of(credentials.jid) if credentials.present else None
        match removal.cause:
            case Cause.UNLINK:
                return desired.unlink
            case Cause.EXPIRED:
                return desired.expire
            case _ if linked is None:
                return True  # it is as good as done
            case Cause.PHONE_REJECTED:
                return same_account(linked, desired.rejected_phone)
            case Cause.PHONE_CHANGED | Cause.PHONE_MISMATCH:
                return desired.phone is not None and not same_account(linked, desired.phone)
            case _:
                return True

    def _take_back(self, removal: Removal) -> Removal | None:
        """It is no longer asked for: drop it, unless the server knows the device no longer, or is being told."""
        if removal.logged_out or self.state.phase in (Phase.LOGGING_OUT, Phase.WIPING):
            return removal
        self._journal(removal=None)
        if self.state.phase is Phase.IDLE:
            self._idle(0.0)
            self._set(fault=None, detail="")
        return None

    def _absorbs(self) -> bool:
        """A relink wants a fresh QR, and there is one; the window is cancelled when its spec changes."""
        attempt, shown = self.state.journal.attempt, self.state.shown
        return (
            self.state.phase is Phase.SHOWING
            and attempt is not None
            and shown is not None
            and self._moment.now - attempt.started_at < self._limits.absorb
        )

    def _pursue_removal(self, removal: Removal) -> None:
        """The next step of a removal: connect, log the device out, wipe."""
        state, now = self.state, self._moment.now
        if state.phase is Phase.WIPING:
            return
        logging_out = state.phase is Phase.LOGGING_OUT  # it has a time of its own
        overdue = removal.until is not None and now >= removal.until and not logging_out
        if removal.logged_out or overdue or not state.credentials.present:
            if state.credentials.present and not removal.logged_out:
                self._journal(removal=replace(removal, gave_up=True))
            self._conceal()
            self._kill_worker()
            self._set(phase=Phase.WIPING, deadline=None, fault=_REASONS[removal.cause])
            self.commands.append(Wipe())
        elif state.phase is Phase.CONNECTED or (state.phase in (Phase.OPENING, Phase.AUTHENTICATING) and state.let_in):
            self._set(
                phase=Phase.LOGGING_OUT,
                deadline=now + self._limits.logout,
                connected_since=None,
                fault=_REASONS[removal.cause],
                detail="The device is being logged out.",
            )
            self.commands.append(LogOut())
        elif state.phase is Phase.INSPECTED:
            self._start_worker()
        elif state.phase in (Phase.BOOTING, Phase.HELD) or (
            state.phase is Phase.IDLE and now >= (state.deadline or 0.0)
        ):
            self._set(phase=Phase.INSPECTING, deadline=None)
            self.commands.append(Inspect())

    def _review_hold(self) -> None:
        """Lift the hold whose time or cause is over."""
        hold, desired = self.state.journal.hold, self._desired()
        used = self.state.journal.attempts_used
        lifted = False
        if hold is not None:
            match hold.reason:
                case Reason.ATTEMPTS_EXHAUSTED:
                    lifted = used < desired.pairing.attempts
                case Reason.PHONE_CLAIM_CONFLICT:
                    lifted = desired.rejected_phone is None
                case Reason.LOGGED_OUT | Reason.MAIN_DEVICE_GONE | Reason.EXPIRED if hold.until is None:
                    lifted = desired.relink_on_logout and not self.state.journal.expired
                case _:
                    pass
            if hold.until is not None and self._moment.now >= hold.until:
                lifted = True
            if lifted:
                self._journal(hold=None)
                hold = None
        if (
            hold is None
            and used >= desired.pairing.attempts
            and not self.state.credentials.present
            and self.state.phase not in WITH_WORKER
        ):
            self._keep_still(Reason.ATTEMPTS_EXHAUSTED, None)

    # Steps.

    def _start_worker(self) -> None:
        desired, now = self.state.desired, self._moment.now
        if desired is None:
            return
        pairing: PairingSpec = desired.pairing
        if self.state.credentials.present:
            scanned = self.state.journal.attempt is not None and self.state.journal.attempt.connected_at is None
            self._set(phase=Phase.AUTHENTICATING if scanned else Phase.OPENING, deadline=now + self._limits.connect)
            self.commands.append(StartWorker(pairing.display_name))
        elif pairing.method is PairingMethod.PAIRING_CODE and desired.phone is None:
            self._hold(Reason.INVALID_SPEC, None)
            return
        else:
            self._set(phase=Phase.REQUESTING, deadline=now + self._limits.connect, shown=None)
            by_code = pairing.method is PairingMethod.PAIRING_CODE
            phone = desired.phone.removeprefix("+") if by_code and desired.phone is not None else None
            self.commands.append(StartWorker(pairing.display_name, phone))
        self._set(worker_since=now, first_qr=None, reached=False, let_in=False, doubted=False)

    def _kill_worker(self) -> None:
        if self.state.phase in WITH_WORKER:
            self.commands.append(KillWorker())
        self._set(worker_since=None, connected_since=None)

    def _idle(self, wait: float) -> None:
        self._kill_worker()
        self._set(phase=Phase.IDLE, deadline=self._moment.now + wait)

    def _desired(self) -> Desired:
        return self.state.desired if self.state.desired is not None else Desired()

    def _set(self, **changes: object) -> None:
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]

    def _journal(self, **changes: object) -> None:
        self._set(journal=replace(self.state.journal, **changes))  # type: ignore[arg-type]
