"""The real API server takes the definition, fills in defaults, and refuses bad objects by the name of the field."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.apiserver import ApiError, ApiServer, session, sessions_path
from tests.waiting import eventually
from whatsapp_operator.api import names
from whatsapp_operator.api.models import WhatsAppSession

DEFINITION = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{names.PLURAL}.{names.GROUP}"


@pytest.fixture(scope="module")
def api(control_plane: Any) -> ApiServer:
    server = ApiServer.from_kubeconfig(control_plane.kubeconfig)
    server.install()
    eventually(lambda: conditions_of_definition(server).get("Established") == "True", "the definition is established")
    return server


def conditions_of_definition(api: ApiServer) -> dict[str, str]:
    return {c["type"]: c["status"] for c in api.get(DEFINITION).get("status", {}).get("conditions", [])}


def create(api: ApiServer, obj: dict[str, Any], *, dry_run: bool = True) -> Any:
    options = "fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
    return api.create(f"{sessions_path('default')}?{options}", obj)


def test_the_definition_has_a_structural_schema(api: ApiServer) -> None:
    assert "NonStructuralSchema" not in conditions_of_definition(api)


def test_defaults_are_filled_in_by_the_api_server_as_by_the_models(api: ApiServer) -> None:
    created = create(api, session("shop"))
    filled = WhatsAppSession.model_validate(created).spec
    assert filled == WhatsAppSession.model_validate({"metadata": {"name": "x"}, "spec": {"tenant": "acme"}}).spec
    assert created["spec"]["pairing"] == {"attempts": 3, "displayName": "Chrome (Linux)", "method": "QRCode"}
    assert "inactiveExpiry" not in created["spec"]["recovery"]


GOOD: dict[str, dict[str, Any]] = {
    "pairing code with its phone": {"phone": "+15551230001", "pairing": {"method": "PairingCode"}},
    "proxy by url": {"proxy": {"url": "socks5://proxy.example:1080"}},
    "proxy by Secret": {"proxy": {"secretRef": {"name": "p", "key": "url"}}},
    "expiry": {"recovery": {"inactiveExpiry": "720h"}},
    "storage": {"storage": {"size": "1Gi", "storageClassName": "fast", "accessMode": "ReadWriteOnce"}},
    "template": {
        "template": {
            "labels": {"team.example/name": "shop"},
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": 1, "memory": "256Mi"}},
            "affinity": {"nodeAffinity": {}},
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
            "tolerations": [{"key": "a", "operator": "Exists"}],
        }
    },
}


@pytest.mark.parametrize("spec", GOOD.values(), ids=GOOD.keys())
def test_good_objects_are_accepted(api: ApiServer, spec: dict[str, Any]) -> None:
    assert create(api, session("shop", **spec))["spec"]["tenant"] == "acme"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "tenant missing": ({"tenant": None}, "spec.tenant"),
    "tenant no DNS label": ({"tenant": "Acme Inc"}, "spec.tenant"),
    "tenant too long": ({"tenant": "a" * 64}, "spec.tenant"),
    "phone without plus": ({"phone": "15551230001"}, "spec.phone"),
    "phone with spaces": ({"phone": "+1 555 123 0001"}, "spec.phone"),
    "phone too long": ({"phone": "+1555123000112345"}, "spec.phone"),
    "code without phone": ({"pairing": {"method": "PairingCode"}}, "phone is required"),
    "unknown method": ({"pairing": {"method": "Carrier"}}, "spec.pairing.method"),
    "no attempts": ({"pairing": {"attempts": 0}}, "spec.pairing.attempts"),
    "too many attempts": ({"pairing": {"attempts": 21}}, "spec.pairing.attempts"),
    "display name": ({"pairing": {"displayName": "my browser"}}, "spec.pairing.displayName"),
    "suspend no boolean": ({"suspend": "yes"}, "spec.suspend"),
    "size no quantity": ({"storage": {"size": "big"}}, "spec.storage.size"),
    "size too small": ({"storage": {"size": "1Mi"}}, "spec.storage.size"),
    "size too large": ({"storage": {"size": "101Gi"}}, "spec.storage.size"),
    "access mode": ({"storage": {"accessMode": "ReadWriteMany"}}, "spec.storage.accessMode"),
    "retention": ({"storage": {"retentionPolicy": "Maybe"}}, "spec.storage.retentionPolicy"),
    "deletion policy": ({"deletionPolicy": "Forget"}, "spec.deletionPolicy"),
    "on logged out": ({"recovery": {"onLoggedOut": "Panic"}}, "spec.recovery.onLoggedOut"),
    "expiry no duration": ({"recovery": {"inactiveExpiry": "90 days"}}, "spec.recovery.inactiveExpiry"),
    "expiry too short": ({"recovery": {"inactiveExpiry": "5m"}}, "spec.recovery.inactiveExpiry"),
    "proxy empty": ({"proxy": {}}, "exactly one of url and secretRef"),
    "proxy both": (
        {"proxy": {"url": "http://p:1", "secretRef": {"name": "p", "key": "u"}}},
        "exactly one of url and secretRef",
    ),
    "proxy with userinfo": ({"proxy": {"url": "http://user:secret@proxy:3128"}}, "spec.proxy.url"),
    "proxy scheme": ({"proxy": {"url": "ftp://proxy"}}, "spec.proxy.url"),
    "ca bundle empty": ({"caBundle": {}}, "exactly one of secretRef and configMapRef"),
    "label of Kubernetes": ({"template": {"labels": {"app.kubernetes.io/name": "x"}}}, "spec.template.labels"),
    "label of ours": ({"template": {"labels": {"whatsapp-operator.io/session": "x"}}}, "spec.template.labels"),
    "annotation of an injector": (
        {"template": {"annotations": {"sidecar.istio.io/inject": "true"}}},
        "spec.template.annotations",
    ),
    "memory too small": (
        {"template": {"resources": {"limits": {"memory": "8Mi"}}}},
        "memory must be a quantity between",
    ),
    "cpu too large": ({"template": {"resources": {"requests": {"cpu": 64}}}}, "cpu must be a quantity above 0"),
    "unknown field": ({"phon": "+15551230001"}, "phon"),
}


@pytest.mark.parametrize(("spec", "named"), BAD.values(), ids=BAD.keys())
def test_bad_objects_are_refused_by_name_of_the_field(api: ApiServer, spec: dict[str, Any], named: str) -> None:
    obj = session("shop", **spec)
    obj["spec"] = {key: value for key, value in obj["spec"].items() if value is not None}
    with pytest.raises(ApiError) as refused:
        create(api, obj)
    assert refused.value.status in (400, 422)
    assert named in refused.value.message


@pytest.mark.parametrize(("name", "named"), [("a" * 53, "52 characters"), ("shop.main", "dots")])
def test_names_that_pods_cannot_take_are_refused(api: ApiServer, name: str, named: str) -> None:
    with pytest.raises(ApiError) as refused:
        create(api, session(name))
    assert refused.value.status == 422
    assert named in refused.value.message


def test_tenant_is_immutable_and_the_message_has_the_remedy(api: ApiServer) -> None:
    create(api, session("immutable"), dry_run=False)
    with pytest.raises(ApiError) as refused:
        api.patch(sessions_path("default", "immutable"), {"spec": {"tenant": "other"}})
    assert refused.value.status == 422
    assert "tenant is immutable" in refused.value.message


def test_sessions_are_selected_by_tenant_and_phone_on_the_server(api: ApiServer) -> None:
    create(api, session("selected", tenant="chosen", phone="+15551230077"), dry_run=False)
    create(api, session("other", tenant="unchosen", phone="+15551230078"), dry_run=False)
    for selector in ("spec.tenant=chosen", "spec.phone=+15551230077"):
        found = api.get(f"{sessions_path('default')}?fieldSelector={quote(selector, safe='=')}")
        assert [item["metadata"]["name"] for item in found["items"]] == ["selected"], selector
