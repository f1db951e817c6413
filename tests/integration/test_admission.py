"""What is refused on a real API server: to session pods all but their own, to people what a hostile object would do."""

import base64
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.apiserver import ApiError, ApiServer, secrets_path, session, sessions_path
from tests.waiting import eventually
from whatsapp_operator.api import names

NAMESPACE = "policies"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
ACCOUNTS = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
RBAC = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"

Call = Callable[[ApiServer], Any]


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def role_binding(name: str, kind: str, role: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
    }


@pytest.fixture(scope="module")
def admin(control_plane: Any) -> ApiServer:
    api = ApiServer.from_kubeconfig(control_plane.kubeconfig)
    api.install()
    api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    account = names.SESSION_SERVICE_ACCOUNT
    api.create(ACCOUNTS, {"metadata": {"name": account}})
    api.create(f"{RBAC}/rolebindings", role_binding(account, "ClusterRole", names.SESSION_CLUSTER_ROLE))
    for name in ("mine", "neighbour"):
        spec = {
            "serviceAccountName": account,
            "automountServiceAccountToken": False,
            "containers": [{"name": "session", "image": "none"}],
        }
        api.create(PODS, {"metadata": {"name": f"wa-{name}"}, "spec": spec})
        api.create(secrets_path(NAMESPACE), {"metadata": {"name": f"wa-{name}"}, "data": {"qr": encode(name)}})
        eventually(partial(created, api, name), "the definition is served")
        api.patch(sessions_path(NAMESPACE, name, "status"), {"status": {"phase": "Starting"}})
    api.create(secrets_path(NAMESPACE), {"metadata": {"name": "unrelated"}, "data": {"password": encode("x")}})
    eventually(lambda: policies_in_force(api), "the policies are in force", seconds=60)
    return api


def created(api: ApiServer, name: str) -> bool:
    try:
        api.create(sessions_path(NAMESPACE), session(name))
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def policies_in_force(admin: ApiServer) -> bool:
    """A policy takes effect some time after it is created: both kinds of attack must be seen refused."""
    api = pod(admin)
    return refusal(lambda: patch_secret("unrelated", {})(api)) == refusal(lambda: status("neighbour", {})(api)) == 403


def pod(admin: ApiServer) -> ApiServer:
    """The API as the session pod of `mine` reaches it."""
    return admin.bearer(admin.pod_token(NAMESPACE, names.SESSION_SERVICE_ACCOUNT, "wa-mine"))


def refusal(call: Callable[[], Any]) -> int:
    """The status of the refusal, 0 where there was none."""
    try:
        call()
    except ApiError as error:
        return error.status
    return 0


def patch_secret(name: str, patch: dict[str, Any], namespace: str = NAMESPACE) -> Call:
    return lambda api: api.patch(secrets_path(namespace, name), patch)


def status(name: str, part: dict[str, Any]) -> Call:
    return lambda api: api.patch(sessions_path(NAMESPACE, name, "status"), {"status": part})


REPORT = {"session": {"machine": "Connecting", "podUID": "u"}}

ATTACKS: dict[str, Call] = {
    "another session's status": status("neighbour", REPORT),
    "its own conditions": status(
        "mine",
        {
            **REPORT,
            "conditions": [
                {
                    "type": "Connected",
                    "status": "True",
                    "reason": "Connected",
                    "message": "",
                    "lastTransitionTime": "2026-11-21T10:00:00Z",
                }
            ],
        },
    ),
    "its own phase": status("mine", {"phase": "Connected"}),
    "removing what the operator wrote": status("mine", {"phase": None}),
    "its own spec": lambda api: api.patch(sessions_path(NAMESPACE, "mine"), {"spec": {"suspend": True}}),
    "another session's Secret": patch_secret("wa-neighbour", {"data": {"qr": encode("forged")}}),
    "an empty patch of another session's Secret": patch_secret("wa-neighbour", {}),
    "an empty patch of any Secret": patch_secret("unrelated", {}),
    "get of its own Secret": lambda api: api.get(secrets_path(NAMESPACE, "wa-mine")),
    "list of Secrets": lambda api: api.get(secrets_path(NAMESPACE)),
    "an unknown key in its own Secret": patch_secret("wa-mine", {"data": {"ca.crt": encode("x")}}),
    "a value without bounds in its own Secret": patch_secret("wa-mine", {"data": {"qr.png": "A" * 65540}}),
    "labels of its own Secret": patch_secret("wa-mine", {"metadata": {"labels": {"a": "b"}}}),
    "ownership of its own Secret": patch_secret(
        "wa-mine", {"metadata": {"ownerReferences": [], "finalizers": ["a/b"]}}
    ),
    "freezing its own Secret": patch_secret("wa-mine", {"immutable": True}),
    "a Secret of another namespace": patch_secret("wa-mine", {}, "default"),
    "creating a pod": lambda api: api.create(PODS, {"metadata": {"name": "x"}, "spec": {"containers": []}}),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_session_pod_cannot(admin: ApiServer, attack: Call) -> None:
    assert refusal(lambda: attack(pod(admin))) == 403


@pytest.mark.parametrize("write", [status("mine", REPORT), patch_secret("wa-mine", {})], ids=["status", "Secret"])
def test_a_token_that_is_not_a_pods_cannot_write_at_all(admin: ApiServer, write: Call) -> None:
    unbound = admin.bearer(admin.account_token(NAMESPACE, names.SESSION_SERVICE_ACCOUNT))
    assert refusal(lambda: write(unbound)) == 403


def test_a_session_pod_reports_and_publishes_its_qr(admin: ApiServer) -> None:
    api = pod(admin)
    status("mine", REPORT)(api)
    patch_secret("wa-mine", {"data": {"qr": encode("2@text"), "expiresAt": encode("2026-11-21T10:01:00Z")}})(api)
    patch_secret("wa-mine", {"data": {"qr": None, "code": encode("ABCD-1234")}})(api)
    found = admin.get(sessions_path(NAMESPACE, "mine"))
    assert found["status"] == {"observedGeneration": -1, "phase": "Starting", **REPORT}
    assert set(admin.get(secrets_path(NAMESPACE, "wa-mine"))["data"]) == {"code", "expiresAt"}


OWN = "domain of your own"
LINK_LOCAL = "spec.proxy.url.*must not lead to a link-local"
SPELLING = "spec.proxy.url.*four decimal numbers"
MALFORMED = "spec.proxy.url.*should match"
NODE_TERM = {"matchExpressions": [{"key": "a", "operator": "Exists"}]}


def url(text: str) -> dict[str, Any]:
    return {"proxy": {"url": text}}


def template(**fields: Any) -> dict[str, Any]:
    return {"template": fields}


def nodes(terms: list[Any]) -> dict[str, Any]:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return template(affinity={"nodeAffinity": required})


def away(**fields: Any) -> dict[str, Any]:
    """Anti-affinity, which keeps others' pods off a node too."""
    term = {"topologyKey": "zone", **fields}
    return template(affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    # Oversized.
    "many labels": (template(labels={f"a.example/{n}": "x" for n in range(33)}), "spec.template.labels.*at most 32"),
    "long annotation": (template(annotations={"a.example/b": "x" * 1025}), "spec.template.annotations.*than 1024"),
    "long key": (template(annotations={"a.example/" + "b" * 100_000: "x"}), f"spec.template.annotations.*{OWN}"),
    "long key of a node": (template(nodeSelector={"b" * 100_000: "x"}), "spec.template.nodeSelector.*317"),
    "long image": (template(image="a" * 513), "spec.template.image.*than 512"),
    "many tolerations": (template(tolerations=[{"key": "a"}] * 17), "spec.template.tolerations.*at most 16"),
    "many pull secrets": (template(imagePullSecrets=[{"name": "a"}] * 9), "spec.template.imagePullSecrets.*at most 8"),
    "many terms": (nodes([NODE_TERM] * 5), "nodeSelectorTerms.*at most 4"),
    "many expressions": (nodes([{"matchExpressions": NODE_TERM["matchExpressions"] * 9}]), "matchExpressions.*most 8"),
    "long url": (url("http://" + "a" * 300), "spec.proxy.url.*than 300"),
    "long quantity": (template(resources={"limits": {"cpu": "0" * 1000 + "1"}}), "limits.cpu.*than 20"),
    "long display name": ({"pairing": {"displayName": f"{'A' * 60} (B)"}}, "spec.pairing.displayName.*than 50"),
    # Nested where nothing is: it would be kept as it is without a schema.
    "deep affinity": (template(affinity={"nodeAffinity": {"x": [[[[{}]]]]}}), "unknown field.*affinity.nodeAffinity.x"),
    # Keys of others.
    **{
        f"label {key}": (template(labels={key: "enabled"}), f"spec.template.labels.*{OWN}")
        for key in (
            "app.kubernetes.io/name",
            "pod-security.kubernetes.io/enforce",
            "whatsapp-operator.io/tenant",
            "x.whatsapp-operator.io/tenant",
            "sidecar.istio.io/inject",
            "azure.workload.identity/use",
            "aadpodidbinding",
            "-a.example/b",
            "a.example/b/c",
            "a.example/b\n",
            "а.example/b",
        )
    },
    **{
        f"annotation {key}": (template(annotations={key: "x"}), f"spec.template.annotations.*{OWN}")
        for key in (
            "linkerd.io/inject",
            "vault.hashicorp.com/agent-inject",
            "consul.hashicorp.com/connect-inject",
            "k8s.v1.cni.cncf.io/networks",
            "cni.projectcalico.org/ipAddrs",
            "iam.amazonaws.com/role",
            "container.apparmor.security.beta.kubernetes.io/session",
            "instrumentation.opentelemetry.io/inject-python",
            "operator.1password.io/inject",
        )
    },
    "label value": (template(labels={"a.example/b": "c\nd"}), "spec.template.labels.*should match"),
    # Out of "restricted", or of the namespace.
    **{
        f"template.{field}": (template(**{field: value}), f'unknown field "spec.template.{field}"')
        for field, value in {
            "securityContext": {"runAsUser": 0},
            "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
            "hostNetwork": True,
            "containers": [{"name": "x", "image": "x"}],
            "initContainers": [{"name": "x", "image": "x"}],
            "serviceAccountName": "default",
            "runtimeClassName": "x",
            "nodeName": "node-1",
            "env": [{"name": "LD_PRELOAD", "value": "x"}],
        }.items()
    },
    "device": (template(resources={"limits": {"nvidia.com/gpu": 1}}), "unknown field.*limits.nvidia.com/gpu"),
    "others' pods": (away(namespaceSelector={}), "unknown field.*namespaceSelector"),
    "others' namespaces": (away(namespaces=["a"]), "unknown field.*namespaces"),
    "cpu": (template(resources={"limits": {"cpu": "4001m"}}), "limits.*at most 4"),
    "cpu no quantity": (template(resources={"limits": {"cpu": "lots"}}), "limits.*cpu must be a quantity"),
    "negative memory": (template(resources={"requests": {"memory": "-1Gi"}}), "requests.*between 48Mi and 4Gi"),
    # Proxies.
    "metadata service": (url("http://169.254.169.254"), LINK_LOCAL),
    "link-local": (url("socks5://169.254.0.1:1080"), LINK_LOCAL),
    "link-local IPv6": (url("http://[fe80::1]:80/"), LINK_LOCAL),
    "metadata service IPv6": (url("http://[fd00:ec2::254]"), LINK_LOCAL),
    "another of it": (url("http://[fd00:ec2::23]"), LINK_LOCAL),
    "NAT64 of the network": (url("http://[64:ff9b:1::a9fe:a9fe]"), LINK_LOCAL),
    "NAT64": (url("http://[64:ff9b::a9fe:a9fe]"), LINK_LOCAL),
    "6to4": (url("http://[2002:a9fe:a9fe::1]"), LINK_LOCAL),
    "IPv4-compatible": (url("http://[::a9fe:a9fe]"), LINK_LOCAL),
    "multicast": (url("http://[ff02::1]"), LINK_LOCAL),
    "IPv4-mapped": (url("http://[::ffff:169.254.169.254]"), SPELLING),
    "decimal": (url("http://2852039166"), SPELLING),
    "hexadecimal": (url("http://0xA9FEA9FE:80"), SPELLING),
    "octal": (url("http://0251.0376.0251.0376"), SPELLING),
    "short of a part": (url("http://169.254.43518"), SPELLING),
    "final dot": (url("http://169.254.169.254."), SPELLING),
    "escaped": (url("http://%31%36%39.254.169.254"), MALFORMED),
    "fullwidth": (url("http://１６９.254.169.254"), MALFORMED),
    "ideographic dots": (url("http://169。254。169。254"), MALFORMED),
    "zone": (url("http://[fe80::1%25eth0]"), MALFORMED),
    "userinfo": (url("http://user:secret@proxy.example"), MALFORMED),
    "path": (url("http://proxy.example/latest/meta-data"), MALFORMED),
    "newline": (url("http://proxy.example\nX: y"), MALFORMED),
    "newline at the end": (url("http://proxy.example\n"), MALFORMED),
    "NUL": (url("http://proxy.example\0.a"), MALFORMED),
    "right-to-left": (url("http://proxy\u202e.example"), MALFORMED),
    # Names that are shown.
    **{
        f"display name with {what}": ({"pairing": {"displayName": f"Chrome{char} (Linux)"}}, "spec.pairing.displayName")
        for what, char in {"NUL": "\0", "newline": "\n", "escape": "\x1b[2J", "right-to-left": "\u202e"}.items()
    },
    "tenant with a newline": ({"tenant": "acme\n"}, "spec.tenant"),
    "tenant in Cyrillic": ({"tenant": "асме"}, "spec.tenant"),
    "phone with fullwidth digits": ({"phone": "+１５５５１２３０００１"}, "spec.phone"),
    "Secret of another namespace": ({"caBundle": {"secretRef": {"name": "../a", "key": "b"}}}, "secretRef.name"),
    "key that is a path": ({"caBundle": {"secretRef": {"name": "a", "key": "../b"}}}, "caBundle.secretRef.key"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_session_is_refused_by_name_of_the_field(admin: ApiServer, name: str) -> None:
    spec, message = HOSTILE[name]
    with pytest.raises(ApiError, match=f"(?s){message}") as refused:
        admin.create(f"{sessions_path(NAMESPACE)}?fieldValidation=Strict&dryRun=All", session("hostile", **spec))
    assert refused.value.status in (400, 422)


def test_what_the_definition_does_not_know_is_pruned(admin: ApiServer) -> None:
    fields = {"volumes": [{"name": "host", "hostPath": {"path": "/"}}], "securityContext": {"privileged": True}}
    made = admin.create(f"{sessions_path(NAMESPACE)}?fieldValidation=Ignore&dryRun=All", session("x", template=fields))
    assert made["spec"]["template"] == {}


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:3128",
        "socks5://10.0.0.5:1080",
        "http://[::1]:80/",
        "http://[fd00::5]",
        "https://proxy.team-a.svc.cluster.local.:8443",
        "http://whatsapp-simulator.whatsapp-simulator.svc:9480",
        "http://10.example:80",
    ],
)
def test_proxies_in_the_cluster_are_taken(admin: ApiServer, text: str) -> None:
    admin.create(f"{sessions_path(NAMESPACE)}?dryRun=All", session("proxied", **url(text)))


REFERENCES: dict[str, dict[str, Any]] = {
    "proxy": {"proxy": {"secretRef": {"name": "unrelated", "key": "password"}}},
    "ca-secret": {"caBundle": {"secretRef": {"name": "unrelated", "key": "password"}}},
    "ca-map": {"caBundle": {"configMapRef": {"name": "unrelated", "key": "ca.crt"}}},
    "pull": {"template": {"imagePullSecrets": [{"name": "allowed"}, {"name": "unrelated"}]}},
}


@pytest.fixture(scope="module")
def author(admin: ApiServer) -> ApiServer:
    """Who may write sessions and get the Secret and the ConfigMap `allowed`, but no other."""
    rules = [
        {"apiGroups": [names.GROUP], "resources": [names.PLURAL], "verbs": ["create", "patch"]},
        {"apiGroups": [""], "resources": ["secrets", "configmaps"], "resourceNames": ["allowed"], "verbs": ["get"]},
    ]
    admin.create(ACCOUNTS, {"metadata": {"name": "author"}})
    admin.create(f"{RBAC}/roles", {"metadata": {"name": "author"}, "rules": rules})
    admin.create(f"{RBAC}/rolebindings", role_binding("author", "Role", "author"))
    return admin.bearer(admin.account_token(NAMESPACE, "author"))


def test_who_may_get_what_is_referred_to_may_refer_to_it(author: ApiServer) -> None:
    allowed = {"name": "allowed", "key": "url"}
    author.create(sessions_path(NAMESPACE), session("refers-to-secret", proxy={"secretRef": allowed}))
    author.create(sessions_path(NAMESPACE), session("refers-to-map", caBundle={"configMapRef": allowed}))


@pytest.mark.parametrize("name", REFERENCES)
def test_who_may_not_get_it_may_not_refer_to_it(author: ApiServer, name: str) -> None:
    with pytest.raises(ApiError, match=r"unrelated.*right to get") as refused:
        author.create(sessions_path(NAMESPACE), session(name, **REFERENCES[name]))
    assert refused.value.status == 403


def test_a_change_that_leaves_the_reference_alone_needs_no_right_to_it(admin: ApiServer, author: ApiServer) -> None:
    admin.create(sessions_path(NAMESPACE), session("by-admin", **REFERENCES["proxy"]))
    author.patch(sessions_path(NAMESPACE, "by-admin"), {"spec": {"suspend": True}})
    other = {"spec": {"proxy": {"secretRef": {"name": "other", "key": "url"}}}}
    with pytest.raises(ApiError, match="right to get"):
        author.patch(sessions_path(NAMESPACE, "by-admin"), other)


@pytest.mark.parametrize(
    "use",
    [
        {"proxy": {"secretRef": {"name": "unrelated", "key": "another"}}},
        {"caBundle": {"secretRef": {"name": "unrelated", "key": "password"}}},
        {"template": {"imagePullSecrets": [{"name": "unrelated"}]}},
    ],
    ids=["another key", "another field", "another list"],
)
def test_another_use_of_a_secret_that_is_referred_to_needs_the_right_to_it(
    admin: ApiServer, author: ApiServer, use: dict[str, Any]
) -> None:
    name = f"reuse-{next(iter(use)).lower()}"
    admin.create(sessions_path(NAMESPACE), session(name, **REFERENCES["proxy"]))
    with pytest.raises(ApiError, match=r"unrelated.*right to get"):
        author.patch(sessions_path(NAMESPACE, name), {"spec": use})
