"""One worker process as the supervisor sees it: start, messages both ways, watchdog, end."""

import asyncio
import contextlib
import itertools
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from whatsapp_operator.api.masking import mask
from whatsapp_operator.session import wire

logger = logging.getLogger(__name__)

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
    """`on_event` gets every message of the worker, until `kill` or `quit`; it is asked every `ping` seconds."""

    def __init__(self, on_event: Callable[[wire.WorkerEvent], None], ping: float) -> None:
        self._on_event = on_event
        self._ping = ping
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._ended = False  # by us: nothing is heard of it any more
        self._exited = asyncio.Event()
        self._started = asyncio.Event()
        self._pong = asyncio.Event()
        self._fatal = ""

    @property
    def pid(self) -> int | None:
        return None if self._process is None or self._exited.is_set() else self._process.pid

    async def run(self, start: wire.Start, environment: Mapping[str, str], keep: Sequence[int] = ()) -> None:
        """From exec to exit; `keep` are descriptors that the worker inherits.

        Raises OSError when no process can be made. Cancelling kills the worker.
        """
        if self._ended:
            return
        ours, output = self._spawn(environment, keep)
        try:
            reader, self._writer = await asyncio.open_connection(sock=ours, limit=wire.MAX_LINE)
            self.send(start)
            async with asyncio.TaskGroup() as tasks:
                talking = tasks.create_task(self._read_output(await _reader(output)))
                watching = tasks.create_task(self._watch())
                await self._read_events(reader)
                watching.cancel()
                # It has closed its channel, so it is ending; its last words may say why.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(END_TIMEOUT):
                        await asyncio.gather(self._exited.wait(), asyncio.shield(talking))
                talking.cancel()
        finally:
            self._kill()
        # What the kernel cannot end, as its volume hangs, is of no more use either.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT):
                await self._exited.wait()
        if not self._ended:
            status = None if self._process is None else self._process.returncode
            logger.warning("the worker ended, status %s%s", status, f": {self._fatal}" if self._fatal else "")

    def send(self, command: wire.Command) -> None:
        """A worker that is gone does not mind."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(wire.encode(command))

    def kill(self) -> None:
        """SIGKILL: neonize does not end otherwise while a QR is shown."""
        self._ended = True
        self._kill()

    async def quit(self) -> None:
        """Let a connected worker close its connection, then kill it; about a second at most."""
        self._ended = True
        self.send(wire.Quit())
        try:
            async with asyncio.timeout(QUIT_TIMEOUT):
                await self._exited.wait()
        except TimeoutError:
            self._kill()

    def _spawn(self, environment: Mapping[str, str], keep: Sequence[int]) -> tuple[socket.socket, int]:
        """Start it; returns our end of the channel and the pipe of its output."""
        ours, theirs = socket.socketpair()
        output_read, output_write = os.pipe()
        try:
            with theirs:
                self._process = subprocess.Popen(
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
        pidfd = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(pidfd, self._reap, pidfd)
        return ours, output_read

    def _reap(self, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        if self._process is not None:
            self._process.wait()
        self._exited.set()

    def _kill(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        if self._process is not None and not self._exited.is_set():
            self._process.kill()

    async def _read_events(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                event = wire.decode_event(line)
                if isinstance(event, wire.WorkerStarted):
                    self._started.set()
                if isinstance(event, wire.Pong):
                    self._pong.set()
                if not self._ended:
                    self._on_event(event)
        except (OSError, ValueError) as error:  # WireError and a line that is too long are ValueErrors
            logger.warning("the worker cannot be understood: %s", error)

    async def _watch(self) -> None:
        """End a worker that does not answer: its interpreter or the library hangs.

        While it loads its library it answers nothing, and on a busy node that may take long.
        """
        await self._started.wait()
        for number in itertools.count(1):
            await asyncio.sleep(self._ping)
            self._pong.clear()
            self.send(wire.Ping(number))
            try:
                async with asyncio.timeout(PONG_TIMEOUT):
                    await self._pong.wait()
            except TimeoutError:
                if self._pong.is_set():
                    continue  # it is this process that was late
                logger.warning("the worker hangs and is killed")
                self._kill()
                return

    async def _read_output(self, output: asyncio.StreamReader) -> None:
        """What the worker prints is its library's; a panic of the Go part shows only there."""
        while True:
            try:
                line = await output.readline()
            except ValueError:
                continue  # longer than the buffer: dropped
            if not line:
                return
            text = mask(line.decode("utf-8", "replace").rstrip())
            if not self._fatal and _FATAL.search(text):
                self._fatal = text
            logger.debug("worker: %s", text)


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    pipe = os.fdopen(descriptor, "rb", 0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader
