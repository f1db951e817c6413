"""What the chart renders for the values that users set."""

import re
from typing import Any

import pytest
import yaml

from charts.render import CHART, CLAIM_KEY, NAMESPACE, REGISTRY, HelmError, helm, render
from whatsapp_operator.api import egress, names
from whatsapp_operator.api.names import ADMISSION_POLICIES
from whatsapp_operator.controller import settings
from whatsapp_operator.controller.objects import labels

KEPT = {"helm.sh/resource-policy": "keep", "argocd.argoproj.io/sync-options": "Prune=false"}
Objects = list[dict[str, Any]]
KEY_FILE = "/etc/whatsapp-operator/claim/key"


def of_kind(objects: Objects, *kinds: str) -> Objects:
    return [found for found in objects if found["kind"] in kinds]


def the(objects: Objects, kind: str) -> dict[str, Any]:
    [found] = of_kind(objects, kind)
    return found


def container(objects: Objects) -> dict[str, Any]:
    found: dict[str, Any] = the(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return found


def session_image(objects: Objects) -> str:
    [found] = [variable["value"] for variable in container(objects)["env"] if variable["name"] == "SESSION_IMAGE"]
    return str(found)


def test_lint_finds_nothing() -> None:
    said = helm("lint", "--strict", str(CHART), "--set=operator.image.repository=a,session.image.repository=b")
    assert re.findall(r"\[(?:WARNING|ERROR)\].*", said) == []


def test_an_older_kubernetes_is_refused() -> None:
    with pytest.raises(HelmError, match=r"chart requires kubeVersion: >=1\.32"):
        helm("template", str(CHART), "--set=claimKey.existingSecret=any", "--kube-version=1.31.0")


def test_the_default_serves_the_whole_cluster() -> None:
    objects = render()
    kinds = {found["kind"] for found in objects}
    assert kinds == {
        "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Deployment", "PodDisruptionBudget", "Role",
        "RoleBinding", "Service", "ServiceAccount", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
    }  # fmt: skip
    assert all(found["metadata"].get("namespace", NAMESPACE) == NAMESPACE for found in objects)
    assert {found["metadata"]["name"] for found in of_kind(objects, "ValidatingAdmissionPolicy")} == set(
        ADMISSION_POLICIES
    )


def test_every_object_carries_the_recommended_labels() -> None:
    wanted = {
        "app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version",
        "app.kubernetes.io/managed-by", "app.kubernetes.io/part-of", "helm.sh/chart", "team.example/name",
    }  # fmt: skip
    everything = {
        "commonLabels": {"team.example/name": "chat"},
        "networkPolicy": {"enabled": True, "sessionNamespaces": ["chats"]},
        "metrics": {
            part: {"enabled": True} for part in ("serviceMonitor", "podMonitor", "prometheusRule", "dashboard")
        },
    }
    assert [found["kind"] for found in render(everything) if not wanted <= found["metadata"]["labels"].keys()] == []


# ---------------------------------------------------------------- the operator


def test_two_operators_that_do_not_share_a_node_or_a_disruption() -> None:
    objects = render()
    deployment = the(objects, "Deployment")["spec"]
    selector = deployment["selector"]["matchLabels"]
    assert deployment["replicas"] == 2
    assert selector.items() <= deployment["template"]["metadata"]["labels"].items()
    [spread] = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == selector
    budget = the(objects, "PodDisruptionBudget")["spec"]
    assert (budget["minAvailable"], budget["selector"]["matchLabels"]) == (1, selector)
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert the(objects, "Service")["spec"]["selector"] == selector


def test_a_single_operator_has_no_budget_that_would_keep_its_node_from_being_drained() -> None:
    assert of_kind(render({"operator": {"replicas": 1}}), "PodDisruptionBudget") == []


def test_the_command_line_is_one_that_the_operator_takes(tmp_path: Any) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"0" * 32)
    given = {
        "claimScope": "Cluster",
        "watchNamespaces": ["one", "two"],
        "operator": {
            "logLevel": "debug", "logFormat": "console", "workers": 3, "leaseSeconds": 12, "resyncSeconds": 60,
        },
        "session": {
            "logLevel": "error", "maxUnavailable": "10%", "rolloutDelaySeconds": 0,
            "allow": {"images": ["a/b:1", "c"], "priorityClasses": ["high"], "tolerationKeys": ["gpu"]},
        },
        "metrics": {"perSession": False},
    }  # fmt: skip
    objects = render(given)
    told = [
        argument.replace("$(SESSION_IMAGE)", session_image(objects)).replace(KEY_FILE, str(key))
        for argument in container(objects)["args"]
    ]
    found = settings.parse([*told, "--namespace=here"], version="1")
    options = found.options
    assert (options.claim_scope, found.watch_namespaces) == (settings.ClaimScope.CLUSTER, ("one", "two"))
    assert (found.log_level, found.log_format, found.workers) == ("debug", "console", 3)
    assert (found.lease.duration, found.resync_seconds, found.rollout_delay) == (12, 60, 0)
    assert (options.session_log_level, found.max_unavailable.of(50), found.object_metrics) == ("error", 5, False)
    assert options.allow.images == {"a/b:1", "c"}
    assert options.allow.priority_classes == {"high"}
    assert options.allow.toleration_keys == {"gpu"}


def test_the_chart_says_what_the_operator_would_assume_by_itself(tmp_path: Any) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"0" * 32)
    needed = ["--session-image=x", f"--claim-key-file={key}", "--namespace=here", "--identity=me"]
    told = [argument for argument in container(render())["args"] if argument.partition("=")[0] not in str(needed)]
    assert settings.parse([*needed, *told], version="1") == settings.parse(needed, version="1")


DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({}, None),
        ({"repository": "registry.example:5000/wa", "tag": "1.2"}, "registry.example:5000/wa:1.2"),
        ({"repository": "registry.example/wa", "tag": "1.2", "digest": DIGEST}, f"registry.example/wa@{DIGEST}"),
    ],
    ids=["default", "tag", "digest"],
)
def test_images_by_tag_or_digest(image: dict[str, str], reference: str | None) -> None:
    objects = render({"operator": {"image": image}, "session": {"image": image}})
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert container(objects)["image"] == (reference or f"{REGISTRY}/operator:{version}")
    assert session_image(objects) == (reference or f"{REGISTRY}/session:{version}")


@pytest.mark.parametrize("name", ["operator", "session"])
def test_no_repository_is_assumed(name: str) -> None:
    with pytest.raises(HelmError, match=rf"{name}\.image\.repository: must be set to where you have pushed the image"):
        render({name: {"image": {"repository": ""}}})


def test_where_and_how_the_operator_is_scheduled() -> None:
    operator = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "topologySpreadConstraints": [],
        "resources": {"limits": {"memory": "1Gi"}},
        "podAnnotations": {"team.example/a": "b"},
        "podLabels": {"team.example/c": "d"},
    }
    objects = render({"operator": operator, "imagePullSecrets": [{"name": "pull"}]})
    template = the(objects, "Deployment")["spec"]["template"]
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert template["spec"][key] == operator[key]
    assert template["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    assert "topologySpreadConstraints" not in template["spec"]
    # What is named replaces, what is not stays: values are merged.
    assert container(objects)["resources"]["limits"]["memory"] == "1Gi"
    assert template["metadata"]["annotations"] == {"team.example/a": "b"}
    assert template["metadata"]["labels"]["team.example/c"] == "d"


def test_a_label_selector_of_one_s_own_is_left_as_it_is() -> None:
    own = {"matchLabels": {"a": "b"}}
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": own}
    template = the(render({"operator": {"topologySpreadConstraints": [spread]}}), "Deployment")["spec"]["template"]
    assert template["spec"]["topologySpreadConstraints"] == [spread]


def test_a_release_of_another_name_shares_nothing_that_is_its_own() -> None:
    shared = {
        "crds": {"install": False},
        "admissionPolicies": {"install": False},
        "rbac": {"installSharedRoles": False},
    }
    first, second = render(shared), render(shared, release="other", namespace="elsewhere")

    def keys(objects: Objects) -> set[tuple[str, str, str]]:
        return {(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in objects}

    assert keys(first) & keys(second) == set()
    assert {subject["namespace"] for o in second for subject in o.get("subjects", [])} == {"elsewhere"}


# ---------------------------------------------------------------- definition, policies, rights


def test_the_definition_is_the_generated_one_and_stays() -> None:
    definition = the(render(), "CustomResourceDefinition")
    committed = yaml.safe_load((CHART.parents[1] / f"crds/{names.GROUP}_{names.PLURAL}.yaml").read_text())
    assert definition["spec"] == committed["spec"]
    assert definition["metadata"]["name"] == committed["metadata"]["name"]
    assert definition["metadata"]["annotations"] == KEPT


def test_the_policies_outlive_the_release_as_the_bindings_of_session_pods_do() -> None:
    objects = of_kind(render(), "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    assert len(objects) == 2 * len(ADMISSION_POLICIES)
    assert [found["metadata"].get("annotations") for found in objects] == [KEPT] * len(objects)


def test_definition_and_policies_may_be_left_to_somebody_else() -> None:
    objects = render({"crds": {"install": False}, "admissionPolicies": {"install": False}})
    kinds = ("CustomResourceDefinition", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    assert of_kind(objects, *kinds) == []
    kept = the(render({"crds": {"keep": False}}), "CustomResourceDefinition")
    assert "annotations" not in kept["metadata"]


def test_in_namespaced_mode_nothing_is_bound_for_the_whole_cluster() -> None:
    objects = render({"watchNamespaces": ["one", "two"]})
    assert of_kind(objects, "ClusterRoleBinding", "Namespace") == []
    bound = {o["metadata"]["namespace"]: o["roleRef"]["kind"] for o in of_kind(objects, "RoleBinding")}
    assert bound == {NAMESPACE: "Role", "one": "ClusterRole", "two": "ClusterRole"}
    assert "--watch-namespaces=one,two" in container(objects)["args"]


def test_the_operator_s_own_namespace_may_be_served_too() -> None:
    bindings = of_kind(render({"watchNamespaces": [NAMESPACE]}), "RoleBinding")
    assert len({binding["metadata"]["name"] for binding in bindings}) == len(bindings) == 2


def test_served_namespaces_are_made_when_asked_for_and_never_deleted() -> None:
    made = of_kind(render({"watchNamespaces": ["one"], "namespaces": {"create": True}}), "Namespace")
    assert [namespace["metadata"]["name"] for namespace in made] == ["one"]
    assert made[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert made[0]["metadata"]["annotations"] == KEPT


def test_rights_may_be_left_to_somebody_else() -> None:
    objects = render({"rbac": {"install": False, "installSharedRoles": False}})
    assert of_kind(objects, "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding") == []


# ---------------------------------------------------------------- the claim key


def test_a_claim_key_of_one_s_own() -> None:
    objects = render({"claimKey": {"existingSecret": "mine"}})
    assert of_kind(objects, "Secret") == []
    [volume] = the(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert volume["secret"]["secretName"] == "mine"


def test_without_a_cluster_no_key_is_made_up() -> None:
    with pytest.raises(HelmError, match=rf"claimKey\.existingSecret: .*create secret generic {CLAIM_KEY}"):
        render({"claimKey": {"existingSecret": ""}})


# ---------------------------------------------------------------- the network


def test_no_network_policies_unless_asked_for() -> None:
    assert of_kind(render({"watchNamespaces": ["one"]}), "NetworkPolicy") == []


def policies(**network: Any) -> dict[str, dict[str, Any]]:
    objects = render({"watchNamespaces": ["one"], "networkPolicy": {"enabled": True, **network}})
    return {policy["metadata"]["namespace"]: policy["spec"] for policy in of_kind(objects, "NetworkPolicy")}


def test_the_operator_reaches_name_servers_and_the_api_server_only() -> None:
    spec = policies()[NAMESPACE]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    opened = {(port["protocol"], port["port"]) for rule in spec["egress"] for port in rule["ports"]}
    assert opened == {("UDP", 53), ("TCP", 53), ("TCP", 443), ("TCP", 6443)}
    [ingress] = spec["ingress"]
    assert ingress["ports"] == [{"port": 8081, "protocol": "TCP"}]
    assert ingress["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def test_session_pods_of_the_namespaces_that_are_named_have_a_policy_of_their_own() -> None:
    found = policies(sessionNamespaces=["three"])
    assert set(found) == {NAMESPACE, "one", "three"}
    spec = found["three"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.common("session", "1").items()
    _, api_server, outward = spec["egress"]
    assert outward["ports"] == [{"port": 443, "protocol": "TCP"}]
    for rule in (api_server, outward):
        excepted = [network for peer in rule["to"] for network in peer["ipBlock"]["except"]]
        assert sorted(excepted) == sorted(egress.FORBIDDEN_IN_CEL)
    assert spec["ingress"][0]["ports"] == [{"port": names.SESSION_HTTP_PORT, "protocol": "TCP"}]


def test_the_network_policies_follow_the_cluster_s_addresses() -> None:
    proxy = {"to": [{"namespaceSelector": {"matchLabels": {"name": "proxies"}}}], "ports": [{"port": 3128}]}
    servers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
    found = policies(
        metricsFrom=[],
        apiServer={"cidrs": ["10.0.0.1/32"], "ports": [6443]},
        dns={"ports": [5353], "to": servers},
        session={"egressPorts": [443, 1080], "extraEgress": [proxy]},
    )
    for spec in found.values():
        assert spec["ingress"] == [] or spec["ingress"] is None
        assert [port["port"] for port in spec["egress"][0]["ports"]] == [5353, 5353]
        assert spec["egress"][0]["to"] == servers
        assert spec["egress"][1] == {
            "ports": [{"port": 6443, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}],
        }  # fmt: skip
    assert found["one"]["egress"][-1] == proxy
    assert [port["port"] for port in found["one"]["egress"][-2]["ports"]] == [443, 1080]
    assert len(found[NAMESPACE]["egress"]) == 2


# ---------------------------------------------------------------- monitoring

MONITORING = ("ServiceMonitor", "PodMonitor", "PrometheusRule")


@pytest.mark.parametrize("kind", [*MONITORING, "ConfigMap"])
def test_each_part_of_the_monitoring_is_made_by_its_own_switch(kind: str) -> None:
    value = "dashboard" if kind == "ConfigMap" else kind[0].lower() + kind[1:]
    objects = render({"metrics": {value: {"enabled": True, "labels": {"release": "prometheus"}}}})
    assert [found["kind"] for found in of_kind(objects, *MONITORING, "ConfigMap")] == [kind]
    assert the(objects, kind)["metadata"]["labels"]["release"] == "prometheus"


def test_prometheus_finds_the_operator_and_the_sessions() -> None:
    on = {"enabled": True}
    objects = render({"watchNamespaces": ["one"], "metrics": {"serviceMonitor": on, "podMonitor": on}})
    monitor = the(objects, "ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= the(objects, "Service")["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["honorLabels"] is True
    pods = the(objects, "PodMonitor")["spec"]
    assert pods["namespaceSelector"] == {"matchNames": ["one"]}
    assert pods["selector"]["matchLabels"].items() <= labels.common("session", "1").items()
    assert pods["podTargetLabels"] == [names.LABEL_SESSION, names.LABEL_TENANT]


def test_alerts_link_to_the_runbooks_of_one_s_own() -> None:
    rule = {"enabled": True, "runbooksURL": "https://runbooks.example/wa"}
    spec = the(render({"metrics": {"prometheusRule": rule}}), "PrometheusRule")["spec"]
    alerts = [found for group in spec["groups"] for found in group["rules"] if "alert" in found]
    assert alerts
    assert all(found["annotations"]["runbook_url"].startswith("https://runbooks.example/wa#") for found in alerts)


def test_the_dashboard_is_as_it_was_made() -> None:
    found = the(render({"metrics": {"dashboard": {"enabled": True}}}), "ConfigMap")
    assert found["data"]["whatsapp-operator.json"].strip() == (CHART / "files/dashboard.json").read_text().strip()
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"


# ---------------------------------------------------------------- what the schema refuses


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 2}, "at '': additional properties 'replicas' not allowed"),
        ({"operator": {"image": {"tga": "1"}}}, "at '/operator/image': additional properties 'tga' not allowed"),
        ({"operator": {"resources": {"limit": {}}}}, "at '/operator/resources': additional properties 'limit'"),
        ({"operator": {"replicas": 6}}, "at '/operator/replicas': maximum"),
        ({"operator": {"logLevel": "verbose"}}, "at '/operator/logLevel': value must be one of"),
        ({"operator": {"leaseSeconds": 1}}, "at '/operator/leaseSeconds': minimum"),
        ({"operator": {"image": None}}, "at '/operator': missing property 'image'"),
        ({"session": {"image": {"digest": "sha256:1"}}}, "at '/session/image/digest'"),
        ({"session": {"image": {"repository": "wa/session:1.0"}}}, "at '/session/image/repository'"),
        ({"session": {"maxUnavailable": "101%"}}, "at '/session/maxUnavailable'"),
        ({"session": {"allow": {"images": ["a,b"]}}}, "at '/session/allow/images/0'"),
        ({"watchNamespaces": "chats"}, "at '/watchNamespaces': got string, want array"),
        ({"watchNamespaces": ["Chats"]}, "at '/watchNamespaces/0'"),
        ({"claimScope": "Namespace"}, "at '/claimScope': value must be one of 'Tenant', 'Cluster'"),
        ({"commonLabels": {"helm.sh/chart": "mine"}}, "at '/commonLabels/helm.sh~1chart'"),
        ({"networkPolicy": {"apiServer": {"cidrs": ["10.0.0.1"]}}}, "at '/networkPolicy/apiServer/cidrs/0'"),
        ({"networkPolicy": {"metricsFrom": [{}]}}, "at '/networkPolicy/metricsFrom/0': minProperties"),
        ({"metrics": {"podMonitor": {"interval": "often"}}}, "at '/metrics/podMonitor/interval'"),
    ],
    ids=lambda value: None if isinstance(value, dict) else re.sub(r"at '(.*?)'.*", r"\1", value),
)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(HelmError, match=re.escape(said)):
        render(values)
