"""The chart's README is made from its values, and its schema knows the same keys."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from charts import readme
from charts.render import CHART

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def test_the_readme_is_the_generated_one() -> None:
    assert readme.README.read_text() == readme.render(), "run `make docs` and commit the result"


def test_a_value_without_a_comment_is_refused() -> None:
    assert list(readme.described("# One.\none:\n  two: 2\nthree:\n  # Four.\n  four: 4\n")) == [
        ("one", "One."),
        ("three.four", "Four."),
    ]
    with pytest.raises(readme.UndocumentedError, match=r"three\.four"):
        list(readme.described("three:\n  four: 4\n"))


def leaves(values: Any, path: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}{key}.")
        else:
            yield path + key


def test_every_value_is_in_the_readme() -> None:
    described = {path for path, _ in readme.described((CHART / "values.yaml").read_text())}
    assert [leaf for leaf in leaves(VALUES) if not any(f"{leaf}.".startswith(f"{path}.") for path in described)] == []


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    return SCHEMA["definitions"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def open_objects(node: dict[str, Any], path: str) -> Iterator[str]:
    """Where any key may be, with a value of any kind."""
    node = resolved(node)
    if node.get("type") == "object" and node.get("additionalProperties", True) is True:
        yield path
    for name, child in node.get("properties", {}).items():
        yield from open_objects(child, f"{path}.{name}")
    if "items" in node:
        yield from open_objects(node["items"], f"{path}[]")


def test_no_object_takes_any_key_but_those_whose_form_is_the_api_server_s() -> None:
    terms = [f".operator.affinity.{kind}" for kind in ("nodeAffinity", "podAffinity", "podAntiAffinity")]
    assert sorted(open_objects(SCHEMA, "")) == sorted([".global", *terms])


def differences(node: dict[str, Any], values: dict[str, Any], path: str) -> Iterator[str]:
    node = resolved(node)
    properties = {name: child for name, child in node.get("properties", {}).items() if f"{path}.{name}" != ".global"}
    if "required" not in node:  # its keys are the user's, such as labels and resources
        return
    for name in sorted(properties.keys() ^ values.keys()):
        yield f"{path}.{name}"
    for name in properties.keys() & values.keys():
        if isinstance(values[name], dict):
            yield from differences(properties[name], values[name], f"{path}.{name}")


def test_schema_and_values_know_the_same_keys() -> None:
    assert list(differences(SCHEMA, VALUES, "")) == []
