"""What the Prometheus operator makes of ServiceMonitors and PodMonitors, as far as those of the chart need it."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

Config = dict[str, Any]


def scrape_configs(monitors: list[Config], kubeconfig: str) -> list[Config]:
    """One for each endpoint.

    Raises:
        ValueError: a monitor has a field that is not understood here.
    """
    return [config for monitor in monitors for config in _of_monitor(monitor, kubeconfig)]


def _of_monitor(monitor: Config, kubeconfig: str) -> Iterator[Config]:
    kind, metadata, spec = monitor["kind"], monitor["metadata"], monitor["spec"]
    of_services = kind == "ServiceMonitor"
    endpoints = "endpoints" if of_services else "podMetricsEndpoints"
    _only(spec, endpoints, "selector", "namespaceSelector", "podTargetLabels", "jobLabel")
    _only(spec["selector"], "matchLabels")
    role, labelled = ("endpointslice", "service") if of_services else ("pod", "pod")
    where = spec.get("namespaceSelector", {})
    names = [] if where.get("any") else where.get("matchNames", [metadata["namespace"]])
    for number, endpoint in enumerate(spec[endpoints]):
        _only(endpoint, "port", "path", "scheme", "interval", "scrapeTimeout", "honorLabels")
        port = "endpointslice_port_name" if of_services else "pod_container_port_name"
        relabelings = [
            _keep(f"{labelled}_label_{key}", value) for key, value in spec["selector"]["matchLabels"].items()
        ]
        relabelings += [
            _keep(port, endpoint["port"]),
            {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Failed|Succeeded", "action": "drop"},
            _take("namespace", "namespace"),
            _take("pod_name", "pod"),
            _take("pod_container_name", "container"),
        ]
        if of_services:
            relabelings += [_take("service_name", "service"), _take("service_name", "job")]
        else:
            relabelings.append({"target_label": "job", "replacement": f"{metadata['namespace']}/{metadata['name']}"})
        if label := spec.get("jobLabel"):
            relabelings.append(_take(f"{labelled}_label_{label}", "job", regex="(.+)"))
        relabelings += [_take(f"pod_label_{key}", _name(key), regex="(.+)") for key in spec.get("podTargetLabels", ())]
        relabelings.append({"target_label": "endpoint", "replacement": endpoint["port"]})
        discovery = {"role": role, "kubeconfig_file": kubeconfig, "namespaces": {"names": names}}
        yield {
            "job_name": f"{kind}/{metadata['namespace']}/{metadata['name']}/{number}",
            "honor_labels": endpoint.get("honorLabels", False),
            "metrics_path": endpoint.get("path", "/metrics"),
            "scheme": endpoint.get("scheme", "http"),
            "kubernetes_sd_configs": [discovery],
            "relabel_configs": relabelings,
        }


def _only(found: Mapping[str, Any], *known: str) -> None:
    if unknown := found.keys() - set(known):
        raise ValueError(f"not understood: {', '.join(sorted(unknown))}")


def _name(label: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)


def _keep(source: str, value: str) -> Config:
    return {"source_labels": [f"__meta_kubernetes_{_name(source)}"], "regex": re.escape(value), "action": "keep"}


def _take(source: str, target: str, *, regex: str = "(.*)") -> Config:
    return {"source_labels": [f"__meta_kubernetes_{_name(source)}"], "regex": regex, "target_label": target}
