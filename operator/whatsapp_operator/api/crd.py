"""Generates the CustomResourceDefinition from the models: `python -m whatsapp_operator.api.crd`."""

import sys
from typing import Any

import yaml
from pydantic import BaseModel

from whatsapp_operator.api import names
from whatsapp_operator.api.models import WhatsAppSession, WhatsAppSessionSpec, WhatsAppSessionStatus
from whatsapp_operator.api.reasons import ConditionType

_NAME_RULES = [
    {
        "rule": "self.metadata.name.size() <= 52",
        "message": "metadata.name must have at most 52 characters, because what the session owns is named after it",
        "fieldPath": ".metadata.name",
    },
    {
        "rule": "!self.metadata.name.contains('.')",
        "message": "metadata.name must not contain dots, because pods are named after it",
        "fieldPath": ".metadata.name",
    },
]


def _structural(node: Any, definitions: dict[str, Any]) -> Any:
    """Rewrites a JSON schema of pydantic's into a structural one: no references, titles or unions with null."""
    if isinstance(node, list):
        return [_structural(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    node = dict(node)
    if reference := node.pop("$ref", None):
        node = {**definitions[reference.rsplit("/", 1)[1]], **node}
    if options := node.pop("anyOf", None):
        options = [option for option in options if option != {"type": "null"}]
        # An enumeration or any other text (condition types) is a string to the API server.
        chosen = options[0] if len(options) == 1 else {"type": "string"}
        node = {**chosen, **node}
        return _structural(node, definitions)
    if node.get("default", ...) is None:
        del node["default"]
    node.pop("title", None)
    if "propertyNames" in node:
        # CEL bounds map keys by the schema's size; structural schemas know no propertyNames.
        node.pop("propertyNames")
    if isinstance(node.get("properties"), dict):
        node["properties"] = {name: _structural(schema, definitions) for name, schema in node["properties"].items()}
        node.pop("additionalProperties", None)
        if node.get("default") is not None:
            node["default"] = {}
    return {
        key: value if key in ("properties", "default", "enum", "required") else _structural(value, definitions)
        for key, value in node.items()
    }


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The structural OpenAPI v3 schema of a model."""
    schema = model.model_json_schema(by_alias=True)
    structural: dict[str, Any] = _structural(schema, schema.pop("$defs", {}))
    return structural


def _condition(kind: ConditionType, field: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


def _column(name: str, path: str, kind: str = "string", *, wide: bool = False) -> dict[str, Any]:
    return {"name": name, "type": kind, "jsonPath": path, **({"priority": 1} if wide else {})}


def custom_resource_definition() -> dict[str, Any]:
    """The whole definition, ready to be applied."""
    spec, status = schema_of(WhatsAppSessionSpec), schema_of(WhatsAppSessionStatus)
    # Without a status, kstatus takes an object that the operator has not looked at yet for one that is as it should be.
    status["default"] = {"observedGeneration": -1}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{names.PLURAL}.{names.GROUP}",
            "labels": {names.LABEL_APP_NAME: "whatsapp-operator", names.LABEL_APP_PART_OF: "whatsapp-operator"},
        },
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.KIND.lower(),
                "shortNames": ["was", "wasession"],
                "categories": ["whatsapp"],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "selectableFields": [{"jsonPath": ".spec.tenant"}, {"jsonPath": ".spec.phone"}],
                    "additionalPrinterColumns": [
                        _column("Tenant", ".spec.tenant"),
                        _column("Phone", ".spec.phone"),
                        _column("Phase", ".status.phase"),
                        _column("QR", _condition(ConditionType.QR_READY)),
                        _column("Paired", _condition(ConditionType.AUTH_PAIRED)),
                        _column("Connected", _condition(ConditionType.CONNECTED)),
                        _column("Primary", ".status.primary", "boolean"),
                        _column("Age", ".metadata.creationTimestamp", "date"),
                        _column("Linked", ".status.phone", wide=True),
                        _column("Reason", _condition(ConditionType.READY, "reason"), wide=True),
                        _column("Message", _condition(ConditionType.READY, "message"), wide=True),
                        _column("Node", ".status.pod.node", wide=True),
                        _column("Restarts", ".status.pod.restarts", "integer", wide=True),
                        _column("Since", ".status.connection.since", "date", wide=True),
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": WhatsAppSession.__doc__,
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
                                "spec": spec,
                                "status": status,
                            },
                            "x-kubernetes-validations": _NAME_RULES,
                        }
                    },
                }
            ],
        },
    }


def render() -> str:
    """The definition as the YAML text that is committed under crds/."""
    header = "# Generated by `make crds` from operator/whatsapp_operator/api/models.py; edit that.\n"
    return header + yaml.safe_dump(custom_resource_definition(), sort_keys=False, width=120)


if __name__ == "__main__":
    sys.stdout.write(render())
