"""The operator is upgraded, rolled back, uninstalled and installed again by Helm under 20 connected sessions."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts.render import CHART, CLAIM_KEY, NAMESPACE, RELEASE
from tests.apiserver import Seen, Watch, conditions, secrets_path, sessions_path
from tests.cluster import images
from tests.e2e.release import Release
from tests.e2e.test_rollout import DEPLOYMENT, Deployment
from tests.scenario import Scenario, has_condition
from tests.target import Target
from tests.waiting import eventually
from whatsapp_operator.api import names

pytestmark = pytest.mark.alone

Phones = Callable[[], str]

SESSIONS = 20
CLAIMS = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
DEFINITION = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{names.PLURAL}.{names.GROUP}"


@pytest.fixture
def previous(release: Release, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """The chart as a former version, packaged, and values that name the operator's image differently."""
    shutil.copytree(CHART, tmp_path / RELEASE)
    described = yaml.safe_load((CHART / "Chart.yaml").read_text())
    (tmp_path / RELEASE / "Chart.yaml").write_text(yaml.safe_dump({**described, "version": "0.0.1"}))
    release.run("package", str(tmp_path / RELEASE), f"--destination={tmp_path}")
    values = release.values()
    image = values["operator"]["image"]
    images.tag(f"{image['repository']}:{image['tag']}", f"{image['repository']}:previous")
    operator = {**values["operator"], "image": {**image, "tag": "previous"}}
    return tmp_path / f"{RELEASE}-0.0.1.tgz", {**values, "operator": operator}


@dataclass(frozen=True)
class Fleet:
    """Sessions by their names, each with its phone."""

    scenario: Scenario
    phones: dict[str, str]

    def manifest(self, name: str, **spec: Any) -> dict[str, Any]:
        # Without unlinking they go at once in the end.
        return self.scenario.manifest(name, phone=self.phones[name], deletionPolicy="Keep", **spec)

    def connect(self) -> None:
        """Makes them and pairs them all."""
        with (
            self.scenario.api.watch(f"{sessions_path(self.scenario.namespace)}/") as watch,
            ThreadPoolExecutor(len(self.phones)) as people,
        ):
            self.scenario.apply({"apiVersion": "v1", "kind": "List", "items": list(map(self.manifest, self.phones))})
            list(people.map(partial(self._pair, watch), self.phones))

    def _pair(self, watch: Watch, name: str) -> None:
        def mine(kind: str) -> Callable[[Seen], bool]:
            return lambda seen: seen.object["metadata"]["name"] == name and has_condition(kind)(seen)

        phone = self.phones[name]
        self.scenario.simulator.add_phone(phone)
        watch.wait(mine("QRReady"), f"QRReady of {name}", seconds=180)
        self.scenario.simulator.scan(phone, self.scenario.qr(name))
        watch.wait(mine("Connected"), f"Connected of {name}", seconds=180)

    def settled(self) -> bool:
        found = self.scenario.api.get(sessions_path(self.scenario.namespace))["items"]
        return all(session["status"]["pairing"].get("succeeded") == 1 for session in found)

    def seen(self) -> dict[str, Any]:
        """What is another thing once one of them is replaced, restarted, connected or paired again."""
        core = f"/api/v1/namespaces/{self.scenario.namespace}"
        pods = {pod["metadata"]["name"]: pod for pod in self.scenario.api.get(f"{core}/pods")["items"]}
        return {
            name: {
                "pod": pods[names.owned_name(name)]["metadata"]["uid"],
                "restarts": pods[names.owned_name(name)]["status"]["containerStatuses"][0]["restartCount"],
                "devices": [
                    (device["id"], device["connected"], device["logins"])
                    for device in self.scenario.simulator.devices(phone)
                ],
            }
            for name, phone in self.phones.items()
        }


@pytest.fixture
def fleet(scenario: Scenario, new_phone: Phones) -> Fleet:
    return Fleet(scenario, {f"s{number:02}": new_phone() for number in range(SESSIONS)})


def looked_at_all(target: Target) -> None:
    """Waits until an operator that leads has compared every session with what it would make of it."""
    deployment = Deployment(target)
    eventually(lambda: deployment.counted("updated") >= SESSIONS, "the operator has looked at all", seconds=60)


def uids(target: Target, path: str) -> dict[str, str]:
    return {item["metadata"]["name"]: item["metadata"]["uid"] for item in target.api.get(path)["items"]}


def lasting(target: Target, scenario: Scenario) -> dict[str, Any]:
    """What an uninstalled operator leaves behind, as its successor finds it."""
    claims = uids(target, CLAIMS)
    return {
        "sessions": uids(target, sessions_path(scenario.namespace)),
        "volumes": uids(target, f"/api/v1/namespaces/{scenario.namespace}/persistentvolumeclaims"),
        "claims": {name: uid for name, uid in claims.items() if name.startswith("phone-")},
        "key": target.api.get(secrets_path(NAMESPACE, CLAIM_KEY))["data"],
        "definition": target.api.get(DEFINITION)["metadata"]["uid"],
    }


@contextmanager
def unnoticed(fleet: Fleet) -> Iterator[None]:
    """What is done meanwhile ends no connection and restarts no pod."""
    before = fleet.seen()
    yield
    assert fleet.seen() == before


def test_a_life_of_the_release(
    release: Release, previous: tuple[Path, dict[str, Any]], fleet: Fleet, target: Target, scenario: Scenario
) -> None:
    values = release.values()
    # Sessions come up while the operator is replaced, too.
    with ThreadPoolExecutor(1) as installing:
        installed = installing.submit(release.upgrade, *previous)
        fleet.connect()
        installed.result()
    former = target.api.get(DEPLOYMENT)["spec"]["template"]

    with unnoticed(fleet):
        release.upgrade(CHART, values)
        assert target.api.get(DEPLOYMENT)["spec"]["template"] != former
        looked_at_all(target)

    with unnoticed(fleet):
        release.run("rollback", RELEASE, "--wait", "--timeout=180s")
        assert target.api.get(DEPLOYMENT)["spec"]["template"] == former
        looked_at_all(target)

    # What a session has to tell, it has told.
    eventually(fleet.settled, "all pairings have lasted", seconds=60)
    with unnoticed(fleet):
        before = lasting(target, scenario)
        release.run("uninstall", RELEASE, "--wait", "--timeout=180s")
        assert target.api.find(DEPLOYMENT) is None
        assert lasting(target, scenario) == before
        release.upgrade(CHART, values)
        looked_at_all(target)
        assert lasting(target, scenario) == before
        scenario.apply(fleet.manifest("s00", pairing={"attempts": 5}))
        generation = scenario.get("s00")["metadata"]["generation"]
        eventually(lambda: scenario.get("s00")["status"]["observedGeneration"] == generation, "the change is acted on")
    found = target.api.get(sessions_path(scenario.namespace))["items"]
    assert {conditions(session)["Ready"]["status"] for session in found} == {"True"}
