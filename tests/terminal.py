"""A real terminal: a program on a pty of a given size, and what a person sees of it."""

import contextlib
import copy
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import pyte

from tests import qr_reader
from tests.waiting import eventually

_ALTERNATE: Final = 1049 << 5  # as pyte numbers private modes
# As pyte names the two colours of a QR.
_TONES: Final = {"000000": True, "ffffff": False}


class _Screen(pyte.Screen):
    """With the alternate screen, which pyte leaves out."""

    _kept: Any = None

    def set_mode(self, *modes: int, **options: Any) -> None:
        super().set_mode(*modes, **options)
        if options.get("private") and _ALTERNATE >> 5 in modes:
            self._kept = copy.deepcopy((self.buffer, self.cursor))
            self.erase_in_display(2)

    def reset_mode(self, *modes: int, **options: Any) -> None:
        super().reset_mode(*modes, **options)
        if options.get("private") and _ALTERNATE >> 5 in modes and self._kept is not None:
            buffer, self.cursor = self._kept
            self._kept = None
            self.buffer.clear()
            self.buffer.update(buffer)


class Terminal:
    """Runs the program until it ends or the block is left; a context manager.

    `raw` is all that was ever written to the terminal.
    """

    def __init__(
        self, command: Sequence[str], *, columns: int, lines: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self._screen = _Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self.raw = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        told = {**os.environ, "TERM": "xterm-256color", "PYTHONFAULTHANDLER": "1", **(environment or {})}
        for unwanted in ("COLUMNS", "LINES", "COLORTERM", "NO_COLOR", "FORCE_COLOR"):
            if unwanted not in (environment or {}):
                told.pop(unwanted, None)
        self._process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=told, start_new_session=True, preexec_fn=_take
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        os.close(self._master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def resize(self, columns: int, lines: int) -> None:
        with self._lock:
            self._screen.resize(lines, columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    @property
    def lines(self) -> list[str]:
        """What is on the screen, without the blanks at the ends of lines."""
        with self._lock:
            return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).strip("\n")

    def qr(self) -> str | None:
        """The text of the QR on the screen, None while there is none that can be read."""
        with self._lock:
            buffer = self._screen.buffer
            cells = [[buffer[y][x] for x in range(self._screen.columns)] for y in range(self._screen.lines)]
        rows: list[list[bool]] = []
        for line in cells:
            # A block is in the colour of the letter above, and of the background below.
            pairs = [
                (_TONES.get(cell.fg if cell.data == "▀" else cell.bg), _TONES.get(cell.bg))
                for cell in line
                if cell.bg in _TONES
            ]
            if pairs:
                rows += [[bool(top) for top, _ in pairs], [bool(bottom) for _, bottom in pairs]]
        if not rows or len({len(row) for row in rows}) != 1:
            return None
        try:
            return qr_reader.read(rows)
        except qr_reader.NotReadableError:
            return None

    def wait_for(self, text: str, *, seconds: float = 120) -> None:
        """Until the text is on the screen."""
        try:
            eventually(lambda: text in self.text, f"{text!r} on the screen", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text}") from None

    def wait_for_qr(self, *, other_than: str | None = None, seconds: float = 120) -> str:
        def shown() -> str | None:
            found = self.qr()
            return found if found != other_than else None

        try:
            return eventually(shown, "a QR on the screen", seconds=seconds)
        except AssertionError:
            raise AssertionError(f"no QR on the screen:\n{self.text}") from None

    def ended(self, *, seconds: float = 120) -> int:
        """The exit code, at the end, when all that was written is on the screen.

        Raises:
            AssertionError: it has not ended; with what it was about, if it is a Python.
        """
        try:
            code = self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)
            self._process.wait()
            self._reader.join()
            raise AssertionError(f"it has not ended within {seconds} s:\n{self.text}") from None
        self._reader.join()
        return code

    def _read(self) -> None:
        # EIO: the last who had the other end open has closed it.
        with contextlib.suppress(OSError):
            while part := os.read(self._master, 65536):
                with self._lock:
                    self.raw += part
                    self._stream.feed(part)


def _take() -> None:
    """Make standard input the terminal that Ctrl-C comes from, also for tests that were started in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
