"""The table of rights in docs/security.md is what the chart grants."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from charts.render import render

ROOT = Path(__file__).parents[3]


def rows(manifests: list[dict[str, Any]]) -> Iterator[str]:
    for role in manifests:
        if role["kind"] not in ("ClusterRole", "Role"):
            continue
        where = f" in `{role['metadata']['namespace']}`" if role["kind"] == "Role" else ""
        for rule in role["rules"]:
            resources = ", ".join(f"`{name}`" for name in rule["resources"])
            named = f" named `{rule['resourceNames'][0]}`" if "resourceNames" in rule else ""
            yield f"| {role['metadata']['name']}{where} | {resources}{named} | {', '.join(rule['verbs'])} |"


def test_the_table_of_rights_is_what_the_chart_grants() -> None:
    page = (ROOT / "docs/security.md").read_text()
    table = page.partition("| role | resource | verbs |\n| --- | --- | --- |\n")[2].partition("\n\n")[0]
    assert sorted(table.splitlines()) == sorted(rows(render()))
