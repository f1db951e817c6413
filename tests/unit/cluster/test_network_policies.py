"""The packet filter that stands in for a network plugin allows what the API of NetworkPolicy says."""

from typing import Any

import pytest

from tests.cluster.network_policies import ruleset, selected

NAMESPACES = [{"metadata": {"name": name, "labels": {"name": name}}} for name in ("shop", "monitoring")]


def pod(name: str, address: str, namespace: str = "shop") -> dict[str, Any]:
    ports = [{"name": "http", "containerPort": 8080}]
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "ports": ports}]},
        "status": {"podIP": address, "phase": "Running"},
    }


PODS = [pod("front", "10.0.0.1"), pod("back", "10.0.0.2"), pod("prometheus", "10.0.0.3", "monitoring")]


def chains(**spec: Any) -> dict[str, list[str]]:
    """The rules of each chain that a policy for `front` makes."""
    policy = {"metadata": {"namespace": "shop"}, "spec": {"podSelector": {"matchLabels": {"app": "front"}}, **spec}}
    found: dict[str, list[str]] = {}
    for line in ruleset([policy], PODS, NAMESPACES).splitlines():
        if line.startswith("chain"):
            name = line.split()[1]
            found[name] = []
        elif found and line != "}":
            found[name].append(" ".join(line.split()))
    return found


REFUSED = "reject with icmp admin-prohibited"


@pytest.mark.parametrize(
    ("spec", "chain", "rules"),
    [
        ({}, "ingress-10-0-0-1", []),
        ({"policyTypes": ["Egress"]}, "egress-10-0-0-1", []),
        ({"egress": [{}]}, "egress-10-0-0-1", ["return"]),
        ({"egress": [{"ports": [{"port": 443}]}]}, "egress-10-0-0-1", ["tcp dport 443 return"]),
        ({"egress": [{"ports": [{"port": 1, "endPort": 9}]}]}, "egress-10-0-0-1", ["tcp dport 1-9 return"]),
        ({"egress": [{"ports": [{"protocol": "UDP"}]}]}, "egress-10-0-0-1", ["meta l4proto udp return"]),
        (
            {"egress": [{"to": [{"podSelector": {"matchLabels": {"app": "back"}}}], "ports": [{"port": "http"}]}]},
            "egress-10-0-0-1",
            ["ip daddr 10.0.0.2 tcp dport 8080 return"],
        ),
        (
            {"egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "192.168.0.0/16"]}}]}]},
            "egress-10-0-0-1",
            ["ip daddr 0.0.0.0/0 ip daddr != 10.0.0.0/8 ip daddr != 192.168.0.0/16 return"],
        ),
        (
            {"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]}]},
            "ingress-10-0-0-1",
            ["ip saddr 10.0.0.3 return"],
        ),
        (
            {"ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": "http"}]}]},
            "ingress-10-0-0-1",
            ["ip saddr 10.0.0.1 tcp dport 8080 return", "ip saddr 10.0.0.2 tcp dport 8080 return"],
        ),
    ],
)
def test_what_a_policy_allows(spec: dict[str, Any], chain: str, rules: list[str]) -> None:
    assert chains(**spec)[chain] == [*rules, REFUSED]


def test_who_is_not_selected_is_not_restricted() -> None:
    assert {name for name in chains(egress=[]) if name.startswith(("egress", "ingress"))} == {"ingress-10-0-0-1"}
    assert chains(policyTypes=["Egress"])["to-node"][1:] == ["ip saddr 10.0.0.1 jump egress-10-0-0-1"]


@pytest.mark.parametrize(
    ("selector", "selects"),
    [
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_selectors(selector: dict[str, Any], selects: bool) -> None:
    assert selected(selector, {"a": "1"}) is selects
