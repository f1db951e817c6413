"""The NetworkPolicies of the chart let through what is needed, and nothing else."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from charts.render import CHART, NAMESPACE
from tests.apiserver import ApiServer, conditions
from tests.cluster import context
from tests.cluster.namespace import Namespace
from tests.cluster.network_policies import TABLE, ruleset
from tests.cluster.paths import cluster_paths
from tests.e2e.release import Release
from tests.scenario import SIMULATOR_NAMESPACE, Scenario, has_condition
from tests.target import Target
from tests.waiting import eventually
from whatsapp_operator.api import names

pytestmark = pytest.mark.alone

Phones = Callable[[], str]

PROXY_PORT = 9480
OPERATORS = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app.kubernetes.io/component=controller"
# Prints one line for each address: whether somebody answers there.
TRY = """
import socket
for address in {addresses!r}:
    try:
        socket.create_connection(address, timeout=10).close()
        print("open")
    except OSError:
        print("closed")
"""
# Who reaches what where the policies are in force; where they are not, everybody reaches everything.
REACHED = {
    "session": {"name server", "API server", "proxy"},
    "operator": {"name server", "API server"},
    "reader of metrics": {"name server", "API server", "proxy", "control", "operator", "neighbour"},
    "stranger": {"name server", "API server", "proxy", "control"},
}


@dataclass
class Enforcer:
    """Keeps the node's packet filter at what the policies say, until it is ended."""

    api: ApiServer
    directory: Path
    _last: str = ""
    _at_work: threading.Lock = field(default_factory=threading.Lock)

    def sync(self) -> None:
        """Pods that run now are restricted afterwards."""
        with self._at_work:
            lists = ("/apis/networking.k8s.io/v1/networkpolicies", "/api/v1/pods", "/api/v1/namespaces")
            rules = ruleset(*(self.api.get(path)["items"] for path in lists))
            if rules != self._last:
                file = self.directory / "rules.nft"
                file.write_text(rules)
                self._nft(f"--file={file}")
                self._last = rules

    def run(self, ended: threading.Event) -> None:
        while not ended.wait(0.3):
            self.sync()

    def remove(self) -> None:
        self._nft("delete", "table", "ip", TABLE)

    def _nft(self, *arguments: str) -> None:
        Namespace(cluster_paths()).run(["nft", *arguments])


@pytest.fixture
def enforcer(target: Target, tmp_path: Path) -> Iterator[Enforcer]:
    if not context.target().own:
        pytest.skip("the node is not of this machine: its packet filter cannot be set")
    found, ended = Enforcer(target.api, tmp_path), threading.Event()
    found.sync()
    with ThreadPoolExecutor(1) as enforcing:
        running = enforcing.submit(found.run, ended)
        try:
            yield found
        finally:
            ended.set()
            running.exception()  # Waits for its end.
            found.remove()
    running.result()


@pytest.fixture
def outside(scenario: Scenario, ended: list[Scenario]) -> Iterator[Scenario]:
    """A namespace without policies."""
    found = scenario.beside(f"{scenario.namespace}-outside")
    found.prepare()
    yield found
    found.remove(wait=False)
    ended.append(found)


def operators(api: ApiServer) -> dict[str, str]:
    """Uids of the operators that are ready and stay, by the names of their pods."""
    return {
        pod["metadata"]["name"]: pod["metadata"]["uid"]
        for pod in api.get(OPERATORS)["items"]
        if "deletionTimestamp" not in pod["metadata"] and conditions(pod).get("Ready", {}).get("status") == "True"
    }


def both(found: dict[str, str]) -> list[str]:
    return list(found) if len(found) == 2 else []


def reached(scenario: Scenario, outside: Scenario) -> dict[str, set[str]]:
    """Who reaches what now, by connecting from within each pod."""
    api = scenario.api
    simulator = api.get(f"/api/v1/namespaces/{SIMULATOR_NAMESPACE}/pods")["items"][0]["metadata"]["name"]
    operator, other = eventually(lambda: both(operators(api)), "both operators are ready", seconds=60)

    def service(namespace: str, name: str) -> str:
        return str(api.get(f"/api/v1/namespaces/{namespace}/services/{name}")["spec"]["clusterIP"])

    def address(namespace: str, pod: str) -> str:
        return str(api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")["status"]["podIP"])

    simulated = service(SIMULATOR_NAMESPACE, "whatsapp-simulator")
    places = {
        "name server": (service("kube-system", "kube-dns"), 53),
        "API server": (service("default", "kubernetes"), 443),
        "proxy": (simulated, PROXY_PORT),
        "control": (simulated, 9481),
        "operator": (address(NAMESPACE, other), 8081),
        "neighbour": (address(scenario.namespace, names.owned_name("neighbour")), names.SESSION_HTTP_PORT),
    }
    people = {
        "session": (scenario.namespace, names.owned_name("inside")),
        "operator": (NAMESPACE, operator),
        "reader of metrics": (SIMULATOR_NAMESPACE, simulator),
        "stranger": (outside.namespace, names.owned_name("outside")),
    }
    script = TRY.format(addresses=list(places.values()))
    return {
        who: {
            place
            for place, said in zip(places, scenario.kubectl.python(*pod, script).split(), strict=True)
            if said == "open"
        }
        for who, pod in people.items()
    }


def test_exactly_the_needed_flows_pass(
    release: Release, enforcer: Enforcer, scenario: Scenario, outside: Scenario, target: Target, new_phone: Phones
) -> None:
    for place, name in ((scenario, "neighbour"), (scenario, "inside"), (outside, "outside")):
        place.apply(place.manifest(name, phone=new_phone()))
    for place, name in ((scenario, "neighbour"), (scenario, "inside"), (outside, "outside")):
        with place.watching(name) as watch:
            watch.wait(has_condition("QRReady"), "QRReady")
    everybody = reached(scenario, outside)
    assert set(map(frozenset, everybody.values())) == {frozenset.union(*map(frozenset, REACHED.values()))}

    reader = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": SIMULATOR_NAMESPACE}}}
    policy = {
        "enabled": True,
        "sessionNamespaces": [scenario.namespace],
        "metricsFrom": [reader],
        "session": {"egressPorts": [443, PROXY_PORT]},
    }
    release.upgrade(CHART, {**release.values(), "networkPolicy": policy})
    # What begins now begins under the policies.
    former = set(operators(target.api).values())
    target.kubectl.run(
        "delete", "pods", f"--namespace={NAMESPACE}", "--selector=app.kubernetes.io/component=controller"
    )
    phone = new_phone()
    with scenario.watching("paired") as watch:
        scenario.apply(scenario.manifest("paired", phone=phone))
        scenario.pair("paired", phone, watch)
    eventually(lambda: len(set(operators(target.api).values()) - former) == 2, "both operators are new", seconds=60)
    enforcer.sync()
    assert reached(scenario, outside) == REACHED
