"""A keyed work queue: each key is worked on by one worker at a time, waits once however often it is added, and failing
keys come back later and later without delaying the others.
"""

import asyncio
import heapq
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

_log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

BACKOFF_FIRST: Final = 0.2
BACKOFF_LAST: Final = 300.0


class WorkQueue(Generic[K]):
    """The state of the queue; pure: the time is always told to it.

    Args:
        jitter: returns a factor between 0.5 and 1 for each backoff.

    Attributes:
        most_failing: how many keys that have failed the last time may be worked on at once: these may hang until a
            time-out, and however many they are, the others are not to wait for them.
    """

    def __init__(self, jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0)) -> None:  # noqa: S311
        self._jitter = jitter
        self.most_failing = 1
        self._ready: deque[K] = deque()
        self._failing: deque[K] = deque()
        self._since: dict[K, float] = {}
        self._working: set[K] = set()
        self._working_again: set[K] = set()
        self._again: dict[K, float] = {}
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._pushed = 0
        self._failures: dict[K, int] = {}
        self._not_before: dict[K, float] = {}

    def __len__(self) -> int:
        """Keys ready to be worked on."""
        return len(self._ready) + len(self._failing)

    def add(self, key: K, now: float) -> None:
        """Work on the key as soon as possible; while it is worked on, once more afterwards."""
        self._due.pop(key, None)
        left = self._not_before.get(key, now) - now
        if left > 0:
            self.add_after(key, left, now)
            return
        self._not_before.pop(key, None)
        if key in self._working:
            self._again.setdefault(key, now)
        elif key not in self._since:
            self._since[key] = now
            (self._failing if key in self._failures else self._ready).append(key)

    def add_after(self, key: K, seconds: float, now: float) -> None:
        """Work on the key at that time, unless it is due earlier anyway."""
        due = now + seconds
        if key in self._since or key in self._again or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        self._pushed += 1
        heapq.heappush(self._heap, (due, self._pushed, key))

    def retry(self, key: K, now: float, *, at_least: float = 0.0) -> float:
        """Work on the key again after its backoff; returns the seconds until then.

        Whatever comes, it is not worked on within `at_least` so many seconds.
        """
        if at_least > 0:
            self._not_before[key] = now + at_least
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        seconds: float = max(at_least, min(BACKOFF_LAST, BACKOFF_FIRST * 2 ** min(failures, 20)) * self._jitter())
        self.add_after(key, seconds, now)
        return seconds

    def forget(self, key: K) -> None:
        """The key has succeeded: its backoff starts anew."""
        self._failures.pop(key, None)

    def drop(self, key: K) -> None:
        """The object behind the key is gone: forget delays and backoff too."""
        self._due.pop(key, None)
        self._not_before.pop(key, None)
        self._failures.pop(key, None)

    def next_due(self) -> float | None:
        """When the next delayed key is due."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> tuple[K, float] | None:
        """The next key and the seconds it has waited, None if none is ready; `done` must follow."""
        while (due := self.next_due()) is not None and due <= now:
            self.add(heapq.heappop(self._heap)[2], now)
        lanes = [self._ready] if len(self._working_again) >= self.most_failing else [self._ready, self._failing]
        waiting = [lane for lane in lanes if lane]
        if not waiting:
            return None
        lane = min(waiting, key=lambda lane: self._since[lane[0]])
        key = lane.popleft()
        self._working.add(key)
        if lane is self._failing:
            self._working_again.add(key)
        return key, now - self._since.pop(key)

    def done(self, key: K, now: float) -> None:
        """The key is not worked on any more."""
        self._working.discard(key)
        self._working_again.discard(key)
        if self._again.pop(key, None) is not None:
            self.add(key, now)


class Dispatcher(Generic[K]):
    """Workers that take keys from a queue.

    Args:
        work: called with each key; must not raise but for programming errors, which are logged and retried.
        on_wait: called with the seconds that a key has waited.
    """

    def __init__(
        self,
        queue: WorkQueue[K],
        work: Callable[[K], Awaitable[None]],
        *,
        clock: Callable[[], float],
        on_wait: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.queue = queue
        self._work = work
        self._clock = clock
        self._on_wait = on_wait
        self._sleepers: deque[asyncio.Event] = deque()

    def add(self, key: K) -> None:
        self.queue.add(key, self._clock())
        self._rouse()

    def add_after(self, key: K, seconds: float) -> None:
        self.queue.add_after(key, seconds, self._clock())
        self._rouse()

    def retry(self, key: K, *, at_least: float = 0.0) -> float:
        seconds = self.queue.retry(key, self._clock(), at_least=at_least)
        self._rouse()
        return seconds

    async def run(self, workers: int) -> None:
        """Work until cancelled."""
        self.queue.most_failing = max(1, workers // 2)
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(self._worker(), name=f"reconcile-{number}")

    async def _worker(self) -> None:
        while True:
            taken = self.queue.take(self._clock())
            if taken is None:
                await self._sleep()
                continue
            if len(self.queue):
                # Delayed keys that were due at the same time.
                self._rouse()
            key, waited = taken
            self._on_wait(waited)
            try:
                await self._work(key)
            except Exception:  # noqa: BLE001 - one key that fails must not end its worker
                _log.exception("reconcile of %s failed", key)
                self.retry(key)
            finally:
                self.queue.done(key, self._clock())
                # A key that has failed may have waited for this place.
                self._rouse()

    def _rouse(self) -> None:
        """Wake one worker, if one sleeps."""
        if self._sleepers:
            self._sleepers.popleft().set()

    async def _sleep(self) -> None:
        due = self.queue.next_due()
        woken = asyncio.Event()
        self._sleepers.append(woken)
        try:
            async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                await woken.wait()
        except TimeoutError:
            self._sleepers = deque(other for other in self._sleepers if other is not woken)
