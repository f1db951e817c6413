import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from whatsapp_operator.kube.client import Client, Resource
from whatsapp_operator.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    NotLeadingError,
    UnreachableError,
)
from whatsapp_operator.kube.lease import Election, LeaseRecord, LeaseTimes, Step, decide

TIMES = LeaseTimes(duration=9.0, deadline=6.0, retry=0.001)


def record(holder: str) -> LeaseRecord:
    return LeaseRecord(holder, 9.0, 0, "1")


@pytest.mark.parametrize(
    ("found", "unchanged_for", "step"),
    [
        (None, 0.0, Step.CREATE),
        (record("me"), 0.0, Step.RENEW),
        (record("me"), 100.0, Step.RENEW),
        (record("other"), 0.0, Step.WAIT),
        (record("other"), 8.9, Step.WAIT),
        (record("other"), 9.0, Step.TAKE_OVER),
        (record(""), 0.0, Step.TAKE_OVER),
    ],
)
def test_what_a_candidate_does(found: LeaseRecord | None, unchanged_for: float, step: Step) -> None:
    assert decide(found, unchanged_for, "me") is step


class Api:
    """One Lease, with the preconditions of the API server; `down` makes it unreachable, `deaf` loses its answers."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.down = False
        self.deaf = 0
        self.writes = 0
        self.reads = 0

    async def get(self, _: Resource, __: str, ___: str) -> dict[str, Any]:
        self.reads += 1
        self._check()
        if self.lease is None:
            raise NotFoundError("none", code=404)
        return self.lease

    async def create(self, _: Resource, __: str, body: dict[str, Any]) -> dict[str, Any]:
        self._check()
        if self.lease is not None:
            raise AlreadyExistsError("there", code=409)
        return self._write(dict(body["spec"]))

    async def merge_patch(self, _: Resource, __: str, ___: str, patch: dict[str, Any]) -> dict[str, Any]:
        self._check()
        if self.lease is None:
            raise NotFoundError("none", code=404)
        if patch["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ConflictError("changed", code=409)
        return self._write({**self.lease["spec"], **patch["spec"]})

    def _check(self) -> None:
        if self.down:
            raise UnreachableError("down")

    def _write(self, spec: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.writes += 1
        self.lease = {"metadata": {"resourceVersion": str(self.version)}, "spec": spec}
        if self.deaf:
            self.deaf -= 1
            raise UnreachableError("the answer was lost")
        return self.lease


class Candidate:
    def __init__(self, api: Api, identity: str) -> None:
        self.now = 0.0
        self.api = api
        client = cast(Client, api)
        self.election = Election(
            client, namespace="system", name="leader", identity=identity, times=TIMES, clock=lambda: self.now
        )

    async def try_once(self) -> bool:
        """Whether it leads after it has looked twice."""
        task = asyncio.create_task(self.election.acquire())
        looked = self.api.reads
        await until(lambda: task.done() or self.api.reads >= looked + 2)
        task.cancel()
        return self.election.leading


async def until(predicate: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not predicate():  # noqa: ASYNC110 - what is waited for knows nothing of the test
            await asyncio.sleep(0)


async def test_the_first_one_leads_and_the_second_waits_for_the_end_of_its_lease() -> None:
    api = Api()
    first, second = Candidate(api, "first"), Candidate(api, "second")
    assert await first.try_once()
    assert not await second.try_once()
    assert second.election.watching
    second.now = 8.9
    assert not await second.try_once()
    second.now = 9.0
    assert await second.try_once()
    assert api.lease is not None
    assert api.lease["spec"]["holderIdentity"] == "second"
    assert api.lease["spec"]["leaseTransitions"] == 1


async def test_a_renewal_is_seen_by_its_version_not_by_its_time() -> None:
    api = Api()
    first, second = Candidate(api, "first"), Candidate(api, "second")
    await first.try_once()
    await second.try_once()
    second.now = 8.0
    first.now = 1000.0
    assert await first.try_once()
    second.now = 9.5
    assert not await second.try_once()


async def test_writes_are_refused_as_soon_as_the_deadline_is_over() -> None:
    candidate = Candidate(Api(), "me")
    with pytest.raises(NotLeadingError):
        candidate.election.check()
    await candidate.try_once()
    candidate.now = 5.9
    candidate.election.check()
    candidate.now = 6.0
    with pytest.raises(NotLeadingError):
        candidate.election.check()


async def test_a_leader_that_reaches_nobody_stops_before_another_may_start() -> None:
    api = Api()
    candidate = Candidate(api, "me")
    await candidate.try_once()
    api.down = True
    holding = asyncio.create_task(candidate.election.hold())
    candidate.now = 6.0
    async with asyncio.timeout(10):
        await holding
    assert not candidate.election.leading
    assert TIMES.deadline < TIMES.duration


async def test_a_leader_whose_lease_was_taken_stops() -> None:
    api = Api()
    first, second = Candidate(api, "first"), Candidate(api, "second")
    await first.try_once()
    await second.try_once()
    second.now = 9.0
    assert await second.try_once()
    async with asyncio.timeout(10):
        await first.election.hold()
    assert not first.election.leading


async def test_a_renewal_whose_answer_was_lost_is_made_again() -> None:
    api = Api()
    candidate = Candidate(api, "me")
    await candidate.try_once()
    api.deaf = 1
    holding = asyncio.create_task(candidate.election.hold())
    await until(lambda: api.writes >= 4)
    holding.cancel()
    assert candidate.election.leading


async def test_a_released_lease_is_taken_at_once() -> None:
    api = Api()
    first, second = Candidate(api, "first"), Candidate(api, "second")
    await first.try_once()
    await second.try_once()
    await first.election.release()
    assert not first.election.leading
    assert await second.try_once()


async def test_a_lease_is_released_although_its_last_renewal_was_cut_off() -> None:
    """Stopping ends a renewal in mid-air: the version that is remembered is then an old one."""
    api = Api()
    candidate = Candidate(api, "me")
    await candidate.try_once()
    api.deaf = 1
    assert api.lease is not None
    with pytest.raises(UnreachableError):
        api._write(api.lease["spec"])
    await candidate.election.release()
    assert api.lease["spec"]["holderIdentity"] == ""


async def test_a_lease_that_another_has_taken_is_not_released() -> None:
    api = Api()
    candidate = Candidate(api, "me")
    await candidate.try_once()
    assert api.lease is not None
    api._write({**api.lease["spec"], "holderIdentity": "another"})
    await candidate.election.release()
    assert api.lease["spec"]["holderIdentity"] == "another"


async def test_releasing_without_holding_writes_nothing() -> None:
    api = Api()
    await Candidate(api, "me").election.release()
    assert api.writes == 0


async def test_a_lease_that_was_deleted_is_made_again() -> None:
    api = Api()
    candidate = Candidate(api, "me")
    await candidate.try_once()
    api.lease = None
    holding = asyncio.create_task(candidate.election.hold())
    await until(lambda: api.lease is not None)
    holding.cancel()
    assert candidate.election.leading


class SlowRenewals(Api):
    """Whose answer to a renewal waits for `gate`."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.waiting = False

    async def merge_patch(self, resource: Resource, namespace: str, name: str, patch: dict[str, Any]) -> dict[str, Any]:
        if patch["spec"]["holderIdentity"]:
            self.waiting = True
            await self.gate.wait()
        return await super().merge_patch(resource, namespace, name, patch)


async def test_a_renewal_on_its_way_does_not_take_back_what_is_released() -> None:
    api = SlowRenewals()
    candidate = Candidate(api, "me")
    await candidate.try_once()
    holding = asyncio.create_task(candidate.election.hold())
    await until(lambda: api.waiting)
    await candidate.election.release()
    api.gate.set()
    async with asyncio.timeout(10):
        await holding
    assert api.lease is not None
    assert api.lease["spec"]["holderIdentity"] == ""
    assert not candidate.election.leading
