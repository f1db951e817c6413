"""What NetworkPolicies allow, as a packet filter on the node: a stand-in for the network plugin that enforces them.

The plugin of this cluster, a plain bridge, enforces nothing, and those that do cannot be had from Go modules.
Left out, as no policy here needs them: IPv6, SCTP, and traffic between a pod and the node that it runs on, which the
node may always begin.
"""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

TABLE: Final = "network-policies"
Object = Mapping[str, Any]


def ruleset(policies: Sequence[Object], pods: Sequence[Object], namespaces: Sequence[Object]) -> str:
    """Input of `nft --file` that allows what the policies do, and refuses what else goes to or from their pods."""
    labels = {item["metadata"]["name"]: item["metadata"].get("labels", {}) for item in namespaces}
    running = [
        pod
        for pod in pods
        if pod["status"].get("podIP")
        and pod["status"]["phase"] not in ("Succeeded", "Failed")
        and not pod["spec"].get("hostNetwork")
    ]
    chains, jumps = [], []
    for pod in running:
        address = pod["status"]["podIP"]
        for direction, end in (("Egress", "saddr"), ("Ingress", "daddr")):
            selecting = [policy for policy in policies if direction in _types(policy) and _selects(policy, pod)]
            if not selecting:
                continue
            chain = f"{direction.lower()}-{address.replace('.', '-')}"
            rules = [
                f"{match} return"
                for policy in selecting
                for rule in policy["spec"].get(direction.lower()) or []
                for match in _matches(rule, policy, pod, direction, running, labels)
            ]
            chains.append("\n".join([f"chain {chain} {{", *rules, "reject with icmp admin-prohibited", "}"]))
            jumps.append(f"ip {end} {address} jump {chain}")
    begun = "ct state established,related accept"
    return "\n".join(
        [
            # Made first, so that there is one to delete.
            f"table ip {TABLE} {{}}",
            f"delete table ip {TABLE}",
            f"table ip {TABLE} {{",
            *chains,
            "chain between-pods { type filter hook forward priority filter;", begun, *jumps, "}",
            # The API server is the node's.
            "chain to-node { type filter hook input priority filter;", begun,
            *(jump for jump in jumps if "saddr" in jump), "}",
            "}",
        ]
    )  # fmt: skip


def _types(policy: Object) -> Sequence[str]:
    spec = policy["spec"]
    types: Sequence[str] = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return types


def _selects(policy: Object, pod: Object) -> bool:
    same = policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
    return same and selected(policy["spec"].get("podSelector") or {}, pod["metadata"].get("labels", {}))


def selected(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector, the empty one too, selects who has these labels."""
    return (selector.get("matchLabels") or {}).items() <= labels.items() and all(
        _holds(wanted, labels) for wanted in selector.get("matchExpressions") or []
    )


def _holds(wanted: Object, labels: Mapping[str, str]) -> bool:
    there = wanted["key"] in labels
    among = there and labels[wanted["key"]] in wanted.get("values", [])
    return {"In": among, "NotIn": not among, "Exists": there, "DoesNotExist": not there}[wanted["operator"]]


def _matches(
    rule: Object,
    policy: Object,
    pod: Object,
    direction: str,
    pods: Sequence[Object],
    labels: Mapping[str, Mapping[str, str]],
) -> Iterator[str]:
    """Expressions of nft, one for each peer and port that a rule of a policy allows the pod."""
    peers = rule.get("to" if direction == "Egress" else "from")
    end = "daddr" if direction == "Egress" else "saddr"
    for port in rule.get("ports") or [None]:
        if not peers:
            # A named port without a peer would be another number for each destination.
            yield _port(port, [pod] if direction == "Ingress" else [])
        for peer in peers or []:
            if block := peer.get("ipBlock"):
                if ipaddress.ip_network(block["cidr"]).version == 4:
                    excepted = "".join(f" ip {end} != {cidr}" for cidr in block.get("except") or [])
                    yield f"ip {end} {block['cidr']}{excepted} {_port(port, [])}"
                continue
            for other in pods:
                if _is_peer(peer, policy, other, labels):
                    to = other if direction == "Egress" else pod
                    yield f"ip {end} {other['status']['podIP']} {_port(port, [to])}"


def _is_peer(peer: Object, policy: Object, pod: Object, labels: Mapping[str, Mapping[str, str]]) -> bool:
    namespace = pod["metadata"]["namespace"]
    if "namespaceSelector" in peer:
        inside = selected(peer["namespaceSelector"], labels.get(namespace, {}))
    else:
        inside = namespace == policy["metadata"]["namespace"]
    return inside and selected(peer.get("podSelector") or {}, pod["metadata"].get("labels", {}))


def _port(port: Object | None, destinations: Sequence[Object]) -> str:
    """An expression for a port of a rule, by name where the destination, of which there is one then, has it."""
    if port is None:
        return ""
    protocol, number = port.get("protocol", "TCP").lower(), port.get("port")
    if number is None:
        return f"meta l4proto {protocol}"
    if isinstance(number, str):
        [number] = [
            named["containerPort"]
            for pod in destinations
            for container in pod["spec"]["containers"]
            for named in container.get("ports") or []
            if named.get("name") == number
        ] or [0]
    return f"{protocol} dport {number}-{port['endPort']}" if "endPort" in port else f"{protocol} dport {number}"
