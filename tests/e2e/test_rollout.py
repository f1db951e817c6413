"""The operator, and then the session image, are upgraded under connected sessions."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from charts.render import NAMESPACE
from tests.apiserver import ApiError, Watch, conditions, sessions_path
from tests.cluster import images
from tests.scenario import Scenario, has_condition
from tests.target import Target
from tests.waiting import eventually

pytestmark = pytest.mark.alone

Phones = Callable[[], str]

DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/whatsapp-operator"
SESSIONS = ("one", "two")


class Deployment:
    """The operator's."""

    def __init__(self, target: Target) -> None:
        self._target = target
        spec = target.api.get(DEPLOYMENT)["spec"]
        self._template, self._strategy = spec["template"], spec["strategy"]

    def variable(self, name: str) -> str:
        [container] = self._template["spec"]["containers"]
        [value] = [variable["value"] for variable in container["env"] if variable["name"] == name]
        return str(value)

    def change(self, *arguments: str, **variables: str) -> None:
        """Set arguments and variables of the environment of the operator, and wait until it is rolled out."""
        env = [{"name": name, "value": value} for name, value in variables.items()]
        [container] = self._template["spec"]["containers"]
        # The last one of the same name counts.
        told = {"args": [*container["args"], *arguments]} if arguments else {}
        template = {"spec": {"containers": [{"name": "operator", "env": env, **told}]}}
        # Both replicas at once, so that it takes half the time.
        at_once = {"rollingUpdate": {"maxSurge": 2}}
        self._patch("strategic-merge", {"spec": {"template": template, "strategy": at_once}})

    def restore(self) -> None:
        # The strategy last, so that this takes half the time too.
        for part, former in (("template", self._template), ("strategy", self._strategy)):
            self._patch("json", [{"op": "replace", "path": f"/spec/{part}", "value": former}])

    def counted(self, state: str) -> int:
        """How many sessions the leader counts in this state; -1 while there is no leader that answers."""
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        for pod in self._target.api.get(f"{pods}?labelSelector=app.kubernetes.io/component=controller")["items"]:
            if pod["status"]["phase"] != "Running" or "deletionTimestamp" in pod["metadata"]:
                continue  # nobody answers
            try:
                text = self._target.api.get(f"{pods}/{pod['metadata']['name']}:8081/proxy/metrics")
            except ApiError:
                continue  # it has just ended
            if "whatsapp_operator_leader 1.0" in text:
                found = re.search(rf'whatsapp_operator_rollout_sessions{{state="{state}"}} (\d+)', text)
                return int(found[1]) if found else -1
        return -1

    def _patch(self, kind: str, patch: Any) -> None:
        self._target.api.request("PATCH", DEPLOYMENT, patch, f"application/{kind}-patch+json")
        arguments = ("rollout", "status", f"--namespace={NAMESPACE}", "deployment/whatsapp-operator", "--timeout=120s")
        self._target.kubectl.run(*arguments, seconds=130)


@pytest.fixture
def deployment(target: Target) -> Iterator[Deployment]:
    found = Deployment(target)
    yield found
    found.restore()


def running(scenario: Scenario) -> dict[str, tuple[Any, ...]]:
    """What is another thing once a session is replaced, restarted, connected or paired again."""
    found = {}
    for name in SESSIONS:
        status = scenario.get(name)["status"]
        report = status["session"]
        found[name] = (report["podUID"], report["bootID"], report["connection"]["since"], status["pod"]["restarts"])
    return found


def down(watch: Watch, since: float) -> list[set[str]]:
    """Who was not connected, at each moment from then on."""
    now: set[str] = set()
    found = []
    for seen in watch.events:
        name = seen.object["metadata"]["name"]
        connected = conditions(seen.object).get("Connected", {}).get("status") == "True"
        now = now - {name} if connected else now | {name}
        if seen.at > since:
            found.append(now)
    return found


def told(watch: Watch, since: float) -> str:
    """What was seen of each session from then on, for a failure."""
    lines = []
    for seen in watch.events:
        if seen.at > since:
            connected = conditions(seen.object).get("Connected", {})
            facts = (connected.get("status"), connected.get("reason"), seen.status.get("rollout"))
            lines.append(f"{seen.at - since:7.2f} s {seen.object['metadata']['name']}: {facts}")
    return "\n".join(lines)


def test_upgrades(scenario: Scenario, deployment: Deployment, new_phone: Phones) -> None:
    phones = {name: new_phone() for name in SESSIONS}
    with scenario.api.watch(f"{sessions_path(scenario.namespace)}/") as watch:
        for name, phone in phones.items():
            scenario.apply(scenario.manifest(name, phone=phone))
        for name, phone in phones.items():
            with scenario.watching(name) as one:
                paired = scenario.pair(name, phone, one).at
        devices = {name: [d["id"] for d in scenario.simulator.devices(phone)] for name, phone in phones.items()}
        before = running(scenario)

        deployment.change(
            "--max-unavailable=1",
            "--rollout-delay-seconds=0",
            WHATSAPP_OPERATOR_VERSION="next",
        )
        eventually(lambda: deployment.counted("updated") >= len(SESSIONS), "the next operator has looked at all")
        assert running(scenario) == before
        assert {frozenset(names) for names in down(watch, paired)} <= {frozenset()}

        image = deployment.variable("SESSION_IMAGE")
        alias = f"{image.rpartition(':')[0]}:rollout-test"
        images.tag(image, alias)
        deployment.change(SESSION_IMAGE=alias)

        def all_replaced() -> bool:
            found = [(scenario.get(name), scenario.running_pod(name)) for name in SESSIONS]
            return all(
                pod is not None
                and pod["spec"]["containers"][0]["image"] == alias
                and conditions(session)["Connected"]["status"] == "True"
                and session["status"]["session"]["podUID"] == pod["metadata"]["uid"]
                and "rollout" not in session["status"]
                for session, pod in found
            )

        eventually(all_replaced, "all are connected with the next image", seconds=90)
        assert max(len(names) for names in down(watch, paired)) == 1, told(watch, paired)
        replaced = [seen.object["metadata"]["name"] for seen in watch.events if "rollout" in seen.status]
        assert replaced[-1] == "one", "the primary session comes last"
        assert all(has_condition("AuthPaired")(seen) for seen in watch.events if seen.at > paired)
    assert {name: [d["id"] for d in scenario.simulator.devices(phone)] for name, phone in phones.items()} == devices
