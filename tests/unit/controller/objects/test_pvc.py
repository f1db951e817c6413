from typing import Any

import pytest

from tests.unit.controller.builders import session
from whatsapp_operator.api import names
from whatsapp_operator.controller.objects import pvc


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        ({}, {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "256Mi"}}}),
        (
            {"size": "1Gi", "storageClassName": "fast", "accessMode": "ReadWriteOnce"},
            {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
                "storageClassName": "fast",
            },
        ),
    ],
)
def test_spec(storage: dict[str, Any], expected: dict[str, Any]) -> None:
    assert pvc.build(session(spec={"storage": storage}), "1")["spec"] == expected


def test_binding_is_by_label_alone() -> None:
    metadata = pvc.build(session(), "1")["metadata"]
    assert metadata["name"] == "wa-shop"
    assert metadata["labels"][names.LABEL_SESSION_UID] == session().metadata.uid
    assert "ownerReferences" not in metadata
