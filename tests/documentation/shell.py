"""Runs blocks of shell commands as a reader would: copied as they stand, in a folder, with kubectl on the PATH."""

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.documentation.shell_blocks import Block


@dataclass(frozen=True)
class Shell:
    """`directory` is where the commands are run; `environment` is added to this process's."""

    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, block: Block, *, seconds: float = 120) -> str:
        """Standard output of the block; it ends at the first command that fails, also within a pipe.

        Raises:
            AssertionError: a command failed, or the time ran out; with place and output.
        """
        command = ["bash", "-euo", "pipefail", "-c", block.text]
        process = subprocess.Popen(
            command, cwd=self.directory, env={**os.environ, **self.environment}, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            raise AssertionError(f"{block.place}: not within {seconds} s:\n{block.text}{output}{errors}") from None
        if process.returncode:
            raise AssertionError(f"{block.place}: exit code {process.returncode}:\n{block.text}{output}{errors}")
        return output
