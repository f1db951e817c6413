"""Waiting for a condition with a deadline: tests never sleep for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T | None], what: str, *, seconds: float = 30, every: float = 0.1) -> T:
    """Returns the first true value of the probe.

    Raises:
        AssertionError: it did not come true within the deadline; names what was waited for and the last value.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what} (last: {value!r})")
        time.sleep(every)
