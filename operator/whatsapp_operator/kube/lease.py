"""Leader election on a coordination.k8s.io/Lease.

Our own, because `kubernetes.aio.leaderelection` renews without a time-out on its requests, measures by the wall clock
and cannot give the lease up: it neither stops a frozen leader nor hands over at once.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final

from whatsapp_operator.kube.client import LEASES, Client, Object
from whatsapp_operator.kube.errors import AlreadyExistsError, ConflictError, KubeError, NotFoundError, NotLeadingError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """All in seconds. A lease not renewed for `duration` may be taken; its holder stops writing after `deadline`."""

    duration: float = 9.0
    deadline: float = 6.0
    retry: float = 1.5


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What a Lease says; version is its resourceVersion, which every renewal changes."""

    holder: str
    duration: float
    transitions: int
    version: str

    @classmethod
    def parse(cls, body: Object) -> "LeaseRecord":
        spec = body.get("spec") or {}
        return cls(
            holder=spec.get("holderIdentity") or "",
            duration=float(spec.get("leaseDurationSeconds") or 0),
            transitions=int(spec.get("leaseTransitions") or 0),
            version=body["metadata"]["resourceVersion"],
        )


class Step(Enum):
    CREATE = auto()
    RENEW = auto()
    TAKE_OVER = auto()
    WAIT = auto()


def decide(record: LeaseRecord | None, unchanged_for: float, identity: str) -> Step:
    """What a candidate does about the lease.

    Args:
        record: the lease, None if there is none.
        unchanged_for: seconds for which this process has seen that version of it, by its own clock, so that the clocks
            of two machines are never compared.
        identity: the candidate.
    """
    if record is None:
        return Step.CREATE
    if record.holder == identity:
        return Step.RENEW
    if not record.holder or unchanged_for >= record.duration:
        return Step.TAKE_OVER
    return Step.WAIT


_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


class Election:
    """One candidate for one Lease.

    Args:
        client: of its own, so that renewals never queue behind other requests.
        identity: unique among the candidates, also across restarts of one.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes = LeaseTimes(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._times = times
        self._clock = clock
        self._record: LeaseRecord | None = None
        self._seen_at = 0.0
        self._renewed_at: float | None = None
        self._answered_at: float | None = None
        self._released = False

    @property
    def leading(self) -> bool:
        """Whether this process may write: its last renewal is younger than the deadline."""
        renewed = self._renewed_at is not None and self._clock() - self._renewed_at < self._times.deadline
        return renewed and not self._released

    @property
    def watching(self) -> bool:
        """Whether the API server has answered about the lease within the lease's duration."""
        return self._answered_at is not None and self._clock() - self._answered_at < self._times.duration

    def check(self) -> None:
        """Refuse a write of a process that does not lead.

        Raises:
            NotLeadingError: always when `leading` is false.
        """
        if not self.leading:
            raise NotLeadingError("this process does not hold the lease")

    async def acquire(self) -> None:
        """Return once this process leads."""
        while True:
            if await self._try():
                return
            await asyncio.sleep(self._times.retry)

    async def hold(self) -> None:
        """Renew; return once the lease is lost."""
        while self.leading:
            await asyncio.sleep(self._times.retry)
            await self._try()
        self._renewed_at = None

    async def release(self) -> None:
        """Give the lease up at once, and for good, so that another candidate need not wait for its end."""
        leading, self._released = self.leading, True
        if not leading:
            return
        try:
            async with asyncio.timeout(self._times.retry):
                await self._give_up()
        except (KubeError, TimeoutError) as error:
            _log.warning("could not release the lease, it runs out by itself: %s", error or type(error).__name__)

    async def _give_up(self) -> None:
        # A renewal that was cut off may have changed the version.
        while self._record is not None and self._record.holder == self._identity:
            patch = {"metadata": {"resourceVersion": self._record.version}, "spec": {"holderIdentity": ""}}
            try:
                await self._client.merge_patch(LEASES, self._namespace, self._name, patch)
                return
            except ConflictError:
                await self._look(self._clock())

    async def _try(self) -> bool:
        # The lease counts from before the request, as the answer may come late.
        started = self._clock()
        try:
            async with asyncio.timeout(self._times.deadline / 2):
                record = await self._step(started)
        except (KubeError, TimeoutError) as error:
            _log.warning("lease %s: %s", self._name, error or type(error).__name__)
            return self.leading
        self._answered_at = started
        if record is None:
            self._renewed_at = None
            return False
        self._record, self._seen_at, self._renewed_at = record, started, started
        return True

    async def _step(self, started: float) -> LeaseRecord | None:
        """The lease as held by this process, None if it is not."""
        if not self.leading:
            await self._look(started)
        # Twice, because a renewal whose answer was lost has changed the version, but not the holder.
        for _ in range(2):
            if self._released:
                return None
            step = decide(self._record, started - self._seen_at, self._identity)
            if step is Step.WAIT:
                return None
            try:
                return await self._write(step)
            except (AlreadyExistsError, ConflictError, NotFoundError):
                await self._look(started)
        return None

    async def _write(self, step: Step) -> LeaseRecord:
        now = datetime.now(UTC).strftime(_TIME_FORMAT)
        spec: Object = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._times.duration),
            "renewTime": now,
        }
        if self._record is None:
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name},
                "spec": spec | {"acquireTime": now, "leaseTransitions": 0},
            }
            return LeaseRecord.parse(await self._client.create(LEASES, self._namespace, body))
        if step is Step.TAKE_OVER:
            spec |= {"acquireTime": now, "leaseTransitions": self._record.transitions + 1}
        patch = {"metadata": {"resourceVersion": self._record.version}, "spec": spec}
        return LeaseRecord.parse(await self._client.merge_patch(LEASES, self._namespace, self._name, patch))

    async def _look(self, now: float) -> None:
        record: LeaseRecord | None = None
        with contextlib.suppress(NotFoundError):
            record = LeaseRecord.parse(await self._client.get(LEASES, self._namespace, self._name))
        if record != self._record:
            self._record, self._seen_at = record, now
