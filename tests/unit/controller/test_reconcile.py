from collections.abc import Sequence
from typing import Any, cast

import pytest

from tests.unit.controller.builders import OPTIONS, UID, connected_report
from tests.unit.controller.builders import session as session_model
from whatsapp_operator.api import names
from whatsapp_operator.api.models import WhatsAppSession
from whatsapp_operator.api.reasons import Reason
from whatsapp_operator.controller.actions import Action, CheckNamespace, CreatePod
from whatsapp_operator.controller.cache import Cache
from whatsapp_operator.controller.deletion import UNLINK_SECONDS
from whatsapp_operator.controller.events import Event, EventWriter
from whatsapp_operator.controller.execute import Executor
from whatsapp_operator.controller.metrics import Metrics
from whatsapp_operator.controller.observe import Observer
from whatsapp_operator.controller.observed import Problem
from whatsapp_operator.controller.queue import Dispatcher, WorkQueue
from whatsapp_operator.controller.reconcile import Reconciler
from whatsapp_operator.controller.rollout import Places
from whatsapp_operator.controller.settings import MaxUnavailable
from whatsapp_operator.controller.views import Key
from whatsapp_operator.kube.errors import KubeError, UndeclaredFieldError

KEY = Key("team", "shop")


def body(version: int = 1, *, deleting: bool = False, status: Any = None) -> dict[str, Any]:
    of = session_model(deleting=deleting, status=status)
    found = of.model_dump(mode="json", by_alias=True, exclude_none=True)
    found["metadata"]["resourceVersion"] = str(version)
    return found


class ExecutorStandIn:
    """Refuses pods; everything else is done, and what it learns is told to the cache."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.done: list[type] = []
        self.refusal: KubeError | None = None

    async def run(self, session: WhatsAppSession, actions: Sequence[Action]) -> tuple[Problem, ...]:
        self.done += [type(action) for action in actions]
        if any(isinstance(action, CheckNamespace) for action in actions):
            self._cache.namespaces_terminating[session.metadata.uid] = False
        refused = any(isinstance(action, CreatePod) for action in actions)
        return (Problem(Reason.POD_REJECTED, "quota"),) if refused else ()

    async def write_status(self, session: WhatsAppSession, status: dict[str, Any]) -> dict[str, Any]:
        if self.refusal is not None:
            raise self.refusal
        return status

    async def remove_orphan(self, key: Key) -> None:
        self.done.append(type(key))


class EventsStandIn:
    def __init__(self) -> None:
        self.told: list[str] = []

    def add(self, session: WhatsAppSession, event: Event, *, namespace_gone: bool = False) -> None:
        self.told.append(event.reason)


class Scene:
    """A reconciler, with the clock set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.cache = Cache(clock=lambda: self.now)
        self.executor = ExecutorStandIn(self.cache)
        self.events = EventsStandIn()
        self.queue: WorkQueue[Key] = WorkQueue(jitter=lambda: 1.0)
        self.dispatcher = Dispatcher(self.queue, self.work, clock=lambda: self.now)
        self.places = Places(MaxUnavailable(1))
        self.reconciler = Reconciler(
            cache=self.cache,
            observer=Observer(self.cache, OPTIONS, namespace="system", clock=lambda: self.now),
            executor=cast(Executor, self.executor),
            event_writer=cast(EventWriter, self.events),
            metrics=Metrics(self.cache, per_object=False),
            options=OPTIONS,
            places=self.places,
            clock=lambda: self.now,
        )

    async def work(self, key: Key) -> None:
        await self.reconciler.work(key, self.dispatcher)

    async def turn(self) -> float | None:
        """Work once; returns the seconds until the next time."""
        self.queue.add(KEY, self.now)
        self.queue.take(self.now)
        await self.work(KEY)
        self.queue.done(KEY, self.now)
        due = self.queue.next_due()
        return None if due is None else due - self.now


async def deleted_after_failures(failures: int) -> Scene:
    scene = Scene()
    for _ in range(failures):
        scene.queue.retry(KEY, scene.now)
    labels = {names.LABEL_SESSION: "shop", names.LABEL_SESSION_UID: UID}
    volume = {"namespace": "team", "name": "wa-shop", "uid": "v", "resourceVersion": "1", "labels": labels}
    scene.cache.put_volume({"metadata": volume})
    scene.cache.namespaces_ready.add("team")
    scene.cache.put_session(body(deleting=True, status={"session": connected_report(), "primary": False}))
    return scene


async def test_a_deletion_begins_its_backoff_anew() -> None:
    scene = await deleted_after_failures(15)
    assert await scene.turn() == pytest.approx(0.2)
    assert scene.executor.done[:2] == [CheckNamespace, CreatePod]
    assert await scene.turn() == pytest.approx(0.4)


async def test_a_device_that_is_left_with_its_namespace_is_told() -> None:
    scene = await deleted_after_failures(0)
    scene.cache.namespaces_terminating[UID] = True
    await scene.turn()
    assert scene.events.told[:1] == ["UnlinkTimedOut"]


async def test_a_deletion_that_is_refused_is_looked_at_when_its_time_is_over() -> None:
    scene = await deleted_after_failures(0)
    await scene.turn()
    for _ in range(15):
        scene.queue.retry(KEY, scene.now)
    scene.now += UNLINK_SECONDS - 1
    assert await scene.turn() == pytest.approx(1.0)


async def test_a_definition_that_is_too_old_is_told_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    scene = await deleted_after_failures(0)
    scene.executor.refusal = UndeclaredFieldError(".status.rollout: field not declared in schema", code=500)
    assert await scene.turn() == pytest.approx(0.2)
    assert scene.events.told[-1:] == ["DefinitionOutdated"]
    [error] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert error.endswith("kubectl apply --server-side -f crds/")
