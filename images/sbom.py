"""The software in an image as a CycloneDX document, the same for the same image."""

import json
import uuid
from collections.abc import Mapping
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from images.inventory import Inventory, Package
from tests.cluster.errors import ClusterError

SCHEMA = SchemaVersion.V1_6


def document(name: str, version: str, inventory: Inventory) -> dict[str, Any]:
    image = f"pkg:oci/{name}@{inventory.digest.replace(':', '%3A')}"
    algorithm, digest = inventory.digest.split(":")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SCHEMA.to_version(),
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, image).urn,
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": image,
                "name": name,
                "version": version,
                "hashes": [{"alg": {"sha256": "SHA-256"}[algorithm], "content": digest}],
                "licenses": [{"expression": "Apache-2.0"}],
                "purl": image,
            }
        },
        "components": [_component(package) for package in inventory.packages],
        "dependencies": [
            {"ref": image, "dependsOn": [package.purl for package in inventory.packages]},
            *_dependencies(inventory),
        ],
    }


def _component(package: Package) -> dict[str, Any]:
    licences: list[dict[str, Any]] = [{"expression": package.licence}]
    if package.kind == "deb":
        licences = [{"license": {"name": name}} for name in package.licence.split(", ")]
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "licenses": licences,
        "purl": package.purl,
    }
    if package.source:
        key = "debian:source" if package.kind == "deb" else "go:linked-into"
        found["properties"] = [{"name": key, "value": package.source}]
    return found


def _dependencies(inventory: Inventory) -> list[dict[str, Any]]:
    purls = {package.name: package.purl for package in inventory.packages if package.kind == "pypi"}
    linked = [package.purl for package in inventory.packages if package.kind == "golang"]
    return [
        {
            "ref": package.purl,
            "dependsOn": sorted(
                {purls[name] for name in package.requires if name in purls}
                | set(linked if package.name == "neonize" else ())
            ),
        }
        for package in inventory.packages
        if package.kind == "pypi"
    ]


def render(document: Mapping[str, Any]) -> str:
    """The document as JSON. Raises ClusterError if it is none by CycloneDX's schema."""
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    if error := JsonStrictValidator(SCHEMA).validate_str(text):
        raise ClusterError(f"the bill of materials breaks the schema: {error}")
    return text
