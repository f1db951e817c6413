from pathlib import Path
from typing import Any

import pytest
import yaml

from whatsapp_operator.api import crd
from whatsapp_operator.api.reasons import PairingMethod, Reason
from whatsapp_operator.session import report
from whatsapp_operator.session.model import Credentials, Desired, FinishedAttempt, Journal
from whatsapp_operator.session.state import State

ROOT = Path(__file__).parents[3]


def _nodes(schema: object, path: str = "") -> list[tuple[str, dict[str, object]]]:
    if not isinstance(schema, dict):
        return []
    found = [(path, schema)] if "type" in schema or "x-kubernetes-int-or-string" in schema else []
    for name, child in (schema.get("properties") or {}).items():
        found += _nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        found += _nodes(schema.get(key), f"{path}[]")
    return found


@pytest.mark.parametrize("directory", ["crds", "charts/whatsapp-operator/files"])
def test_committed_definition_is_the_generated_one(directory: str) -> None:
    committed = ROOT / directory / "whatsapp-operator.io_whatsappsessions.yaml"
    assert committed.read_text() == crd.render(), "run `make crds` and commit the result"


def test_every_field_of_spec_and_status_is_described() -> None:
    schema = crd.custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    properties = [
        (path, node)
        for part in ("spec", "status")
        for path, node in _nodes(schema["properties"][part], part)
        if not path.endswith("[]")
    ]
    assert len(properties) > 80
    assert [path for path, node in properties if not node.get("description")] == []


# Bytes of JSON that a key of a map has at most.
_KEY = 320


def _most(schema: Any) -> int:
    """Bytes of JSON that a value of the schema has at most; KeyError where it has no bounds."""
    if "enum" in schema:
        return max(len(value) for value in schema["enum"]) + 2
    if "x-kubernetes-int-or-string" in schema:
        return int(schema["maxLength"]) + 2
    match schema["type"]:
        case "string":
            # What has a pattern is ASCII.
            return (1 if "pattern" in schema else 6) * int(schema["maxLength"]) + 2
        case "array":
            return int(schema["maxItems"]) * (_most(schema["items"]) + 1) + 2
        case "object" if "additionalProperties" in schema:
            return int(schema["maxProperties"]) * (_most(schema["additionalProperties"]) + _KEY + 4) + 2
        case "object":
            return sum(len(name) + 4 + _most(part) for name, part in schema["properties"].items()) + 2
        case _:
            return 20


def test_every_part_of_the_spec_is_bounded_and_so_is_the_whole() -> None:
    schema = crd.custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    parts = {name: _most(part) for name, part in schema["properties"]["spec"]["properties"].items()}
    assert sum(parts.values()) < 3 << 19, parts  # what etcd takes
    text = yaml.safe_dump(schema["properties"]["spec"])
    assert "preserve-unknown-fields" not in text


def test_schema_is_structural_and_free_of_references() -> None:
    text = yaml.safe_dump(crd.custom_resource_definition())
    for keyword in ("$ref", "anyOf", "propertyNames", "title:", "const:"):
        assert keyword not in text, keyword


def test_printer_columns_show_what_matters_first() -> None:
    columns = crd.custom_resource_definition()["spec"]["versions"][0]["additionalPrinterColumns"]
    assert [c["name"] for c in columns if not c.get("priority")] == [
        "Tenant",
        "Phone",
        "Phase",
        "QR",
        "Paired",
        "Connected",
        "Primary",
        "Age",
    ]


def _unknown(value: object, schema: dict[str, Any], path: str) -> list[str]:
    """What of the value the API server would drop."""
    if isinstance(value, list):
        return [found for item in value for found in _unknown(item, schema["items"], f"{path}[]")]
    if not isinstance(value, dict):
        return []
    known = schema.get("properties", {})
    return [f"{path}.{name}" for name in value if name not in known] + [
        found for name in value if name in known for found in _unknown(value[name], known[name], f"{path}.{name}")
    ]


def test_the_definition_has_every_field_that_a_session_pod_reports() -> None:
    attempt = FinishedAttempt(
        seq=1,
        id="4be1",
        method=PairingMethod.QR_CODE,
        started_at=1.0,
        finished_at=2.0,
        succeeded=True,
        reason=Reason.PAIRED,
        seconds_to_qr=0.4,
        seconds_to_scan=8.1,
        seconds_to_connected=1.2,
    )
    state = State(
        was_opened=True,
        desired=Desired(),
        journal=Journal(history=(attempt,)),
        credentials=Credentials(present=True, valid=True, jid="15551230001:3@s.whatsapp.net"),
    )
    body = report.build(state, pod_uid="u", boot_id="b") | {"reportedAt": report.timestamp(0.0)}
    schema = crd.custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    session = schema["properties"]["status"]["properties"]["session"]
    assert _unknown(body, session, "session") == []
    assert body.keys() == session["properties"].keys()
    assert (
        body["pairing"]["history"][0].keys()
        == session["properties"]["pairing"]["properties"]["history"]["items"]["properties"].keys()
    )
