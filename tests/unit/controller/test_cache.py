from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from whatsapp_operator.api import names
from whatsapp_operator.controller.cache import Cache
from whatsapp_operator.controller.views import Key

KEY = Key("team", "shop")


def body(version: int, *, uid: str = "u", deleting: bool = False, tenant: str = "acme") -> dict[str, Any]:
    metadata = {"namespace": "team", "name": "shop", "uid": uid, "resourceVersion": str(version), "managedFields": [1]}
    if deleting:
        metadata["deletionTimestamp"] = "2026-11-21T10:00:00Z"
    return {"metadata": metadata, "spec": {"tenant": tenant}}


def pod_body(version: int, *, uid: str = "p", name: str = "wa-shop") -> dict[str, Any]:
    labels = {names.LABEL_SESSION: "shop", names.LABEL_SESSION_UID: "u"}
    return {
        "metadata": {
            "namespace": "team",
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "labels": labels,
        }
    }


def test_an_older_version_never_replaces_a_newer_one() -> None:
    cache = Cache()
    assert cache.put_session(body(5)) == [KEY]
    assert cache.put_session(body(4)) == []
    assert cache.put_session(body(5)) == []
    found = cache.sessions.get(KEY)
    assert found is not None
    assert found.version == "5"
    assert found.body["metadata"].get("managedFields") is None
    assert found.body["spec"] == {"tenant": "acme"}


def test_what_is_late_does_not_bring_a_removed_object_back() -> None:
    cache = Cache()
    cache.put_session(body(5))
    assert cache.remove_session(KEY, "u", "6")
    assert cache.put_session(body(5)) == []
    assert cache.sessions.get(KEY) is None
    assert cache.put_session(body(7, uid="other")) == [KEY]


def test_the_end_of_an_earlier_object_does_not_remove_a_later_one_of_that_name() -> None:
    cache = Cache()
    cache.put_session(body(7, uid="other"))
    assert not cache.remove_session(KEY, "u", "6")
    assert cache.sessions.get(KEY) is not None


def test_a_full_list_removes_what_it_does_not_hold_but_nothing_newer() -> None:
    cache = Cache()
    cache.put_pod(pod_body(5))
    assert cache.pods.prune(set(), "4") == []
    assert cache.pods.prune({KEY}, "9") == []
    assert cache.pods.prune(set(), "9", "elsewhere") == []
    assert [key for key, _ in cache.pods.prune(set(), "9", "team")] == [KEY]
    assert cache.pods.get(KEY) is None


def test_a_list_that_was_read_before_a_deletion_does_not_bring_it_back() -> None:
    cache = Cache()
    cache.put_session(body(5))
    cache.remove_session(KEY, "u", "8")
    assert cache.put_session(body(5)) == []
    assert cache.prune_sessions({KEY}, "7") == []
    assert cache.tenant("team", "acme") == []


def test_a_pod_of_another_name_is_no_sessions() -> None:
    assert Cache().put_pod(pod_body(1, name="something-else")) is None


def test_the_first_sight_of_a_deletion_is_kept() -> None:
    time = [1.0]
    cache = Cache(clock=lambda: time[0])
    cache.put_session(body(1))
    time[0] = 5.0
    cache.put_session(body(2, deleting=True))
    time[0] = 9.0
    cache.put_session(body(3, deleting=True))
    found = cache.sessions.get(KEY)
    assert found is not None
    assert found.deletion_seen == 5.0


def test_claims_are_found_by_their_holder() -> None:
    cache = Cache()
    metadata = {"namespace": "system", "name": "phone-1", "uid": "l", "resourceVersion": "1"}
    cache.put_claim({"metadata": metadata, "spec": {"holderIdentity": "team/shop/u"}})
    assert [claim.name for claim in cache.claims_of("u")] == ["phone-1"]
    newer = {**metadata, "resourceVersion": "2"}
    cache.put_claim({"metadata": newer, "spec": {"holderIdentity": "team/other/x"}})
    assert cache.claims_of("u") == []
    (claim,) = cache.claims_of("x")
    assert claim.holder == Key("team", "other")
    assert cache.remove_claim(Key("system", "phone-1"), claim.uid, claim.version) == claim
    assert cache.remove_claim(Key("system", "phone-1"), claim.uid, claim.version) is None
    assert cache.claims_of("x") == []


@given(st.permutations([("put", 1), ("put", 3), ("remove", 4), ("put", 2)]))
def test_the_order_of_arrival_does_not_matter(steps: list[tuple[str, int]]) -> None:
    cache = Cache()
    for step, version in steps:
        if step == "put":
            cache.put_pod(pod_body(version))
        else:
            cache.remove_pod(pod_body(version))
    assert cache.pods.get(KEY) is None


def test_claims_whose_holder_is_not_known() -> None:
    cache = Cache()
    cache.put_session(body(1))
    holders = {"held": "team/shop/u", "former": "team/shop/other", "vanished": "team/gone/g", "unreadable": "x"}
    for name, holder in holders.items():
        metadata = {"namespace": "system", "name": name, "uid": name, "resourceVersion": "1"}
        cache.put_claim({"metadata": metadata, "spec": {"holderIdentity": holder}})
    assert sorted(claim.name for claim in cache.claims_without_holder()) == ["former", "unreadable", "vanished"]


def test_who_may_be_primary_hears_of_it_when_the_primary_is_gone() -> None:
    connected = {"conditions": [{"type": "Connected", "status": "True", "lastTransitionTime": "2026-11-21T10:00:00Z"}]}
    cache = Cache()
    for name, status in (("shop", connected), ("heir", connected), ("idle", {})):
        found = body(1, uid=name)
        found["metadata"]["name"] = name
        cache.put_session({**found, "status": status})
    assert cache.remove_session(Key("team", "idle"), "idle", "2") == [Key("team", "idle")]
    cache.primaries["team", "acme"] = "shop"
    assert cache.prune_sessions({Key("team", "heir")}, "9") == [KEY, Key("team", "heir")]
    assert cache.primaries == {}


def test_who_waits_for_its_phone_hears_of_a_session_that_was_removed_by_force() -> None:
    cache = Cache()
    cache.put_session(body(1, uid="shop"))
    metadata = {"namespace": "system", "name": "phone-1", "uid": "l", "resourceVersion": "2"}
    cache.put_claim({"metadata": metadata, "spec": {"holderIdentity": "team/shop/shop"}})
    cache.waiting["phone-1"] = {Key("team", "next")}
    assert cache.remove_session(KEY, "shop", "3") == [KEY, Key("team", "next")]


def test_a_session_that_was_made_again_unseen_leaves_nothing_of_the_former_one() -> None:
    connected = {"conditions": [{"type": "Connected", "status": "True", "lastTransitionTime": "2026-11-21T10:00:00Z"}]}
    cache = Cache()
    heir = body(1, uid="heir")
    heir["metadata"]["name"] = "heir"
    cache.put_session({**heir, "status": connected})
    cache.put_session(body(2, uid="former"))
    cache.primaries["team", "acme"] = "former"
    cache.secrets["former"] = True
    assert cache.put_session(body(3, uid="next", tenant="other")) == [KEY, Key("team", "heir")]
    assert (cache.primaries, cache.secrets) == ({}, {})
    assert [key for key, _ in cache.tenant("team", "acme")] == [Key("team", "heir")]
    assert [key for key, _ in cache.tenant("team", "other")] == [KEY]


def test_a_session_that_is_gone_waits_for_no_phone_any_more() -> None:
    cache = Cache()
    cache.put_session(body(5))
    cache.waiting = {"phone-1": {KEY, Key("team", "other")}, "phone-2": {KEY}}
    cache.remove_session(KEY, "u", "6")
    assert cache.waiting == {"phone-1": {Key("team", "other")}}
