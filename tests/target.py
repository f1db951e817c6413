"""The live cluster that the demo, the end-to-end tests and the benchmarks act on."""

from dataclasses import dataclass

from tests.apiserver import ApiServer
from tests.cluster import binaries, context
from tests.cluster.errors import ClusterError
from tests.scenario import Kubectl, Scenario


@dataclass(frozen=True)
class Target:
    kubectl: Kubectl
    api: ApiServer

    def scenario(self, namespace: str) -> Scenario:
        return Scenario(self.api, self.kubectl, namespace)


def live_target() -> Target:
    """This checkout's own cluster, or the one that KUBECONFIG and CONTEXT name.

    Raises:
        ClusterError: there is none, it has no such context, or it was not asked for by name.
    """
    chosen = context.target()
    kubectl = Kubectl(binaries.ensure("kubernetes") / "kubectl", chosen.kubeconfig, chosen.context)
    view = ("config", "view", "--raw", "--minify", "--flatten", "--output=json")
    try:
        return Target(kubectl, ApiServer.from_kubeconfig_text(kubectl.run(*view)))
    except AssertionError as error:
        raise ClusterError(str(error)) from None
