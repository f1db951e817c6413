import pytest

from tests.unit.controller.builders import pod
from whatsapp_operator.controller.recovery import Replacement, replacement
from whatsapp_operator.controller.views import PodView


@pytest.mark.parametrize(
    ("found", "age", "expected"),
    [
        pytest.param(pod(applied_hash="h"), 5, Replacement(), id="as wanted"),
        pytest.param(pod(applied_hash="h", spec_hash="old"), 5, Replacement(), id="another spec of the same pod"),
        pytest.param(pod(applied_hash="old", spec_hash="old"), 5, Replacement(now=True), id="another spec"),
        pytest.param(pod(applied_hash="old", spec_hash="s"), 5, Replacement(outdated=True), id="another operator"),
        pytest.param(pod(applied_hash="old"), 5, Replacement(outdated=True), id="an operator without spec hashes"),
        pytest.param(pod(applied_hash=None, spec_hash="s"), 5, Replacement(outdated=True), id="annotation removed"),
        pytest.param(pod(applied_hash="old", spec_hash="old", deleting=True), 5, Replacement(), id="going already"),
        pytest.param(pod(applied_hash="old", phase="Failed"), 60, Replacement(now=True), id="outdated and evicted"),
        pytest.param(pod(applied_hash="h", phase="Failed"), 60, Replacement(now=True), id="evicted"),
        pytest.param(pod(applied_hash="h", phase="Failed"), 4, Replacement(after=6), id="refused by its node"),
        pytest.param(pod(applied_hash="h", phase="Succeeded"), 60, Replacement(now=True), id="ended"),
        pytest.param(pod(applied_hash="h", node_lost=True), 600, Replacement(), id="never by force"),
    ],
)
def test_when_a_pod_is_replaced(found: PodView, age: float, expected: Replacement) -> None:
    assert replacement(found, age, applied_hash="h", spec_hash="s") == expected
