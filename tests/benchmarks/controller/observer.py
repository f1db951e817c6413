"""What a client with a watch of its own sees, and when."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from tests.benchmarks.controller.connection import Client

Event = dict[str, Any]


class Observer:
    """Follows one collection in the background; waits for what a predicate makes of its events."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Event, float], None]] = []

    async def follow(self, client: Client, path: str) -> None:
        async for event in client.watch(path):
            at = time.monotonic()
            for listener in list(self._listeners):
                listener(event, at)

    @contextlib.contextmanager
    def listening(self, listener: Callable[[Event, float], None]) -> Any:
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    async def times(
        self, wanted: int, match: Callable[[Event], str | None], *, seconds: float, act: Callable[[], Any] | None = None
    ) -> dict[str, float]:
        """When each of so many names was first matched (time.monotonic); `act` is awaited once it listens.

        Raises:
            TimeoutError: they were not all seen in time.
        """
        found: dict[str, float] = {}
        done = asyncio.Event()

        def look(event: Event, at: float) -> None:
            name = match(event)
            if name is not None and name not in found:
                found[name] = at
                if len(found) == wanted:
                    done.set()

        with self.listening(look):
            if act is not None:
                await act()
            try:
                async with asyncio.timeout(seconds):
                    await done.wait()
            except TimeoutError:
                raise TimeoutError(f"{len(found)} of {wanted} within {seconds:.0f} s") from None
        return found


@contextlib.asynccontextmanager
async def observing(client: Client, path: str) -> AsyncIterator[Observer]:
    observer = Observer()
    task = asyncio.create_task(observer.follow(client, path))
    try:
        yield observer
        if task.done():
            task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def condition(kind: str, status: str = "True") -> Callable[[Event], str | None]:
    """Matches a session that has the condition."""

    def match(event: Event) -> str | None:
        found: Event = event["object"]
        for item in found.get("status", {}).get("conditions", ()):
            if item["type"] == kind and item["status"] == status:
                return str(found["metadata"]["name"])
        return None

    return match
