from dataclasses import replace
from typing import Any

import pytest

from tests.unit.controller.builders import OPTIONS, PHONE, UID
from whatsapp_operator.api import names
from whatsapp_operator.api.models import WhatsAppSession
from whatsapp_operator.controller.cache import Cache
from whatsapp_operator.controller.claims import lease_name
from whatsapp_operator.controller.observe import HOLDER_SECONDS, Observer, parse_session
from whatsapp_operator.controller.observed import Holder, Observed, phone_of_jid
from whatsapp_operator.controller.settings import ClaimScope, Options
from whatsapp_operator.controller.views import Key, SessionView

KEY = Key("team", "shop")


def body(
    name: str = "shop", uid: str = UID, *, spec: Any = None, status: Any = None, version: int = 1
) -> dict[str, Any]:
    metadata = {"namespace": "team", "name": name, "uid": uid, "resourceVersion": str(version)}
    full = {"tenant": "acme", "phone": PHONE, **(spec or {})}
    return {"metadata": metadata, "spec": full, "status": status or {}}


def parse(found: dict[str, Any]) -> tuple[WhatsAppSession, str | None]:
    return parse_session(SessionView.parse(found, 0.0))


class Scene:
    """A cache with one session, and a clock that is set by hand."""

    def __init__(self, options: Options = OPTIONS) -> None:
        self.now = 100.0
        self.cache = Cache(clock=lambda: self.now)
        self.cache.put_session(body())
        self.observer = Observer(self.cache, options, namespace="system", clock=lambda: self.now)
        session, _ = parse(body())
        self.lease = lease_name(session, PHONE, options)

    def observe(self) -> Observed:
        found = self.observer.observe(KEY)
        assert found is not None
        return found

    def put_claim(self, holder: str, version: int = 1) -> None:
        metadata = {"namespace": "system", "name": self.lease, "uid": "l", "resourceVersion": str(version)}
        self.cache.put_claim({"metadata": metadata, "spec": {"holderIdentity": holder}})

    def holder(self) -> Holder:
        return self.observe().claims[PHONE].holder


def test_no_session_is_no_observation() -> None:
    assert Scene().observer.observe(Key("team", "other")) is None


def test_who_holds_the_claim() -> None:
    scene = Scene()
    assert scene.holder() is Holder.NOBODY
    scene.put_claim(f"team/shop/{UID}")
    assert scene.holder() is Holder.OURS
    assert [claim.name for claim in scene.observe().held] == [scene.lease]


def test_a_holder_that_lives_holds_provisionally_until_it_has_paired_the_number() -> None:
    scene = Scene()
    scene.put_claim("team/other/o")
    scene.cache.put_session(body("other", "o"))
    assert scene.holder() is Holder.PROVISIONAL
    assert scene.observe().claims[PHONE].held_by == "team/other"
    linked = {
        "credentials": {"present": True, "valid": True},
        "device": {"jid": f"{PHONE.removeprefix('+')}:3@s.whatsapp.net"},
    }
    scene.cache.put_session(body("other", "o", status={"session": linked}, version=2))
    assert scene.holder() is Holder.OTHER


def test_a_holder_that_is_not_known_is_looked_up_again_after_a_while() -> None:
    scene = Scene(replace(OPTIONS, claim_scope=ClaimScope.CLUSTER))
    scene.put_claim("elsewhere/other/o")
    assert scene.holder() is Holder.UNKNOWN
    assert scene.observe().claims[PHONE].held_by is None
    scene.cache.holders["l", "1"] = (True, scene.now)
    assert scene.holder() is Holder.OTHER
    scene.now += HOLDER_SECONDS
    assert scene.holder() is Holder.UNKNOWN
    scene.cache.holders["l", "1"] = (False, scene.now)
    assert scene.holder() is Holder.GONE
    scene.put_claim("elsewhere/next/n", version=2)
    assert scene.holder() is Holder.UNKNOWN


@pytest.mark.parametrize("identity", ["elsewhere/other/o", "garbage"])
def test_a_claim_of_the_tenant_is_of_no_session_elsewhere(identity: str) -> None:
    scene = Scene()
    scene.put_claim(identity)
    assert scene.holder() is Holder.GONE


def test_a_successor_of_the_same_name_is_not_the_holder() -> None:
    scene = Scene()
    scene.put_claim("team/shop/former-uid")
    assert scene.holder() is Holder.UNKNOWN


@pytest.mark.parametrize(
    ("jid", "phone"),
    [
        ("15551230001:3@s.whatsapp.net", "+15551230001"),
        ("15551230001@s.whatsapp.net", "+15551230001"),
        ("15551230001.0:3@s.whatsapp.net", "+15551230001"),
        ("", None),
        (None, None),
        ("123@lid", None),
        ("0123456789@s.whatsapp.net", None),
    ],
)
def test_the_number_in_an_address(jid: str | None, phone: str | None) -> None:
    assert phone_of_jid(jid) == phone


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"phone": "call me"}, "spec.phone"),
        ({"pairing": {"attempts": 99}}, "spec.pairing.attempts"),
        ({"tenant": "Not A Label"}, "spec.tenant"),
        ({"storage": {"accessMode": "Sometimes"}}, "spec.storage.accessMode"),
    ],
)
def test_a_spec_that_admission_should_have_refused_is_named(spec: dict[str, Any], field: str) -> None:
    session, why = parse(body(spec=spec))
    assert why is not None
    assert why.startswith(f"{field}: ")
    assert "call me" not in why
    assert session.metadata.uid == UID


def test_a_report_that_does_not_fit_is_dropped_and_the_rest_kept() -> None:
    session, why = parse(body(status={"phase": "Connected", "session": {"machine": "Flying"}}))
    assert why is None
    assert (session.status.phase, session.status.session) == ("Connected", None)


def test_a_status_that_does_not_fit_is_dropped() -> None:
    session, why = parse(body(status={"phase": "Elsewhere"}))
    assert why is None
    assert session.status.phase is None


def test_a_pod_does_not_prove_that_its_account_is_still_there() -> None:
    scene = Scene()
    labels = {names.LABEL_SESSION: "shop", names.LABEL_SESSION_UID: UID}
    metadata = {"namespace": "team", "name": "wa-shop", "uid": "p", "resourceVersion": "1", "labels": labels}
    scene.cache.put_pod({"metadata": metadata})
    assert not scene.observe().namespace_ready
    scene.cache.namespaces_ready.add("team")
    assert scene.observe().namespace_ready


def test_a_new_pod_has_a_secret_only_if_this_process_knows_it() -> None:
    scene = Scene()
    assert not scene.observe().secret_ready
    metadata = {
        "namespace": "team",
        "name": "wa-shop",
        "uid": "p",
        "resourceVersion": "1",
        "labels": {names.LABEL_SESSION: "shop", names.LABEL_SESSION_UID: UID},
    }
    scene.cache.put_pod({"metadata": metadata})
    assert scene.observe().secret_ready
    scene.cache.secrets[UID] = False
    assert not scene.observe().secret_ready
    assert scene.observe().secret_gone


def test_a_rival_is_one_that_can_be_primary() -> None:
    scene = Scene()
    connected = {"conditions": [{"type": "Connected", "status": "True", "lastTransitionTime": "2026-11-21T10:00:00Z"}]}
    for name in ("rival", "paused", "deleted"):
        found = body(name, name, status=connected)
        if name == "paused":
            found["metadata"]["annotations"] = {names.ANNOTATION_PAUSED: "true"}
        if name == "deleted":
            found["metadata"]["deletionTimestamp"] = "2026-11-21T10:00:00Z"
        scene.cache.put_session(found)
    assert [uid for _, uid in scene.observe().rivals] == ["rival"]
