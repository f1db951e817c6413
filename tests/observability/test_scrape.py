"""The translation of monitors into what Prometheus is told to scrape."""

import re
from typing import Any

import pytest

from tests.observability.scrape import scrape_configs

SERVICES = {
    "kind": "ServiceMonitor",
    "metadata": {"name": "operator", "namespace": "system"},
    "spec": {
        "selector": {"matchLabels": {"app.kubernetes.io/name": "operator"}},
        "endpoints": [{"port": "http", "path": "/metrics", "interval": "30s", "honorLabels": True}],
    },
}
PODS = {
    "kind": "PodMonitor",
    "metadata": {"name": "sessions", "namespace": "system"},
    "spec": {
        "namespaceSelector": {"any": True},
        "selector": {"matchLabels": {"part": "session"}},
        "podTargetLabels": ["example.io/tenant"],
        "podMetricsEndpoints": [{"port": "http"}],
    },
}


def relabeled(config: dict[str, Any], discovered: dict[str, str]) -> dict[str, str] | None:
    """What becomes of a target's labels, as far as these rules go; None if it is not scraped."""
    labels = {f"__meta_kubernetes_{name}": value for name, value in discovered.items()}
    for rule in config["relabel_configs"]:
        source = ";".join(labels.get(name, "") for name in rule.get("source_labels", []))
        found = re.fullmatch(rule.get("regex", "(.*)"), source)
        action = rule.get("action", "replace")
        if (action == "keep" and not found) or (action == "drop" and found):
            return None
        if action == "replace" and found:
            labels[rule["target_label"]] = rule.get("replacement") or found[1]
    return {name: value for name, value in labels.items() if not name.startswith("__") and value}


def test_services_are_found_by_label_and_port() -> None:
    [config] = scrape_configs([SERVICES], "kubeconfig")
    target = {
        "namespace": "system",
        "service_name": "operator",
        "service_label_app_kubernetes_io_name": "operator",
        "endpointslice_port_name": "http",
        "pod_name": "operator-1",
        "pod_container_name": "operator",
    }
    assert relabeled(config, target) == {
        "namespace": "system", "service": "operator", "job": "operator", "pod": "operator-1", "container": "operator",
        "endpoint": "http",
    }  # fmt: skip
    assert relabeled(config, {**target, "service_label_app_kubernetes_io_name": "another"}) is None
    assert relabeled(config, {**target, "endpointslice_port_name": "https"}) is None
    assert config["honor_labels"] is True
    assert config["kubernetes_sd_configs"] == [
        {"role": "endpointslice", "kubeconfig_file": "kubeconfig", "namespaces": {"names": ["system"]}}
    ]


def test_pods_of_all_namespaces_bring_their_labels() -> None:
    [config] = scrape_configs([PODS], "kubeconfig")
    target = {
        "namespace": "team",
        "pod_name": "wa-one",
        "pod_label_part": "session",
        "pod_label_example_io_tenant": "acme",
        "pod_container_port_name": "http",
    }
    assert relabeled(config, target) == {
        "namespace": "team", "pod": "wa-one", "job": "system/sessions", "endpoint": "http", "example_io_tenant": "acme",
    }  # fmt: skip
    assert relabeled(config, {**target, "pod_phase": "Succeeded"}) is None
    assert config["kubernetes_sd_configs"][0]["namespaces"] == {"names": []}


@pytest.mark.parametrize("field", ["metricRelabelings", "tlsConfig"])
def test_what_is_not_understood_is_refused(field: str) -> None:
    spec = {**SERVICES["spec"], "endpoints": [{"port": "http", field: []}]}  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=field):
        scrape_configs([{**SERVICES, "spec": spec}], "kubeconfig")
