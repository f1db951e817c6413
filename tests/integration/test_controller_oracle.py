"""What Acto calls the oracle (SOSP 2023): however a spec came about, what is owned is what a fresh object would get.

Random chains of changes are made to sessions in one namespace; then sessions of the same names are created in another
namespace, with the specs that the chains have ended in. Both sides must be the same, and so must what their deletion
leaves behind. Among the changes are slips: what is refused by admission, or can be no pod or phone, and is taken back.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from tests.apiserver import ApiError, conditions, sessions_path
from tests.cluster.control_plane import ControlPlane
from tests.integration.controller_kubelet import PROVISIONER, Kubelet
from tests.integration.controller_stand_ins import Replica, Stage, live_api, make_namespace, operators
from tests.waiting import eventually
from whatsapp_operator.api import names
from whatsapp_operator.controller.quantity import parse

Patch: TypeAlias = dict[str, Any]

PHONES: Final = ("+15551240001", "+15551240002", "+15551240003")
CLASSES: Final = ("oracle-a", "oracle-b")
# Each example has several sessions, so that they wait side by side.
SESSIONS_AT_ONCE: Final = 5
EXAMPLES: Final = max(2, settings().max_examples // 100)


def spec(**fields: Any) -> Patch:
    return {"spec": fields}


def template(**fields: Any) -> Patch:
    return spec(template=fields)


def annotation(name: str, value: str | None) -> Patch:
    return {"metadata": {"annotations": {name: value}}}


def one_of(make: Callable[[Any], Patch], *values: Any) -> st.SearchStrategy[Patch]:
    return st.sampled_from(values).map(make)


AFFINITY: Final = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]
        }
    }
}
SPREAD: Final = {
    "maxSkew": 1,
    "topologyKey": "zone",
    "whenUnsatisfiable": "ScheduleAnyway",
    "labelSelector": {"matchLabels": {"example.com/team": "a"}},
}
VALID: Final = (
    one_of(lambda v: spec(phone=v), *PHONES[::-1], None),
    one_of(lambda v: spec(pairing={"method": v}), "QRCode", "PairingCode", None),
    one_of(lambda v: spec(pairing={"attempts": v}), 1, 7, 20, None),
    one_of(lambda v: spec(pairing=v), {"displayName": "Safari (Mac OS)"}, None),
    one_of(lambda v: spec(suspend=v), True, False, False, None),
    one_of(lambda v: spec(storage={"size": v}), "64Mi", "256Mi", "1Gi", "2Gi"),
    one_of(lambda v: spec(storage={"retentionPolicy": v}), "Delete", "Retain", None),
    one_of(lambda v: spec(deletionPolicy=v), "Unlink", "Keep", None),
    one_of(lambda v: spec(recovery=v), {"onLoggedOut": "Hold"}, {"onLoggedOut": "Relink"}, None),
    one_of(lambda v: spec(recovery={"inactiveExpiry": v}), "100h", "2160h", None),
    one_of(
        lambda v: spec(proxy=v),
        {"url": "http://proxy.example:3128", "secretRef": None},
        {"url": None, "secretRef": {"name": "proxy", "key": "url"}},
        None,
    ),
    one_of(
        lambda v: spec(caBundle=v),
        {"secretRef": {"name": "ca", "key": "a.crt"}, "configMapRef": None},
        {"secretRef": None, "configMapRef": {"name": "ca", "key": "b.crt"}},
        None,
    ),
    one_of(lambda v: template(labels={"example.com/team": v}), "a", "b", None),
    one_of(lambda v: template(annotations={"example.com/note": v}), "a", "b", None),
    one_of(lambda v: template(resources={"limits": {"memory": v}}), "128Mi", "256Mi", None),
    one_of(lambda v: template(resources={"requests": {"cpu": v}}), "20m", 1, None),
    one_of(lambda v: template(nodeSelector={"disk": v}), "fast", "slow", None),
    one_of(lambda v: template(image=v), "example/session:2", None),
    one_of(lambda v: template(priorityClassName=v), "oracle", None),
    one_of(lambda v: template(tolerations=v), [{"key": "dedicated", "operator": "Exists"}], [], None),
    one_of(lambda v: template(affinity=v), AFFINITY, None),
    one_of(lambda v: template(topologySpreadConstraints=v), [SPREAD], None),
    one_of(lambda v: template(imagePullSecrets=v), [{"name": "registry"}], None),
    one_of(lambda v: spec(template=v), None),
    one_of(lambda v: annotation(names.ANNOTATION_FORCE_RELINK, v), "1", "2", None),
    one_of(lambda v: annotation(names.ANNOTATION_LOG_LEVEL, v), "debug", "loud", None),
    one_of(lambda v: annotation(names.ANNOTATION_PAUSED, v), "true", None),
)
# Only until the volume is bound.
VALID_AT_FIRST: Final = st.one_of(
    *VALID,
    one_of(lambda v: spec(storage={"storageClassName": v}), *CLASSES),
    one_of(lambda v: spec(storage={"accessMode": v}), "ReadWriteOnce", "ReadWriteOncePod", None),
    one_of(lambda v: spec(storage={"size": v}), "64Mi", "256Mi", "1Gi"),
)


# Refused by admission.
REFUSED: Final = st.one_of(
    one_of(lambda v: spec(tenant=v), "another"),
    one_of(lambda v: spec(phone=v), "12"),
    one_of(lambda v: spec(pairing={"attempts": v}), 0),
    one_of(lambda v: spec(pairing={"displayName": v}), "x"),
    one_of(lambda v: spec(storage={"size": v}), "much", "1Ti"),
    one_of(lambda v: spec(proxy=v), {"url": "http://p:1", "secretRef": {"name": "p", "key": "k"}}, {"url": "//p"}),
    one_of(lambda v: template(labels=v), {"app.kubernetes.io/name": "x"}),
    one_of(lambda v: template(resources={"limits": {"memory": v}}), "1Mi"),
)
# Found out by the operator, or by the API server when it is given the pod.
INVALID: Final = st.one_of(
    one_of(lambda v: spec(phone=v), "+9991234567"),
    one_of(lambda v: template(image=v), "example/other:1"),
    one_of(lambda v: template(priorityClassName=v), "other"),
    one_of(lambda v: template(tolerations=v), [{"key": "other"}]),
    one_of(lambda v: template(affinity=v), {"nodeAffinity": "none"}, {"podAffinity": {"unknown": 1}}),
    one_of(lambda v: template(nodeSelector=v), {"no key": "x"}),
    one_of(lambda v: template(topologySpreadConstraints=v), [{"maxSkew": 0}]),
    one_of(lambda v: template(resources=v), {"requests": {"memory": "1Gi"}, "limits": {"memory": "64Mi"}}),
    one_of(lambda v: spec(storage=v), {"storageClassName": "missing"}, {"size": "32Mi"}),
)


@dataclass(frozen=True)
class Step:
    """A change, whether the operator is given the time to act on it, and whether it is taken back after that."""

    patch: Patch
    waits: bool
    slips: bool


@dataclass(frozen=True)
class Chain:
    """Changes before the volume is bound, and after."""

    early: list[Step]
    late: list[Step]


def change(patches: st.SearchStrategy[Patch]) -> st.SearchStrategy[Step]:
    return st.builds(Step, patches, WAITS, st.just(value=False))


WAITS: Final = st.sampled_from((True, False))
SLIP: Final = st.builds(Step, REFUSED | INVALID, WAITS, st.just(value=True))


@st.composite
def chains_of_all(draw: st.DrawFn) -> list[Chain]:
    """One for each session; every part of a spec is changed in one of them, once its volume is bound."""
    order = draw(st.permutations(VALID))
    found = []
    for number in range(SESSIONS_AT_ONCE):
        late = [draw(change(patches)) for patches in order[number::SESSIONS_AT_ONCE]]
        late.insert(draw(st.integers(0, len(late))), draw(SLIP))
        early = draw(st.lists(change(VALID_AT_FIRST) | SLIP, min_size=1, max_size=3))
        found.append(Chain(early, late))
    return found


class World:
    """Two namespaces with one operator and one kubelet: what was changed, and what is fresh."""

    def __init__(self, changed: Stage, fresh: Stage, operator: Replica, kubelet: Kubelet) -> None:
        self.api, self.changed, self.fresh, self.operator, self.kubelet = changed.api, changed, fresh, operator, kubelet
        self._numbers = itertools.count()

    def name(self) -> str:
        return f"s{next(self._numbers)}"

    def settle(self) -> None:
        """Wait until neither the operator nor the kubelet has anything left to do."""
        last, since = self.operator.writes(), time.monotonic()

        def quiet() -> bool:
            nonlocal last, since
            self.kubelet.check()
            found = self.operator.writes()
            if found != last:
                last, since = found, time.monotonic()
            return time.monotonic() - max(since, self.kubelet.last_act) > 0.5

        eventually(quiet, "nothing is left to do", seconds=120, every=0.05)

    def create(self, stage: Stage, name: str, wanted: Patch, annotations: dict[str, str]) -> None:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name, "annotations": annotations},
            "spec": wanted,
        }
        self.api.create(sessions_path(stage.namespace), body)

    def change(self, name: str, patch: Patch) -> None:
        """Make a change, unless it is one that is never valid: the volume would have to shrink."""
        size = patch.get("spec", {}).get("storage", {}).get("size") if patch.get("spec", {}).get("storage") else None
        volume = self.api.find(self.changed.volume_path(name))
        bound = volume is not None and volume["status"].get("phase") == "Bound"
        if size is not None and bound and parse(size) < parse(volume["spec"]["resources"]["requests"]["storage"]):
            return
        try:
            self.changed.patch(name, patch)
        except ApiError as error:
            # A code for nobody: the phone was removed before.
            if "phone is required for pairing.method PairingCode" not in error.message:
                raise

    def slip(self, name: str, patch: Patch) -> Patch:
        """Make a change that should not be made; returns what takes it back."""
        before = self.changed.session(name)
        try:
            self.changed.patch(name, patch)
        except ApiError as error:
            assert error.status in (403, 422), error  # noqa: PT017 - most of them are not refused here
            return {}
        return inverse(patch, before)

    def bind(self, stage: Stage, name: str) -> None:
        self.kubelet.bindable.add((stage.namespace, name))

    def wait_connected(self, stage: Stage, name: str) -> None:
        def probe() -> bool:
            self.kubelet.check()
            return bool(conditions(stage.session(name)).get("Connected", {}).get("status") == "True")

        eventually(probe, f"{name} is connected", seconds=120)


def owned(stage: Stage, name: str) -> dict[str, Any]:
    """Everything that there is of a session, without what is another thing for each object, or tells of the past."""
    session = stage.session(name)
    uid = session["metadata"]["uid"]

    def same(body: Any) -> Any:
        # Namespace and uid are in labels, environment, owners and messages of each alike.
        return json.loads(json.dumps(body).replace(uid, "<uid>").replace(f"{stage.namespace}", "<namespace>"))

    status = session["status"]
    pod = stage.find_pod(name)
    relink, pairing, pod_status = (status.get(key) or {} for key in ("relink", "pairing", "pod"))
    return {
        "finalizers": session["metadata"].get("finalizers"),
        "seen": status.get("observedGeneration") == session["metadata"]["generation"],
        "status": {key: status.get(key) for key in ("phase", "sessionState", "authPaired", "primary", "phone")},
        "conditions": {
            kind: (c["status"], c["reason"], c["message"], c["observedGeneration"] == session["metadata"]["generation"])
            for kind, c in conditions(session).items()
        },
        # A request whose token was removed again is a record of the past, as are ids and times. Without a pod it waits.
        "relink": relink.get("outcome") if "tokenHash" in relink and pod is not None else None,
        "pairing": {key: pairing.get(key) for key in ("state", "attempt", "secretName", "succeeded")},
        # As last reported: while there is no pod, that may be what was asked for then.
        "method": pairing.get("method") if pod is not None else None,
        "pod status": {key: pod_status.get(key) for key in ("name", "node", "image", "restarts")},
        "pod": same(pod and pod_of(pod)),
        "volume": same(volume_of(stage, name)),
        "secret": same(secret_of(stage, name)),
        "claims": same(claims_of(stage, name, session["spec"]["tenant"])),
    }


def differences(changed: Any, fresh: Any, where: str = "") -> Iterator[str]:
    if isinstance(changed, dict) and isinstance(fresh, dict):
        for key in sorted(changed.keys() | fresh.keys()):
            yield from differences(changed.get(key), fresh.get(key), f"{where}.{key}")
    elif changed != fresh:
        yield f"{where}: {changed!r}, of a fresh one {fresh!r}"


def pod_of(pod: dict[str, Any]) -> Any:
    annotations = dict(pod["metadata"]["annotations"])
    desired = json.loads(annotations.pop(names.ANNOTATION_DESIRED_STATE))
    # The last request that was ever made, also where its token is gone: the volume has done it.
    desired.pop("relinkRequestID")
    # Both hold uid or generation in a form that cannot be replaced; what they are made of is compared below.
    annotations.pop(names.ANNOTATION_APPLIED_HASH)
    annotations.pop(names.ANNOTATION_GENERATION)
    return {
        "labels": pod["metadata"]["labels"],
        "annotations": annotations,
        "desired": desired,
        "spec": pod["spec"],
        "owners": pod["metadata"].get("ownerReferences"),
        "ends": "deletionTimestamp" in pod["metadata"],
    }


def volume_of(stage: Stage, name: str) -> Any:
    volume = stage.api.find(stage.volume_path(name))
    if volume is None:
        return None
    # The volume behind it has the name that whoever provides it gives.
    kept = {key: value for key, value in volume["spec"].items() if key != "volumeName"}
    return {
        "labels": volume["metadata"]["labels"],
        "spec": kept,
        "owners": volume["metadata"].get("ownerReferences"),
        "ends": "deletionTimestamp" in volume["metadata"],
    }


def secret_of(stage: Stage, name: str) -> Any:
    secret = stage.api.find(stage.secret_path(name))
    metadata = secret["metadata"] if secret is not None else {}
    return {"labels": metadata.get("labels"), "owners": metadata.get("ownerReferences")}


def claims_of(stage: Stage, name: str, tenant: str) -> Any:
    """By phone: the name of a Lease is a hash that holds the namespace."""
    phones = {names.claim_name(b"k" * 32, f"{stage.namespace}/{tenant}", phone): phone for phone in PHONES}
    return {
        phones[claim["metadata"]["name"]]: (claim["spec"]["holderIdentity"], claim["metadata"]["labels"])
        for claim in stage.claims(name)
    }


def left(stage: Stage, name: str) -> Any:
    """What is there after the end of a session."""
    claimed = stage.claims(name)
    return [stage.find_pod(name), volume_of(stage, name), stage.api.find(stage.secret_path(name)), claimed]


@pytest.fixture(scope="module")
def world(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with live_api(control_plane) as api:
        changed, fresh = make_namespace(api, "oracle-changed"), make_namespace(api, "oracle-fresh")
        for name in CLASSES:
            kind = {"metadata": {"name": name}, "provisioner": PROVISIONER, "allowVolumeExpansion": True}
            api.create("/apis/storage.k8s.io/v1/storageclasses", kind)
        api.create(
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            {"metadata": {"name": "oracle"}, "value": 7, "globalDefault": False},
        )
        namespaces = (changed.namespace, fresh.namespace)
        with (
            Kubelet(api, namespaces) as kubelet,
            operators(api, tmp_path_factory.mktemp("operator"), ",".join(namespaces)) as found,
        ):
            operator = found.start_leader(
                *("--allow-images", "example/session:2", "--allow-toleration-keys", "dedicated"),
                *("--allow-priority-classes", "oracle"),
            )
            yield World(changed, fresh, operator, kubelet)


def first_spec(name: str) -> Patch:
    return {"tenant": name, "phone": PHONES[0], "storage": {"storageClassName": CLASSES[0]}}


def begin(world: World, chains: list[Chain]) -> dict[str, Chain]:
    """Create the sessions and lead each through its chain."""
    found = {world.name(): chain for chain in chains}
    for name, chain in found.items():
        note(f"{name}: {chain}")
        world.kubelet.scanned_by[world.changed.namespace, name] = PHONES[0]
        world.create(world.changed, name, first_spec(name), {})
    lead(world, {name: chain.early for name, chain in found.items()})
    for name in found:
        world.bind(world.changed, name)
    for name in found:
        # A session without credentials owns less for as long as it is suspended; those of the other side have some too.
        world.changed.patch(name, spec(suspend=False) | annotation(names.ANNOTATION_PAUSED, None))
    for name in found:
        world.wait_connected(world.changed, name)
    lead(world, {name: chain.late for name, chain in found.items()})
    for name in found:
        # What is paused is left as it was, whatever its spec.
        world.changed.annotate(name, None, names.ANNOTATION_PAUSED)
    world.settle()
    return found


def inverse(patch: Patch, before: Any) -> Patch:
    """The merge patch that takes another one back."""
    return {
        key: inverse(value, before[key]) if isinstance(value, dict) and key in before else before.get(key)
        for key, value in patch.items()
    }


def lead(world: World, chains: dict[str, list[Step]]) -> None:
    """Make the changes, one of each session after the other."""
    for changes in itertools.zip_longest(*chains.values()):
        back = {}
        for name, step in zip(chains, changes, strict=True):
            if step is not None and step.slips:
                back[name] = world.slip(name, step.patch)
            elif step is not None:
                world.change(name, step.patch)
        if any(step.waits for step in changes if step is not None):
            world.settle()
        for name, patch in back.items():
            world.changed.patch(name, patch)


def compare(world: World, names_of: list[str]) -> None:
    """Create what is compared with, and compare; then delete both, and compare again."""
    for name in names_of:
        ended = world.changed.session(name)
        # Whose phone scans where none is declared is no matter of the spec.
        world.kubelet.scanned_by[world.fresh.namespace, name] = ended["status"]["phone"]
        world.bind(world.fresh, name)
        wanted = ended["spec"] | {"suspend": False}
        world.create(world.fresh, name, wanted, ended["metadata"].get("annotations", {}))
    for name in names_of:
        world.wait_connected(world.fresh, name)
        if world.changed.session(name)["spec"].get("suspend"):
            world.fresh.patch(name, spec(suspend=True))
    world.settle()
    for name in names_of:
        assert list(differences(owned(world.changed, name), owned(world.fresh, name), name)) == []
    both = (world.changed, world.fresh)
    for stage, name in itertools.product(both, names_of):
        stage.delete(name)
    for stage in both:
        eventually(lambda stage=stage: not sessions_of(stage), "the sessions are gone", seconds=120)  # type: ignore[misc]
    world.settle()
    for name in names_of:
        assert left(world.changed, name) == left(world.fresh, name)
        keys = [(stage.namespace, name) for stage in both]
        assert len({key in world.kubelet.unlinked for key in keys}) == 1


def sessions_of(stage: Stage) -> list[str]:
    return [body["metadata"]["name"] for body in stage.api.get(sessions_path(stage.namespace))["items"]]


def clean_up(world: World) -> None:
    """Whatever an example that has failed leaves, so that it does not disturb the smaller ones after it."""
    for stage in (world.changed, world.fresh):
        for name in sessions_of(stage):
            stage.patch(name, spec(deletionPolicy="Keep"))
            stage.delete(name)
        eventually(lambda stage=stage: not sessions_of(stage), "the sessions are gone", seconds=120)  # type: ignore[misc]
        stage.api.delete(f"/api/v1/namespaces/{stage.namespace}/persistentvolumeclaims")
    world.api.delete("/api/v1/persistentvolumes")


@given(chains=chains_of_all())
# What has failed is small enough to be read, and each attempt to make it smaller takes seconds.
@settings(max_examples=EXAMPLES, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
def test_however_a_spec_came_about_it_owns_the_same(world: World, chains: list[Chain]) -> None:
    try:
        compare(world, list(begin(world, chains)))
    finally:
        clean_up(world)
