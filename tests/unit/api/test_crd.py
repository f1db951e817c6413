from pathlib import Path

import yaml

from whatsapp_operator.api import crd

COMMITTED = Path(__file__).parents[3] / "crds" / "whatsapp-operator.io_whatsappsessions.yaml"


def _nodes(schema: object, path: str = "") -> list[tuple[str, dict[str, object]]]:
    if not isinstance(schema, dict):
        return []
    found = [(path, schema)] if "type" in schema or "x-kubernetes-int-or-string" in schema else []
    for name, child in (schema.get("properties") or {}).items():
        found += _nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        found += _nodes(schema.get(key), f"{path}[]")
    return found


def test_committed_definition_is_the_generated_one() -> None:
    assert COMMITTED.read_text() == crd.render(), "run `make crds` and commit the result"


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


def test_every_string_and_list_of_the_spec_is_bounded() -> None:
    schema = crd.custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    nodes = _nodes(schema["properties"]["spec"], "spec")
    unbounded = [
        path
        for path, node in nodes
        if (node.get("type") == "string" and "maxLength" not in node and "enum" not in node)
        or (node.get("type") == "array" and "maxItems" not in node)
    ]
    assert unbounded == []


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
