"""What is committed is what is made, and the pages have a place for every alert."""

import json
import re
from collections import Counter

import pytest
import yaml

from charts.observability import DASHBOARD, OUTPUTS, ROOT, dashboard, pages, rules
from charts.render import render
from whatsapp_operator.api.reasons import Phase, Reason

RUNBOOKS = ROOT / "docs/runbooks.md"
METRICS = {series.name: series for series in (*pages.operator_series(), *pages.session_series())}
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum")}
EXPRESSIONS = [
    *((rule.record, rule.expr) for rule in rules.recordings()),
    *((alert.name, alert.expr) for alert in rules.alerts()),
    *dashboard.queries(json.loads(dashboard.render())),
]


@pytest.mark.parametrize("path", OUTPUTS)
def test_what_is_committed_is_what_make_docs_makes(path: str) -> None:
    assert (ROOT / path).read_text() == OUTPUTS[path]()


def test_the_chart_brings_rules_and_dashboard_as_they_are() -> None:
    there = {
        "metrics": {"prometheusRule": {"enabled": True, "runbooksURL": "https://x/y"}, "dashboard": {"enabled": True}}
    }
    found = {manifest["kind"]: manifest for manifest in render(there)}
    expected = rules.render().replace(rules.RUNBOOKS_URL, "https://x/y")
    assert found["PrometheusRule"]["spec"] == yaml.safe_load(expected)
    [shown] = [m["data"] for m in render(there) if m["kind"] == "ConfigMap" and "dashboard" in m["metadata"]["name"]]
    assert [json.loads(text) for text in shown.values()] == [json.loads(dashboard.render())]


def test_every_alert_has_its_runbook() -> None:
    sections = re.findall(r"^## (\w+)$", RUNBOOKS.read_text(), re.MULTILINE)
    assert sections == [alert.name for alert in rules.alerts()]


def test_every_runbook_says_what_it_means_how_to_look_and_what_to_do() -> None:
    for section in RUNBOOKS.read_text().split("\n## ")[1:]:
        name, text = section.split("\n", 1)
        meaning, look, act = re.split(r"\*\*(?:Look|Do)\*\*", text)
        [alert] = [alert for alert in rules.alerts() if alert.name == name]
        assert meaning.split() == alert.meaning.split(), name
        assert "```sh" in look, name
        assert act.strip(), name


@pytest.mark.parametrize(("name", "expr"), EXPRESSIONS, ids=[f"{name}-{n}" for n, (name, _) in enumerate(EXPRESSIONS)])
def test_rules_and_panels_use_what_there_is(name: str, expr: str) -> None:
    known = {rule.record for rule in rules.recordings()}
    for metric, series in METRICS.items():
        known.update(metric + suffix for suffix in SUFFIXES.get(series.kind, ("",)))
    used = set(re.findall(r"\b(?:namespace\w*:)?whatsapp_\w+(?::\w+)?", expr))
    assert used, name
    assert used <= known


@pytest.mark.parametrize(("label", "values"), [("phase", set(Phase)), ("reason", set(Reason))])
def test_only_values_that_there_are_are_asked_for(label: str, values: set[str]) -> None:
    asked = {
        value
        for _, expr in EXPRESSIONS
        for found in re.findall(rf'\b{label}[!=]~?="?([^"]+)"|\b{label}[!=]=?~?"([^"]+)"', expr)
        for part in found
        for value in part.split("|")
        if value
    }
    assert asked
    assert asked <= values


def test_no_label_can_hold_a_phone_number() -> None:
    labels = {label for series in METRICS.values() for label in series.labels}
    assert labels == {
        "namespace", "name", "tenant", "type", "status", "phase", "reason", "method", "result", "step", "outcome",
        "verb", "code", "resource", "state", "direction", "what", "process",
    }  # fmt: skip


def test_no_two_metrics_have_one_name() -> None:
    names = Counter(series.name for series in (*pages.operator_series(), *pages.session_series()))
    assert names.most_common(1)[0][1] == 1


def test_the_dashboard_has_what_grafana_needs() -> None:
    found = json.loads((ROOT / DASHBOARD).read_text())
    panels = [panel for panel in found["panels"] if panel["type"] != "row"]
    assert [variable["name"] for variable in found["templating"]["list"]] == ["datasource", "operator", "namespace"]
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["description"].endswith(".")
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
