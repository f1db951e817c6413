"""Where the CPU time of a process goes: py-spy samples it from outside, so that it is hardly slowed down."""

import asyncio
import signal
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

PROGRAM: Final = ("uv", "tool", "run", "py-spy@0.4.3")
"""Run from where uv keeps its tools: what only measures is not locked with what is tested."""
RATE: Final = 200
WAITING: Final = ".select (selectors.py"
"""On a busy machine a process that has been woken, but has no CPU yet, looks as if it worked there."""
Stacks = dict[str, int]
"""Frames of a stack, outermost first, separated by semicolons; and the number of samples."""


@asynccontextmanager
async def profiling(pid: int, *, enabled: bool) -> AsyncIterator[Stacks]:
    """The stacks in which the process was seen at work, complete at the end.

    Raises:
        RuntimeError: py-spy cannot be run, or may not look at the process.
    """
    stacks: Stacks = {}
    if not enabled:
        yield stacks
        return
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "stacks"
        uv = Path(sysconfig.get_path("scripts")) / PROGRAM[0]
        options = ("--pid", str(pid), "--format", "raw", "--rate", str(RATE), "--output", str(output))
        # A duration that does not end by itself.
        process = await asyncio.create_subprocess_exec(
            str(uv) if uv.exists() else PROGRAM[0], *PROGRAM[1:], "record", *options, "--duration", "86400",
            stdout=sys.stderr, stderr=sys.stderr,
        )  # fmt: skip
        await asyncio.sleep(2)
        try:
            yield stacks
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            await process.wait()
        if not output.exists():
            raise RuntimeError(f"py-spy has left no profile (exit code {process.returncode})")
        for line in output.read_text().splitlines():
            stack, _, samples = line.rpartition(" ")
            stacks[stack] = stacks.get(stack, 0) + int(samples)


def working(stacks: Stacks) -> Stacks:
    return {stack: samples for stack, samples in stacks.items() if WAITING not in stack.rpartition(";")[2]}


def by_package(stacks: Stacks) -> list[tuple[str, float]]:
    """Share of the time in each package's own code, largest first."""
    tally: Counter[str] = Counter()
    for stack, samples in stacks.items():
        tally[package(stack.rpartition(";")[2])] += samples
    return _shares(tally, stacks)


def by_function(stacks: Stacks, prefix: str = "whatsapp_operator") -> list[tuple[str, float]]:
    """Share of the time in each function of the package and in all that it calls, largest first."""
    tally: Counter[str] = Counter()
    for stack, samples in stacks.items():
        for name in {_function(frame) for frame in stack.split(";") if package(frame) == prefix}:
            tally[name] += samples
    return _shares(tally, stacks)


def package(frame: str) -> str:
    """Of a frame such as `send (aiohttp/client.py:5)`: the first folder, or the module."""
    path = frame.rpartition(" (")[2].partition(":")[0].rstrip(")")
    return path.partition("/")[0].removesuffix(".py")


def _function(frame: str) -> str:
    name, _, place = frame.rpartition(" (")
    module = place.partition(":")[0].partition("/")[2].removesuffix(".py").replace("/", ".")
    return f"{module}.{name}"


def _shares(tally: Counter[str], stacks: Stacks) -> list[tuple[str, float]]:
    total = sum(stacks.values()) or 1
    return [(name, samples / total) for name, samples in tally.most_common()]
