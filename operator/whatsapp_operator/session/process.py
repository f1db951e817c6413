"""One worker process as the supervisor sees it: start, messages both ways, watchdog, end."""

import asyncio
import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from whatsapp_operator.session import wire
from whatsapp_operator.session.masking import mask

logger = logging.getLogger(__name__)

PING_INTERVAL: Final = 20.0
PONG_TIMEOUT: Final = 10.0
QUIT_TIMEOUT: Final = 1.0
END_TIMEOUT: Final = 1.0

_INHERITED: Final = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
_FATAL: Final = re.compile(r"panic:|fatal error:|SIG[A-Z]+:|Traceback|\w+Error\b")


def worker_environment(ca_dir: Path, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the worker is exec'ed with: Go reads its environment only once, and needs little of ours.

    Go takes every file in SSL_CERT_DIR besides the system's bundle, which is a file.
    """
    kept = {name: value for name, value in environment.items() if name in _INHERITED or name.startswith("PYTHON")}
    kept["NEONIZE_BOT_TAG"] = "off"
    if ca_dir.is_dir():
        kept["SSL_CERT_DIR"] = str(ca_dir)
    return kept


class WorkerProcess:
    """`on_event` gets every message of the worker; `on_exit` is called once, when it is gone by itself or hung.

    After `kill` nothing is called any more.
    """

    def __init__(self, on_event: Callable[[wire.WorkerEvent], None], on_exit: Callable[[], None]) -> None:
        self._on_event: Callable[[wire.WorkerEvent], None] | None = on_event
        self._on_exit = on_exit
        self._process: subprocess.Popen[bytes] | None = None
        self._exited = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._output_read = asyncio.Event()
        self._fatal = ""
        self._pings = 0
        self._pong = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return None if self._process is None or self._exited.is_set() else self._process.pid

    async def start(self, start: wire.Start, environment: Mapping[str, str], keep: Sequence[int] = ()) -> None:
        """`keep`: descriptors that the worker inherits. Raises OSError when no process can be made."""
        ours, theirs = socket.socketpair()
        output_read, output_write = os.pipe()
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: ASYNC220  (a fork and exec, nothing that waits)
                    [sys.executable, "-m", "whatsapp_operator.session.worker", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=output_write,
                    stderr=subprocess.STDOUT,
                    env=dict(environment),
                    pass_fds=(theirs.fileno(), *keep),
                    start_new_session=True,  # signals of a terminal are the supervisor's to handle
                )
        except OSError:
            ours.close()
            os.close(output_read)
            raise
        finally:
            os.close(output_write)
        loop = asyncio.get_running_loop()
        pidfd = os.pidfd_open(self._process.pid)
        loop.add_reader(pidfd, self._reap, pidfd)
        output = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(output), os.fdopen(output_read, "rb", 0))
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=wire.MAX_LINE)
        self.send(start)
        self._tasks = [
            asyncio.create_task(self._read_output(output)),
            asyncio.create_task(self._read_events(reader)),
        ]

    def send(self, command: wire.Command) -> None:
        """A worker that is gone does not mind."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(wire.encode(command))

    def kill(self) -> None:
        """SIGKILL: neonize does not end otherwise while a QR is shown."""
        self._on_event = None
        for task in self._tasks:
            task.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        if self._process is not None and not self._exited.is_set():
            self._process.kill()

    async def quit(self) -> None:
        """Let a connected worker close its connection, then kill it; about a second at most."""
        self._on_event = None
        self.send(wire.Quit())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIT_TIMEOUT):
                await self._exited.wait()
        self.kill()

    async def wait(self) -> None:
        await self._exited.wait()

    def _reap(self, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        if self._process is None:
            return
        self._process.wait()
        self._exited.set()

    async def _read_events(self, reader: asyncio.StreamReader) -> None:
        pinger: asyncio.Task[None] | None = None
        try:
            while line := await reader.readline():
                event = wire.decode_event(line)
                if isinstance(event, wire.WorkerStarted):
                    pinger = asyncio.create_task(self._ping())
                    self._tasks.append(pinger)
                if isinstance(event, wire.Pong):
                    self._pong.set()
                if self._on_event is not None:
                    self._on_event(event)
        except (wire.WireError, OSError, ValueError) as error:
            logger.warning("the worker cannot be understood: %s", mask(str(error)))
        finally:
            if pinger is not None:
                pinger.cancel()
        await self._settle()
        self._end("ended by itself")

    async def _settle(self) -> None:
        """Give a worker that has closed its channel the time to be gone, and its last words to be read."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT):
                await self._exited.wait()
                await self._output_read.wait()

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_INTERVAL)
            self._pings += 1
            self._pong.clear()
            self.send(wire.Ping(self._pings))
            try:
                async with asyncio.timeout(PONG_TIMEOUT):
                    await self._pong.wait()
            except TimeoutError:
                self._end("hung")
                return

    def _end(self, how: str) -> None:
        """The worker is of no more use: see that it is gone, and say so once."""
        if self._on_event is None:
            return
        status = None if self._process is None else self._process.returncode
        logger.warning("the worker %s, status %s%s", how, status, f": {self._fatal}" if self._fatal else "")
        self.kill()
        self._on_exit()

    async def _read_output(self, output: asyncio.StreamReader) -> None:
        """What the worker prints is its library's; a panic of the Go part shows only there."""
        while True:
            try:
                line = await output.readline()
            except ValueError:
                continue  # longer than the buffer: dropped
            if not line:
                self._output_read.set()
                return
            text = mask(line.decode("utf-8", "replace").rstrip())
            if not self._fatal and _FATAL.search(text):
                self._fatal = text
            logger.debug("worker: %s", text)
