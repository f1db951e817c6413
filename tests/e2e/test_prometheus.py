"""A Prometheus that has followed the whole run: every rule and every panel has data, and the data are what happened."""

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from charts.observability import DASHBOARD, ROOT, dashboard, pages, rules
from tests.apiserver import Seen
from tests.e2e.conftest import BESIDE_SINCE
from tests.observability import prometheus as runner
from tests.observability.prometheus import Prometheus, Series
from tests.scenario import Scenario, has_condition
from tests.waiting import eventually
from whatsapp_operator.api import names

pytestmark = pytest.mark.alone

Phones = Callable[[], str]

DOCUMENTED = {series.name: series for series in (*pages.operator_series(), *pages.session_series())}
# What the ServiceMonitor and the PodMonitor add.
TARGET = {"job", "instance", "namespace", "service", "pod", "container", "endpoint"}
OF_PODS = {"whatsapp_operator_io_session", "whatsapp_operator_io_tenant"}


@pytest.fixture(scope="module")
def prometheus(whole_run: datetime) -> Prometheus:
    found = runner.running()
    if found is None and BESIDE_SINCE not in os.environ:
        pytest.skip("`make test-e2e` starts Prometheus first")
    assert found is not None, "Prometheus has ended, see prometheus.log of the cluster"
    return found


@pytest.fixture(scope="module")
def over(prometheus: Prometheus, whole_run: datetime) -> Callable[[str], list[Series]]:
    """What an expression was at each moment of the run."""
    start = whole_run.timestamp()

    def query(expr: str) -> list[Series]:
        end = prometheus.now("vector(time())")[0].values[-1][1]
        return prometheus.over(expr, start, end, step=max(2.0, (end - start) / 300))

    return query


Over = Callable[[str], list[Series]]


def numbers(found: list[Series]) -> list[float]:
    return [value for series in found for _, value in series.values if math.isfinite(value)]


def in_grafana(expr: str) -> str:
    """With what Grafana puts in place of its variables."""
    for name, value in (
        ("$operator", ".*"), ("$namespace", ".*"), ("$__rate_interval", "1m"),
    ):  # fmt: skip
        expr = expr.replace(name, value)
    return expr


def selectors(node: Any) -> Iterator[str]:
    """The series that an expression, as parsed by Prometheus, is made of: by name, with the labels that it asks for.

    Which values there may be is checked by tests/observability/test_outputs.py.
    """
    if isinstance(node, list):
        for part in node:
            yield from selectors(part)
    elif isinstance(node, dict):
        if node.get("type") in ("vectorSelector", "matrixSelector"):
            matchers = {
                m["name"]: "=" + json.dumps(m["value"]) if m["name"] == "__name__" else '!=""' for m in node["matchers"]
            }
            yield f"{{{', '.join(name + matcher for name, matcher in matchers.items())}}}"
        for part in node.values():
            yield from selectors(part)


def test_every_rule_is_evaluated(prometheus: Prometheus) -> None:
    groups = prometheus.call("rules")["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    assert sorted(group["name"] for group in groups) == sorted(group.name for group in rules.GROUPS)
    assert len(found) == sum(len(group.rules) for group in rules.GROUPS)
    assert [(rule["name"], rule.get("lastError")) for rule in found if rule["health"] != "ok"] == []


@pytest.mark.parametrize("rule", list(rules.recordings()), ids=lambda rule: rule.record)
def test_every_recording_rule_has_recorded(over: Over, rule: rules.Recording) -> None:
    assert numbers(over(rule.record))


@pytest.mark.parametrize("alert", list(rules.alerts()), ids=lambda alert: alert.name)
def test_what_an_alert_looks_at_is_there(prometheus: Prometheus, over: Over, alert: rules.Alert) -> None:
    looked_at = set(selectors(prometheus.call("parse_query", query=alert.expr)))
    assert looked_at
    for selector in looked_at:
        assert numbers(over(selector)), selector


@pytest.mark.parametrize(("panel", "expr"), dashboard.queries(json.loads((ROOT / DASHBOARD).read_text())))
def test_every_panel_has_data(over: Over, panel: str, expr: str) -> None:
    assert numbers(over(in_grafana(expr))), panel


def test_all_that_is_scraped_is_documented_and_holds_no_number(prometheus: Prometheus, whole_run: datetime) -> None:
    since = str(whole_run.timestamp())
    scraped = prometheus.call("series", **{"match[]": '{__name__=~"whatsapp_.*", instance!=""}'}, start=since)
    seen = set()
    for labels in scraped:
        metric = labels.pop("__name__")
        name = metric if metric in DOCUMENTED else re.sub("_(bucket|count|sum)$", "", metric)
        described = set(DOCUMENTED[name].labels) | ({"le"} if metric.endswith("_bucket") else set())
        assert set(labels) - OF_PODS <= described | TARGET, metric
        assert described <= set(labels), metric
        for label, value in labels.items():
            assert not re.search(r"1555\d{7}", value), f"{metric}: {label}"
        seen.add(name)
    # It comes with the first watch that ends.
    assert set(DOCUMENTED) - seen <= {"whatsapp_operator_watch_restarts_total"}


def test_replicas_and_session_pods_are_scraped(prometheus: Prometheus) -> None:
    def leaders() -> list[float]:
        return sorted(series.values[-1][1] for series in prometheus.now("whatsapp_operator_leader"))

    # A replica that another test has replaced is forgotten after some seconds.
    eventually(lambda: leaders() == [0, 1], "one leads and one stands by", seconds=90)
    everywhere = prometheus.now("last_over_time(whatsapp_session_connected[1h])")
    assert everywhere
    for series in everywhere:
        labels = series.labels
        assert labels["pod"] == names.owned_name(labels["whatsapp_operator_io_session"])
        assert labels["whatsapp_operator_io_tenant"]


def test_the_data_are_those_of_the_run(over: Over) -> None:
    led = {series.labels["pod"] for series in over("whatsapp_operator_leader == 1")}
    assert len(led) >= 2, "one was killed"
    [disconnects] = over("sum(max_over_time(whatsapp_session_disconnects_total[1h]))")
    assert disconnects.values[-1][1] > 0, "workers were killed"
    phases = {series.labels["phase"] for series in over(f"{rules.BY_PHASE} > 0")}
    assert phases >= {"Connected", "WaitingForScan"}


def counted(prometheus: Prometheus) -> dict[tuple[str, ...], int]:
    """Attempts, how far they came, and relinks, as all processes of the operator have counted them."""
    found: dict[tuple[str, ...], int] = {}
    for metric, labels in (
        ("whatsapp_pairing_attempts_total", ("method", "result", "reason")),
        ("whatsapp_pairing_steps_total", ("method", "step")),
        ("whatsapp_relinks_total", ("outcome",)),
    ):
        for series in prometheus.now(f"sum by ({', '.join(labels)}) ({metric})"):
            found[tuple(series.labels[label] for label in labels)] = int(series.values[-1][1])
    return found


def going(scenario: Scenario) -> list[str]:
    """The sessions that are being deleted, with their namespace or without."""
    namespaces = scenario.api.get("/api/v1/namespaces")["items"]
    ending = {found["metadata"]["name"] for found in namespaces if "deletionTimestamp" in found["metadata"]}
    sessions = scenario.api.get(f"/apis/{names.API_VERSION}/{names.PLURAL}")["items"]
    return [
        found["metadata"]["name"]
        for found in sessions
        if "deletionTimestamp" in found["metadata"] or found["metadata"]["namespace"] in ending
    ]


def has_ended(reason: str) -> Callable[[Seen], bool]:
    """Whether the session's last attempt to pair that is over ended so."""

    def check(seen: Seen) -> bool:
        pairing = seen.object.get("status", {}).get("pairing") or {}
        return bool((pairing.get("last") or {}).get("reason") == reason)

    return check


def test_pairings_are_counted_as_they_happen(prometheus: Prometheus, scenario: Scenario, new_phone: Phones) -> None:
    by_qr, by_code, another, declared = new_phone(), new_phone(), new_phone(), new_phone()
    for phone in (by_code, another):
        scenario.simulator.add_phone(phone)
    # What goes with the namespaces of other tests may count, too.
    eventually(lambda: not going(scenario), "no other session is being deleted", seconds=120)
    before = counted(prometheus)
    with scenario.watching("by-qr") as qr, scenario.watching("by-code") as code, scenario.watching("wrong") as wrong:
        scenario.apply(scenario.manifest("by-qr", phone=by_qr))
        scenario.apply(scenario.manifest("by-code", phone=by_code, pairing={"method": "PairingCode"}))
        scenario.apply(scenario.manifest("wrong", phone=declared))
        code.wait(has_condition("QRReady", reason="CodeAvailable"), "CodeAvailable")
        shown = eventually(lambda: scenario.secret("by-code").get(names.SECRET_KEY_CODE), "the Secret holds a code")
        scenario.simulator.enter_code(by_code, shown)
        wrong.wait(has_condition("QRReady"), "QRReady")
        scenario.simulator.scan(another, scenario.qr("wrong"))
        wrong.wait(has_ended("PhoneMismatch"), "the attempt ended in PhoneMismatch")
        # Else another window is shown, which may run out before the end.
        scenario.apply(scenario.manifest("wrong", phone=declared, suspend=True))
        scenario.pair("by-qr", by_qr, qr)
        code.wait(has_condition("Connected"), "Connected")
        # What has connected counts as soon as it ends.
        for name in ("by-qr", "by-code"):
            scenario.force_relink(name, "counted")
    happened = {
        ("QRCode", "Succeeded", "Paired"): 1,
        ("PairingCode", "Succeeded", "Paired"): 1,
        ("QRCode", "Failed", "PhoneMismatch"): 1,
        ("QRCode", "Shown"): 2,
        ("QRCode", "Scanned"): 2,
        ("QRCode", "Paired"): 2,
        ("QRCode", "Connected"): 1,
        ("PairingCode", "Shown"): 1,
        ("PairingCode", "Scanned"): 1,
        ("PairingCode", "Paired"): 1,
        ("PairingCode", "Connected"): 1,
        ("Completed",): 2,
    }

    def difference() -> dict[tuple[str, ...], int]:
        after = counted(prometheus)
        return {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}

    def is_scraped() -> bool:
        now = difference()
        return all(now.get(key, 0) >= number for key, number in happened.items())

    eventually(is_scraped, "all of it is scraped", seconds=90)
    found = difference()
    # The device of the wrong phone logs in to be logged out, which may be seen as a connection.
    assert found.pop(("QRCode", "Connected")) in (1, 2)
    assert found == {key: number for key, number in happened.items() if key != ("QRCode", "Connected")}
