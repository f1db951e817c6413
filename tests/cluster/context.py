"""Which cluster tests and make targets may act on.

The cluster of this checkout is the default. A context that somebody else made is used only when it is asked for by
name, with CONTEXT: a kubeconfig that happens to be in the environment or in the home directory is never reason enough.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.paths import cluster_paths


@dataclass(frozen=True)
class Target:
    """`kubeconfig` is what KUBECONFIG may be, a file or several with colons; `own`: made by `up` of this checkout."""

    kubeconfig: str
    context: str | None
    own: bool

    def environment(self, env: Mapping[str, str] = os.environ) -> dict[str, str]:
        # What kubectl caches about our own cluster goes when the cluster goes.
        cache = {"KUBECACHEDIR": str(Path(self.kubeconfig).parent / "kubectl-cache")} if self.own else {}
        return {**env, "KUBECONFIG": self.kubeconfig, **cache}

    @property
    def kubectl_arguments(self) -> list[str]:
        return ["--context", self.context] if self.context else []


def target(env: Mapping[str, str] = os.environ, own: Path | None = None) -> Target:
    """The cluster to act on; `own` is the kubeconfig of this checkout's cluster, there or not.

    Raises ClusterError if that cluster is not up, or KUBECONFIG points elsewhere and CONTEXT names no context of it.
    """
    own = own or cluster_paths(env=env).kubeconfig
    kubeconfig, context = env.get("KUBECONFIG", ""), env.get("CONTEXT", "")
    if context:
        return Target(
            kubeconfig or str(Path(env.get("HOME", "~")).expanduser() / ".kube" / "config"), context, own=False
        )
    if kubeconfig and Path(kubeconfig).resolve() != own.resolve():
        raise ClusterError(
            f"KUBECONFIG is {kubeconfig}, which is not this checkout's cluster: name the context to act on with "
            "CONTEXT=<name>, or unset KUBECONFIG"
        )
    if not own.exists():
        raise ClusterError("this checkout's cluster is not up: run `make cluster-up`, or set KUBECONFIG and CONTEXT")
    return Target(str(own), None, own=True)
