"""The supervisor: executes the machine's commands, feeds it with events, and serves what others see of it."""

import asyncio
import contextlib
import logging
import math
import os
import random
import secrets as random_tokens
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from whatsapp_operator.api import names
from whatsapp_operator.api.reasons import MachineState, Reason
from whatsapp_operator.session import desired, http, logs, machine, messages, report, wire
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
from whatsapp_operator.session.credentials import Volume, VolumeError
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
from whatsapp_operator.session.kubernetes_api import KubernetesAPI
from whatsapp_operator.session.limits import LIMITS, Limits
from whatsapp_operator.session.metrics import Metrics, resident_bytes
from whatsapp_operator.session.process import WorkerProcess, worker_environment
from whatsapp_operator.session.secrets import Publisher
from whatsapp_operator.session.settings import Settings
from whatsapp_operator.session.state import WITH_WORKER, Phase, State, machine_reason, machine_state

logger = logging.getLogger(__name__)

T = TypeVar("T")

FAREWELL_TIMEOUT: Final = 2.0
"""Seconds for the last writes to the API server."""


class Clock:
    """Wall time that never goes back: it follows what the node's clock is put forward, and no deadline moves away."""

    def __init__(self) -> None:
        self._ahead = -math.inf
        """Of the seconds that the node has run or slept."""

    def now(self) -> float:
        since = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._ahead = max(self._ahead, time.time() - since)
        return self._ahead + since


class _Stopped(Exception):  # noqa: N818
    """Ends the task group."""


class Supervisor:
    def __init__(self, settings: Settings, limits: Limits = LIMITS) -> None:
        self._settings = settings
        self._limits = limits
        self._clock = Clock()
        self._volume = Volume(settings.data_dir, settings.tenant, settings.session_uid)
        self._disk = ThreadPoolExecutor(1, "volume")  # a volume may stall for minutes
        self._metrics = Metrics()
        self._boot_id = random_tokens.token_hex(8)
        self._state, self._first_commands = machine.begin()
        self._events: asyncio.Queue[tuple[WorkerProcess | None, Event]] = asyncio.Queue()
        self._parts = asyncio.TaskGroup()
        self._worker: WorkerProcess | None = None
        self._requests = 0
        self._sends: dict[int, asyncio.Future[wire.SendDone]] = {}
        self._stop = asyncio.Event()
        api = KubernetesAPI(settings.api_host, settings.api_port, settings.service_account_dir)
        base = f"/apis/{names.API_VERSION}/namespaces/{settings.namespace}/{names.PLURAL}"
        status = f"{base}/{settings.session}/status"
        secret = f"/api/v1/namespaces/{settings.namespace}/secrets/{names.owned_name(settings.session)}"
        self._reporter = report.Reporter(
            lambda document: api.merge_patch(status, {"status": {"session": document}}), self._clock.now
        )
        self._publisher = Publisher(
            lambda patch: api.merge_patch(secret, patch),
            published=lambda: self._put(Published()),
            cleared=lambda: self._put(Concealed()),
            refused=lambda code: self._put(PublishFailed(code)),
        )
        self._messages = messages.MessageServer(self._send_message)

    @property
    def attempt_id(self) -> str | None:
        """Correlation id of the open pairing attempt."""
        attempt = self._state.journal.attempt
        return None if attempt is None else attempt.id

    def stop(self) -> None:
        """Begin to end: `run` returns after the last writes, within some two seconds."""
        self._stop.set()
        self._put(Tick())

    async def run(self) -> None:
        """Until `stop`. Raises what a part of it raises, as a group: there is no half of a supervisor."""
        settings = self._settings
        server = await http.serve(
            settings.http_host,
            settings.http_port,
            {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._render_metrics},
        )
        socket = await self._messages.serve(settings.message_socket)
        logger.info("the session starts")
        try:
            async with asyncio.TaskGroup() as self._parts:
                deciding = self._parts.create_task(self._run_machine())
                watching = self._parts.create_task(self._watch_desired())
                self._parts.create_task(self._reporter.run())
                self._parts.create_task(self._publisher.run())
                await self._stop.wait()
                watching.cancel()
                await asyncio.wait({deciding}, timeout=FAREWELL_TIMEOUT)
                deciding.cancel()
                await self._farewell()
                raise _Stopped
        except* _Stopped:
            logger.info("the session ends")
        finally:
            server.close()
            socket.close()
            self._disk.shutdown()  # before the lock is given up
            self._volume.close()

    # The machine.

    def _put(self, event: Event, source: WorkerProcess | None = None) -> None:
        """An event for the machine; one of a worker counts for nothing once that worker has been killed."""
        self._events.put_nowait((source, event))

    async def _run_machine(self) -> None:
        """Until `stop`, and then to the end of the step that is being taken."""
        for answer in await self._execute(self._first_commands):
            await self._feed(answer)
        while not self._stop.is_set():
            due = machine.next_deadline(self._state, self._limits)
            wait = None if due is None else max(due - self._clock.now(), 0.0)
            try:
                async with asyncio.timeout(wait):
                    source, event = await self._events.get()
            except TimeoutError:
                source, event = None, Tick()
            if source is None or source is self._worker:
                await self._feed(event)

    async def _on_disk(self, call: Callable[[], T]) -> T:
        """What the volume answers; the loop goes on meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, call)

    async def _feed(self, event: Event) -> None:
        """One event, and those that follow from its commands."""
        pending = deque([event])
        at_first = self._state
        while pending:
            event = pending.popleft()
            moment = Moment(self._clock.now(), random.random(), random_tokens.token_hex(8))  # noqa: S311
            before = self._state
            state, commands = machine.step(before, event, moment, self._limits)
            try:
                for command in commands:
                    if isinstance(command, Save):
                        await self._on_disk(partial(self._volume.save, command.journal))
            except VolumeError as error:
                logger.warning("the volume cannot be written: %s", error)
                if isinstance(event, DesiredChanged):
                    pending.appendleft(event)  # it does not come again
                pending.appendleft(VolumeFailed(error.reason))
                continue
            self._state = state
            if logger.isEnabledFor(logging.DEBUG):  # by their names: the values are credentials
                done = ", ".join(type(command).__name__ for command in commands)
                logger.debug("%s: %s, %s: %s", type(event).__name__, before.phase.name, state.phase.name, done)
            self._observe(before, event)
            pending.extend(await self._execute(commands))
        if self._state is not at_first:
            self._reporter.update(self._report(self._state))

    async def _execute(self, commands: tuple[Command, ...]) -> list[Event]:
        """Returns the events that answer the commands."""
        answers: list[Event] = []
        for command in commands:
            try:
                match command:
                    case OpenVolume():
                        answers.append(Opened(*await self._on_disk(self._volume.open)))
                    case Stamp():
                        await self._on_disk(self._volume.stamp)
                    case Inspect():
                        answers.append(Inspected(await self._on_disk(self._volume.inspect)))
                    case MoveAside():
                        logger.warning("the credentials cannot be read and are moved aside")
                        await self._on_disk(self._volume.move_aside)
                        answers.append(Inspected(await self._on_disk(self._volume.inspect)))
                    case Wipe():
                        await self._on_disk(self._volume.wipe)
                        answers.append(Wiped())
                    case StartWorker(display_name, pair_phone):
                        self._start_worker(display_name, pair_phone)
                    case KillWorker():
                        self._kill_worker()
                    case LogOut():
                        if self._worker is not None:
                            self._worker.send(wire.Logout())
                    case Publish():
                        self._publisher.show(command)
                    case Conceal():
                        self._publisher.show(None)
                    case Save():
                        pass  # done before the transition was adopted
            except VolumeError as error:
                logger.warning("the volume cannot be used: %s", error)
                answers.append(VolumeFailed(error.reason))
        return answers

    def _observe(self, before: State, event: Event) -> None:
        """Logs and metrics of a transition."""
        state, metrics = self._state, self._metrics
        old, new = machine_state(before), machine_state(state)
        reason = machine_reason(state)
        if (old, machine_reason(before)) != (new, reason):
            logger.info("%s: %s%s", new, reason, f" ({state.detail})" if state.detail else "")
        metrics.clear("whatsapp_session_machine_state")
        metrics.set("whatsapp_session_machine_state", 1, state=new.value)
        metrics.set("whatsapp_session_connected", float(new is MachineState.CONNECTED))
        lost = state.journal.disconnects - before.journal.disconnects
        if before.opened and lost > 0:
            metrics.add("whatsapp_session_connections_lost_total", lost, reason=str(state.journal.last_reason))
        if before.opened and state.journal.seq > before.journal.seq:
            last = state.journal.history[-1]
            result = "Succeeded" if last.succeeded else "Failed"
            logger.info("pairing attempt %s: %s, %s", last.id, result, last.reason)
            metrics.add("whatsapp_session_pairing_attempts_total", result=result, reason=last.reason.value)
        match event:
            case wire.Connected():
                metrics.add("whatsapp_session_connects_total")
            case wire.KeepAliveTimeout():
                metrics.add("whatsapp_session_keepalive_timeouts_total")
            case wire.Pong(_, _, _, silence, latency) if state.phase in WITH_WORKER:
                if silence is not None:
                    metrics.set("whatsapp_session_silence_seconds", silence)
                if latency is not None:
                    metrics.set("whatsapp_session_keepalive_latency_seconds", latency)
            case wire.Undecryptable():
                metrics.add("whatsapp_session_undecryptable_messages_total")
            case WorkerExited():
                metrics.add("whatsapp_session_worker_exits_total")
            case wire.ConnectEnded(kind, status, detail):
                logger.warning("the connection failed: %s %s %s", kind, status or "", detail)
            case wire.PairingCodeRefused(kind, detail):
                logger.warning("no pairing code: %s %s", kind, detail)
            case wire.LogoutDone(error) if error:
                logger.warning("the device could not be logged out: %s", error)
            case _:
                pass

    def _report(self, state: State) -> dict[str, Any]:
        return report.build(state, pod_uid=self._settings.pod_uid, boot_id=self._boot_id)

    # The worker.

    def _start_worker(self, display_name: str, pair_phone: str | None) -> None:
        worker = WorkerProcess(lambda event: self._on_worker_event(worker, event), self._limits.ping)
        self._worker = worker
        self._metrics.add("whatsapp_session_worker_starts_total")
        start = wire.Start(
            database=str(self._volume.database),
            display_name=display_name,
            proxy_url=self._settings.proxy_url,
            pair_phone=pair_phone,
            verbose=logger.isEnabledFor(logging.DEBUG),
        )
        self._parts.create_task(self._run_worker(worker, start))

    async def _run_worker(self, worker: WorkerProcess, start: wire.Start) -> None:
        keep = () if self._volume.lock is None else (self._volume.lock,)
        try:
            await worker.run(start, worker_environment(self._settings.ca_dir), keep)
        except OSError as error:
            logger.warning("no worker can be started: %s", error.strerror)
        self._put(WorkerExited(), worker)

    def _kill_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
        for name in ("whatsapp_session_silence_seconds", "whatsapp_session_keepalive_latency_seconds"):
            self._metrics.clear(name)
        for waiting in self._sends.values():
            if not waiting.done():
                waiting.set_exception(messages.SendError("the session is not connected"))
        self._sends.clear()

    def _on_worker_event(self, worker: WorkerProcess, event: wire.WorkerEvent) -> None:
        match event:
            case wire.MessageReceived():
                self._metrics.add("whatsapp_session_messages_total", direction="in")
                self._messages.deliver(event)
            case wire.SendDone():
                waiting = self._sends.pop(event.request, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(event)
            case _:
                self._put(event, worker)

    async def _send_message(self, to: str, text: str) -> wire.SendDone:
        """Raises SendError."""
        if self._worker is None or self._state.phase is not Phase.CONNECTED:
            raise messages.SendError("the session is not connected")
        self._requests += 1
        request = self._requests
        answer: asyncio.Future[wire.SendDone] = asyncio.get_running_loop().create_future()
        self._sends[request] = answer
        try:
            self._worker.send(wire.Send(request, to, text))
            done = await answer
        finally:
            self._sends.pop(request, None)
        if done.error:
            logger.warning("a message was not sent: %s", done.error)
            raise messages.SendError("WhatsApp has not taken the message; the session's log says why")
        self._metrics.add("whatsapp_session_messages_total", direction="out")
        return done

    # What comes in and what is seen from outside.

    async def _watch_desired(self) -> None:
        level = logs.Level(self._settings.log_level)
        async for document in desired.watch(self._settings.desired_file):
            level.follow(document.log_level)
            self._put(DesiredChanged(document))

    def _healthz(self) -> tuple[int, str]:
        return 200, "ok\n"

    def _readyz(self) -> tuple[int, str]:
        """Ready to do its work: the volume and the desired state are there. Whether it is connected is a condition."""
        ready = self._state.opened and self._state.desired is not None
        return (200, "ok\n") if ready else (503, f"{machine_reason(self._state)}\n")

    def _render_metrics(self) -> tuple[int, str]:
        metrics = self._metrics
        for what, writer in (("report", self._reporter), ("secret", self._publisher)):
            metrics.set("whatsapp_session_api_writes_total", writer.written, what=what, outcome="accepted")
            metrics.set("whatsapp_session_api_writes_total", writer.failed, what=what, outcome="failed")
        metrics.set("whatsapp_session_resident_memory_bytes", resident_bytes(os.getpid()), process="supervisor")
        pid = self._worker.pid if self._worker is not None else None
        metrics.set("whatsapp_session_resident_memory_bytes", resident_bytes(pid) if pid else 0.0, process="worker")
        return 200, metrics.render()

    async def _farewell(self) -> None:
        """End the worker, clear a QR that is still shown, and say that the pod is stopping."""
        worker, self._worker = self._worker, None
        if self._state.shown is not None:
            self._publisher.show(None)
        journal = self._state.journal
        if self._state.phase is Phase.CONNECTED:
            journal = replace(journal, last_used_at=self._clock.now())
            with contextlib.suppress(VolumeError, TimeoutError):
                async with asyncio.timeout(FAREWELL_TIMEOUT):
                    await self._on_disk(partial(self._volume.save, journal))
        if self._state.phase not in (Phase.HELD, Phase.FAULTY, Phase.UNLINKED):
            last = replace(
                self._state,
                journal=journal,
                phase=Phase.BOOTING,
                shown=None,
                connected_since=None,
                fault=Reason.POD_NOT_READY,
                detail="The session pod is stopping.",
            )
            self._reporter.update(self._report(last))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_TIMEOUT):
                await asyncio.gather(self._publisher.flush(), self._reporter.flush(), self._end_worker(worker))

    async def _end_worker(self, worker: WorkerProcess | None) -> None:
        if worker is None:
            return
        if self._state.phase is Phase.CONNECTED:
            await worker.quit()
        else:
            worker.kill()
