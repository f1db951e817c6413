"""A day of random faults: real sessions against the simulator, with the machine's long waits divided by a factor.

    python -m tests.benchmarks.day_of_faults [--sessions 20] [--hours 24] [--factor 60] [--report docs/soak.md]

docs/soak.md says what is done and what must hold. The exit code is 1 where something did not.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tests.benchmarks import memory
from tests.benchmarks.fault_schedule import KINDS, Strike, schedule
from tests.benchmarks.verdict import Cause, Pairings, Phantom, objection
from tests.integration.recording_api import RecordingApi
from tests.integration.session_process import HOLD, QR_CODE, RELINK, SessionProcess
from tests.integration.simulator_process import SimulatorProcess
from whatsapp_operator.api.reasons import MachineState, PairingMethod, Reason
from whatsapp_operator.session.limits import Limits
from whatsapp_operator.session.report import RETRY_CAP

DIVIDED = (
    "relink_after_logout", "relink_after_logout_cap", "forget_logouts", "replaced", "replaced_cap", "outdated", "ban",
    "ban_of_unknown_kind", "rate_limited", "rate_limited_cap",
)  # fmt: skip
"""Limits of the machine that are divided by the factor; the others are the library's and the network's own pace."""
NOTICED = 30.0 + 10.0 + Limits().ping
"""A keepalive goes out after 30 s at most, its answer is given up after 10 s, and the worker is asked every `ping`."""
AWAY = (OSError, HTTPException)
"""What a request to the simulator raises while it is restarted."""
BY_QR, BY_CODE = PairingMethod.QR_CODE.value, PairingMethod.PAIRING_CODE.value
SAMPLE, STEP = 1.0, 0.2
CALM = 15.0
MARK = "<!-- what follows is written by the script -->\n"
SPARED = 4
"""Every so-many-th supervisor is never killed, so that its memory is seen over the whole time."""

logger = logging.getLogger("day")


@dataclass
class Active:
    """A strike in force: its faults in the simulator, the first being the one that counts."""

    strike: Strike
    until: float
    ids: list[int] = field(default_factory=list)
    main: int | None = None
    cause: Cause | None = None
    undo: Callable[[], None] | None = None
    measured: dict[Subject, str] = field(default_factory=dict)
    """Those that were connected when it struck, and since when, and are struck by nothing else meanwhile."""


@dataclass(eq=False)
class Subject:
    """One session, and the person who has its phones: its own, another one of the same person, and a stranger's."""

    session: SessionProcess
    api: RecordingApi
    phones: tuple[str, str, str]
    chance: random.Random
    phantom: Phantom = field(default_factory=lambda: Phantom(NOTICED))
    pairings: Pairings = field(default_factory=Pairings)
    expected: set[Reason] = field(default_factory=set)
    relinks: dict[str, Cause] = field(default_factory=dict)
    reports_seen: int = 0
    down: bool = False
    excused_until: float = 0.0
    since: str | None = None
    """Of the connection at the last sample."""
    window: str | None = None
    act_at: float | None = None
    stranger: bool = False
    away: bool = False
    ended: tuple[str, float, str] | None = None
    """Kind of the last fault and its end, and since when the session had been connected before it."""

    @property
    def report(self) -> dict[str, Any]:
        return self.api.report

    @property
    def said(self) -> bool:
        return bool(self.report) and self.report["machine"] == MachineState.CONNECTED

    @property
    def device(self) -> tuple[str, int] | None:
        """Number and id of the device that the report names."""
        named = self.report.get("device")
        if not named or not named["jid"]:
            return None
        number, _, device = named["jid"].partition("@")[0].partition(":")
        return number, int(device or 0)

    @property
    def phone(self) -> str:
        """The number that is to be linked."""
        return self.session.desired["phone"] or self.phones[0]


class Day:
    def __init__(self, simulator: SimulatorProcess, subjects: list[Subject], pool: ThreadPoolExecutor, factor: float):
        self._simulator = simulator
        self._subjects = subjects
        self._pool = pool
        self._factor = factor
        self._active: list[Active] = []
        self._jobs: list[Future[None]] = []
        self._started = time.monotonic()
        self.violations: list[str] = []
        self.struck: Counter[str] = Counter()
        self.recovered: dict[str, list[float]] = defaultdict(list)
        self.scans: Counter[str] = Counter()
        self.samples = 0
        self.causes = 0
        self.memory = memory.Memory()

    def run(self, strikes: list[Strike], seconds: float, settle: float) -> float:
        """Returns the seconds from the end of the faults until all were connected, `CALM` at least."""
        self._started = time.monotonic()
        waiting = list(strikes)
        next_sample = next_memory = 0.0
        calm_since: float | None = None
        while True:
            now = self.now
            while waiting and waiting[0].at <= now:
                self._strike(waiting.pop(0))
            if calm_since is None and now >= seconds:
                self._take_all_back()
                calm_since = self.now
            for subject in self._subjects:
                self._person(subject, careful=calm_since is not None)
            if now >= next_sample:
                next_sample = now + SAMPLE
                self._sample()
            if now >= next_memory:
                next_memory = now + memory.EVERY
                self._sample_memory()
            self._collect()
            if calm_since is not None:
                # A connection that was cut last is told of within seconds.
                connected = now >= calm_since + CALM and all(s.said and not s.down for s in self._subjects)
                if connected or now >= calm_since + settle:
                    break
            time.sleep(STEP)
        for job in self._jobs:
            job.result()
        for subject in self._subjects:
            text = objection(subject.report["machine"], subject.report["reason"], expected=subject.expected)
            if text:
                self._violated(subject, text)
        self.violations += self.memory.objections()
        return self.now - calm_since

    @property
    def now(self) -> float:
        return time.monotonic() - self._started

    def _violated(self, subject: Subject, text: str) -> None:
        what = f"{self.now:.0f} s, session {self._subjects.index(subject)}: {text}"
        self.violations.append(what)
        logger.error("VIOLATION at %s", what)

    # Faults.

    def _strike(self, strike: Strike) -> None:
        self.struck[strike.name] += 1
        kind = strike.kind
        concerned = self._subjects if strike.session is None else [self._subjects[strike.session]]
        active = Active(strike, self.now + strike.seconds)
        logger.info("%4.0f s, session %s: %s", self.now, strike.session, strike.name)
        for subject in concerned:
            subject.expected |= kind.leads_to
            others = [other for other in self._active if self._concerns(other.strike, subject)]
            for other in others:
                other.measured.pop(subject, None)
            if subject.said and not subject.down and not others:
                active.measured[subject] = subject.report["connection"]["since"]
            subject.ended = None
        faults = list(kind.faults)
        if kind.ban:
            seconds = round(kind.ban / self._factor)
            faults = [{"kind": "failure", "reason": "402", "code": "101", "expire": seconds}, {"kind": "drop"}]
        try:
            self._post(active, faults, concerned[0] if strike.session is not None else None)
            if kind.act and not kind.ban:
                self._act(kind.act, active, concerned[0])
        except AWAY:
            logger.info("the simulator is away")
        if kind.costs_pairing and active.main is not None and not kind.act:
            active.cause = self._cause(concerned[0], kind.name)
        self._active.append(active)

    def _post(self, active: Active, faults: list[dict[str, Any]], subject: Subject | None) -> None:
        for fault in faults:
            scope = {"phone": subject.phone} if subject is not None else {}
            answer = self._simulator.fault(**fault, **scope)
            assert answer.status == 201, answer.body
            active.ids.append(answer.body["id"])
            active.main = active.ids[0]

    def _cause(self, subject: Subject, name: str, end: float | None = None) -> Cause:
        cause = Cause(name, self.now, end)
        self.causes += 1
        subject.pairings.causes.append(cause)
        return cause

    def _withdraw(self, subject: Subject, cause: Cause) -> None:
        """It came to nothing."""
        if cause in subject.pairings.causes:
            subject.pairings.causes.remove(cause)
            self.causes -= 1

    def _act(self, act: str, active: Active, subject: Subject) -> None:
        session, api = subject.session, subject.api
        match act:
            case "relink" | "relink-by-code" | "stranger" | "away":
                if act in ("stranger", "relink-by-code"):
                    session.ask(phone=subject.phone)
                if act == "relink-by-code":
                    session.ask(pairing=self._pairing(session, BY_CODE))
                subject.stranger, subject.away = act == "stranger", act == "away"
                self._relink(subject, active.strike.name)
            case "other-phone":
                phone = subject.phones[0] if subject.phone == subject.phones[1] else subject.phones[1]
                session.ask(phone=phone)
                self._cause(subject, active.strike.name, self.now + 60.0)
            case "display-name":
                name = f"Chrome ({subject.chance.choice(['Linux', 'Mac OS', 'Windows'])})"
                session.ask(pairing={**session.desired["pairing"], "displayName": name})
            case "method":
                by_code = session.desired["pairing"]["method"] == BY_CODE
                method = BY_QR if by_code else BY_CODE
                session.ask(phone=subject.phone, pairing=self._pairing(session, method))
            case "unlink":
                if subject.device is not None:
                    number, device = subject.device
                    self._simulator.call("DELETE", f"/phones/{number}/devices/{device}")
                    self._cause(subject, active.strike.name, self.now)
            case "message":
                self._simulator.send(subject.phones[2], subject.phone, "hello")
            case "kill-worker" | "stop-worker":
                blow = signal.SIGKILL if act == "kill-worker" else signal.SIGSTOP
                with suppress(FileNotFoundError, ProcessLookupError):
                    for pid in session.worker_pids:
                        os.kill(pid, blow)
            case "kill-supervisor" | "restart-pod" | "corrupt":
                if not subject.down:
                    cause = self._cause(subject, active.strike.name) if act == "corrupt" else None
                    subject.down = True
                    self._jobs.append(self._pool.submit(self._restart, subject, act, cause))
            case "refuse-status" | "refuse-secret":
                what = act.removeprefix("refuse-")
                api.refuse[what] = subject.chance.choice([403, 409, 500, 503])
                active.undo = lambda: self._accept(subject, what)
            case "restart-simulator":
                self._jobs.append(self._pool.submit(self._simulator.restart))
            case _:
                raise ValueError(act)

    @staticmethod
    def _pairing(session: SessionProcess, method: str) -> dict[str, Any]:
        return {**session.desired["pairing"], "method": method}

    def _relink(self, subject: Subject, name: str) -> None:
        token = secrets.token_hex(8)
        subject.relinks[token] = self._cause(subject, name)
        subject.session.ask(relinkRequestID=token)

    def _restart(self, subject: Subject, act: str, cause: Cause | None) -> None:
        """As the kubelet does: the container is started again a little later."""
        session = subject.session
        try:
            if act == "kill-supervisor":
                session.kill()
            else:
                self._stop(subject)
            if act == "corrupt":
                for file in session.volume.glob("credentials.db*"):
                    file.write_bytes(os.urandom(4096))
            time.sleep(subject.chance.uniform(0.2, 5.0))
            session.start()
        finally:
            if cause is not None:
                cause.end = self.now
            subject.down = False

    def _stop(self, subject: Subject) -> None:
        try:
            subject.session.stop()
        except subprocess.TimeoutExpired:
            self._violated(subject, "the supervisor does not end when it is asked to")
            subject.session.kill()

    def _accept(self, subject: Subject, what: str) -> None:
        del subject.api.refuse[what]
        if what == "status":
            subject.excused_until = self.now + RETRY_CAP

    def _take_all_back(self) -> None:
        for active in self._active:
            active.until = 0.0
        while self._jobs:
            self._jobs.pop().result()

    # The person.

    def _person(self, subject: Subject, *, careful: bool) -> None:
        """Scans or enters what the Secret shows, asks for a relink where that is the remedy; not always, or not soon.

        `careful`: always.
        """
        report, chance, now = subject.report, subject.chance, self.now
        if not report or subject.down:
            return
        shown = next((key for key in ("qr", "code") if subject.api.shown(key)), None)
        waits = report["machine"] == MachineState.HELD and report["connection"]["nextRetryAt"] is None
        window = report["pairing"]["id"] if shown else f"held: {report['reason']}" if waits else None
        if window != subject.window:
            subject.window = window
            absent = bool(shown) and not careful and (subject.away or chance.random() < 0.15)
            subject.away = False
            subject.act_at = None if window is None or absent else now + chance.uniform(1.0, 30.0)
        if subject.act_at is None or now < subject.act_at:
            return
        subject.act_at = now + chance.uniform(5.0, 15.0)  # once more, if nothing comes of it
        if waits and not shown:
            self._relink(subject, f"relink after {report['reason']}")
        elif shown:
            number = subject.phones[2] if subject.stranger else subject.phone
            subject.stranger = False
            text = subject.api.shown(shown)
            if text:
                self._jobs.append(self._pool.submit(self._link, number, shown, text))

    def _link(self, number: str, shown: str, text: str) -> None:
        try:
            link = self._simulator.scan if shown == "qr" else self._simulator.enter_code
            answer = link(number, text)
            self.scans["linked" if answer.status == 201 else str(answer.body["title"])] += 1
        except AWAY:
            self.scans["no answer"] += 1

    # Oracles.

    def _sample(self) -> None:
        self.samples += 1
        connected, faults = self._seen_by_simulator()
        for subject in self._subjects:
            self._read_reports(subject)
            if not subject.down and memory.state(subject.session.pid) in "XZ":
                self._violated(subject, "the supervisor ended by itself")
                subject.session.start()
            now = self.now
            refused = "status" in subject.api.refuse or now < subject.excused_until
            since = subject.report["connection"]["since"] if subject.said else None
            # A login is an answer: what opens a connection is not mute at that moment.
            opened, subject.since = since != subject.since, since
            there = subject.device in connected and (opened or not self._mute(subject))
            said = subject.said and not subject.down and not refused
            if subject.phantom.sample(now, said=said, connected=there) and subject.phantom.samples == 1:
                self._violated(subject, f"says Connected without a connection for more than {NOTICED:.0f} s")
            if said and there and subject.ended is not None:
                name, ended, before = subject.ended
                if subject.report["connection"]["since"] != before:
                    self.recovered[name].append(now - ended)
                    subject.ended = None
        if faults is not None:
            self._end_strikes(faults)

    def _mute(self, subject: Subject) -> bool:
        """Its connection is open, and nothing comes of it."""
        with suppress(OSError):
            if any(memory.state(pid) == "T" for pid in subject.session.worker_pids):
                return True
        return any(
            active.strike.kind.mutes and active.ids and self._concerns(active.strike, subject)
            for active in self._active
        )

    def _seen_by_simulator(self) -> tuple[set[tuple[str, int]], dict[int, dict[str, Any]] | None]:
        """The devices that are connected, and the faults in force; None where the simulator does not answer."""
        try:
            phones = self._simulator.call("GET", "/phones").body["phones"]
            faults = {fault["id"]: fault for fault in self._simulator.faults()}
        except AWAY:
            return set(), None
        devices = ((phone["number"], device) for phone in phones for device in phone["devices"])
        return {(number.removeprefix("+"), d["id"]) for number, d in devices if d["connected"]}, faults

    def _read_reports(self, subject: Subject) -> None:
        for write in subject.api.reports[subject.reports_seen :]:
            subject.reports_seen += 1
            report = write.body
            cause = subject.relinks.pop(report["relinkRequestID"], None) if report["relinkRequestID"] else None
            if cause is not None:
                cause.end = self.now
                if report["relinkOutcome"] == "Absorbed":
                    self._withdraw(subject, cause)
            at = write.at - self._started
            if report["machine"] == MachineState.CONNECTED and not subject.pairings.connected(
                at, report["device"]["jid"]
            ):
                self._violated(subject, "paired anew although nothing had taken its credentials")

    def _end_strikes(self, faults: dict[int, dict[str, Any]]) -> None:
        """Take back what is over, and note what has shown."""
        for active in list(self._active):
            over, now = self.now >= active.until, self.now
            for id in list(active.ids):
                if id not in faults or over:
                    unseen = id in faults and not faults[id]["fired"]
                    if id in faults:
                        with suppress(*AWAY):
                            self._simulator.call("DELETE", f"/faults/{id}")
                    active.ids.remove(id)
                    if id == active.main and active.cause is not None:
                        active.cause.end = now
                        if unseen and active.strike.session is not None:
                            self._withdraw(self._subjects[active.strike.session], active.cause)
            if not active.ids and (over or active.undo is None):
                if active.undo is not None:
                    active.undo()
                self._active.remove(active)
                for subject, since in active.measured.items():
                    subject.ended = (active.strike.name, self.now, since)

    def _concerns(self, strike: Strike, subject: Subject) -> bool:
        return strike.session is None or self._subjects[strike.session] is subject

    def _collect(self) -> None:
        """Errors of what was done in the background."""
        for job in [job for job in self._jobs if job.done()]:
            self._jobs.remove(job)
            job.result()

    def _sample_memory(self) -> None:
        self.memory.sample(self.now, "simulator", self._simulator.pid)
        for subject in self._subjects:
            if not subject.down:
                self.memory.sample(self.now, "supervisor", subject.session.pid)
                with suppress(OSError):
                    for pid in subject.session.worker_pids:
                        self.memory.sample_by_age(pid)

    # The result.

    def table(self, settled: float) -> str:
        subjects = self._subjects
        done = sum(len(s.pairings.seen) for s in subjects)
        firsts = [s for s in subjects if s.pairings.seen]
        explained = sum(len(s.pairings.explained) for s in subjects)
        disconnects = sum(s.report["connection"]["disconnects"] for s in subjects)
        ends = Counter(f"{s.report['machine']} ({s.report['reason']})" for s in subjects)
        worst = max(s.phantom.longest for s in subjects)
        figures = [
            ("faults", f"{sum(self.struck.values())} of {len(self.struck)} kinds"),
            ("connections lost and opened again", str(disconnects)),
            ("samples of all sessions", f"{self.samples}, one each {self.now / self.samples:.1f} s"),
            (f"samples of Connected without a connection for more than {NOTICED:.0f} s",
             str(sum(s.phantom.samples for s in subjects))),
            ("longest Connected without a connection", f"{worst:.0f} s"),
            ("pairings needed: the first ones, and what took credentials since", f"{len(subjects)} + {self.causes}"),
            ("pairings done: the first ones, later ones", f"{len(firsts)} + {done - len(firsts)}"),
            ("later ones that nothing explains", str(done - len(firsts) - explained)),
            ("most status writes of a session within a minute", str(max(_busiest(s.api) for s in subjects))),
            ("phones' scans and codes", ", ".join(f"{n} {what}" for what, n in sorted(self.scans.items()))),
            ("longest from a fault's end to Connected, without a person", f"{self._longest():.0f} s"),
            ("from the end of the faults to all settled", f"{settled:.0f} s"),
            ("sessions at the end", ", ".join(f"{n} {what}" for what, n in sorted(ends.items()))),
        ]  # fmt: skip
        kinds = []
        for name, count in sorted(self.struck.items()):
            times = sorted(self.recovered.get(name, []))
            spread = f"{statistics.median(times):.0f} | {times[-1]:.0f}" if times else " | "
            kinds.append(f"| {name} | {count} | {len(times)} | {spread} |")
        verdict = "\n".join(f"- {text}" for text in self.violations) or "None."
        return "\n".join(
            [
                "| what | |", "| --- | --- |", *map(_row, figures), "",
                "### Violations", "", verdict, "",
                "### Anonymous memory (MiB)", "", "| process | start | middle | end | growth over the second half |",
                "| --- | --- | --- | --- | --- |", *map(_row, self.memory.rows()), "",
                "| workers aged | samples | median | most |", "| --- | --- | --- | --- |",
                *map(_row, self.memory.rows_by_age()), "",
                "### Faults by kind", "",
                "Measured: of sessions that were connected, lost their connection by it, and had no other fault",
                "before they had a new one; seconds from the fault's end, people and holds included.", "",
                "| kind | times | measured | median | longest |", "| --- | --- | --- | --- | --- |", *kinds, "",
            ]
        )  # fmt: skip

    def _longest(self) -> float:
        """Of the kinds that cost no pairing and no hold."""
        return max((max(self.recovered[kind.name], default=0.0) for kind in KINDS if kind.heals_alone), default=0.0)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _busiest(api: RecordingApi) -> int:
    """Reports in the busiest minute."""
    return max(Counter(write.at // 60 for write in api.reports).values(), default=0)


def prepare(
    stack: ExitStack, directory: Path, simulator: SimulatorProcess, options: argparse.Namespace
) -> list[Subject]:
    """Sessions of several sorts: phone declared or not, one or more attempts, a new pairing offered or waited with."""
    limits = {name: getattr(Limits(), name) / options.factor for name in DIVIDED}
    subjects = []
    for number in range(options.sessions):
        phones = (simulator.new_phone(), simulator.new_phone(), simulator.new_phone())
        api = stack.enter_context(RecordingApi(directory / f"api-{number}"))
        desired = {
            "phone": None if number % 3 == 0 else phones[0],
            "pairing": {**QR_CODE, "attempts": 1 if number % 2 else 3},
            "recovery": HOLD if number % 4 == 1 else RELINK,
        }
        session = SessionProcess(
            directory / f"session-{number}", simulator, api, limits=limits, desired=desired, log_level="INFO"
        )
        subjects.append(
            Subject(stack.enter_context(session), api, phones, random.Random(f"{options.seed}/person {number}"))
        )
    return subjects


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.day_of_faults", description=__doc__)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--hours", type=float, default=24.0, help="simulated")
    parser.add_argument("--factor", type=float, default=60.0, help="by which the long waits are divided")
    parser.add_argument("--every", type=float, default=60.0, help="simulated minutes between faults of one session")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settle", type=float, default=600.0, help="seconds at most after the last fault")
    parser.add_argument("--report", type=Path, help="a page whose part after the mark is written anew")
    parser.add_argument("--directory", type=Path, help="for logs and volumes, which are kept there")
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    seconds = options.hours * 3600 / options.factor
    spared = frozenset(range(0, options.sessions, SPARED))
    strikes = schedule(
        options.seed, options.sessions, seconds=seconds, every=options.every * 60 / options.factor, spared=spared
    )
    directory = options.directory or Path(tempfile.mkdtemp(prefix="day-of-faults-"))
    with ExitStack() as stack:
        simulator = stack.enter_context(SimulatorProcess(directory / "simulator", "--log-level", "warning"))
        subjects = prepare(stack, directory, simulator, options)
        with ThreadPoolExecutor(max_workers=options.sessions + 4) as pool:
            day = Day(simulator, subjects, pool, options.factor)
            settled = day.run(strikes, seconds, options.settle)
            table = day.table(settled)
    head = (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores: {options.sessions} sessions, {options.hours:g}"
        f" simulated hours in {seconds / 60:.0f} min (factor {options.factor:g}), seed {options.seed}.\n\n"
    )
    print(head + table)
    if options.report is not None:
        method = options.report.read_text().partition(MARK)[0]
        options.report.write_text(method + MARK + "\n" + head + table)
    if day.violations:
        logger.error("logs and volumes are kept in %s", directory)
        return 1
    if options.directory is None:
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
