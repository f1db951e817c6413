"""The operator in a process that is forked from a Python that has loaded it, which takes tenths of a second."""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Final

import pytest

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["whatsapp_operator.controller.app"])


class OperatorProcess:
    """`python -m whatsapp_operator.controller ARGUMENTS`; what it prints is appended to the log."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            # Python 3.11 does not tell its fork server where modules are.
            patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
            forkserver.ensure_running()
        self._process = _CONTEXT.Process(target=_run, args=(arguments, str(log)))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, at its end."""
        self._process.join(timeout)
        code = self._process.exitcode
        assert code is not None, f"the operator has not ended within {timeout} s"
        return code

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _run(arguments: Sequence[str], log: str) -> None:
    from whatsapp_operator.controller import logs, settings
    from whatsapp_operator.controller.app import main

    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    found = settings.parse(arguments, version="unknown")
    logs.configure(found.log_format, found.log_level)
    sys.exit(main(found))
