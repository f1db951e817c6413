from typing import Any

import pytest

from tests.unit.controller.builders import NOW, OPTIONS, connected_report, observed, session, told_pod
from whatsapp_operator.api import names
from whatsapp_operator.controller import delivery
from whatsapp_operator.controller.actions import PatchPod
from whatsapp_operator.controller.cache import Cache
from whatsapp_operator.controller.observed import Observed
from whatsapp_operator.controller.plan import plan

STALE = "0" * 16


def told(follows: str | None = STALE, *, age: float = 0.0, **changes: Any) -> Observed:
    """A connected session whose pod follows the document of this hash; None for the one that it was told."""
    pod = told_pod(session(), **changes)
    said = follows if follows is not None else names.desired_state_hash(pod.desired_state or "")
    of = session(status={"session": connected_report(desiredStateHash=said)})
    return observed(of, pod=pod, desired_age=age)


@pytest.mark.parametrize(
    ("nudges", "age", "nudged", "after"),
    [
        (0, 0.5, False, 1.5),
        (0, 2.0, True, None),
        (1, 2.0, False, 4.0),
        (1, 6.0, True, None),
        (2, 13.0, False, 1.0),
        (5, 126.0, True, None),
        (6, 1000.0, False, None),
    ],
)
def test_a_change_that_does_not_arrive_is_nudged_at_growing_intervals(
    nudges: int, age: float, nudged: bool, after: float | None
) -> None:
    found = delivery.ensure(told(age=age, nudges=nudges))
    assert bool(found.actions) is nudged
    assert found.after == after
    for action in found.actions:
        assert action.annotations == ((names.ANNOTATION_NUDGES, str(nudges + 1)),)


def test_what_has_arrived_is_left_alone() -> None:
    assert delivery.ensure(told(None, age=100.0)) == delivery.Delivery()


def test_a_pod_that_does_not_say_what_it_follows_is_left_alone() -> None:
    of = session(status={"session": connected_report()})
    assert delivery.ensure(observed(of, pod=told_pod(of), desired_age=100.0)) == delivery.Delivery()


def test_the_plan_nudges_and_looks_again() -> None:
    waiting = plan(told(age=0.5), OPTIONS, NOW)
    assert not any(isinstance(action, PatchPod) for action in waiting.actions)
    assert waiting.requeue_after == 1.5
    (action,) = plan(told(age=3.0), OPTIONS, NOW).actions
    assert isinstance(action, PatchPod)
    assert (names.ANNOTATION_NUDGES, "1") in action.annotations


def test_the_age_of_a_desired_state_begins_anew_with_each_change() -> None:
    clock = iter((10.0, 20.0, 30.0))
    cache = Cache(lambda: next(clock))

    def seen(document: str, version: str) -> tuple[float, float]:
        metadata = {
            "namespace": "team",
            "name": "wa-shop",
            "uid": "u",
            "resourceVersion": version,
            "labels": {names.LABEL_SESSION: "shop"},
            "annotations": {names.ANNOTATION_DESIRED_STATE: document},
        }
        key = cache.put_pod({"metadata": metadata})
        assert key is not None
        view = cache.pods.get(key)
        assert view is not None
        return view.first_seen, view.desired_since

    assert [seen("one", "1"), seen("one", "2"), seen("two", "3")] == [(10.0, 10.0), (10.0, 10.0), (10.0, 30.0)]
