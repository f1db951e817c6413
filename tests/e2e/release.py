"""The release of the chart that all sessions stand on, for tests that change it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charts.render import NAMESPACE, RELEASE, helm
from tests.target import Target


@dataclass(frozen=True)
class Release:
    """Helm, bound to it; raises HelmError."""

    target: Target

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        kubectl = self.target.kubectl
        context = [f"--kube-context={kubectl.context}"] if kubectl.context else []
        environment = {"KUBECONFIG": kubectl.kubeconfig}
        bound = (*arguments, f"--namespace={NAMESPACE}", *context)
        return helm(*bound, stdin=stdin, environment=environment, seconds=240)

    def values(self) -> dict[str, Any]:
        """What the release was installed with."""
        found: dict[str, Any] = json.loads(self.run("get", "values", RELEASE, "--output=json"))
        return found

    def upgrade(self, chart: Path, values: dict[str, Any]) -> None:
        """Installs the chart, or upgrades to it, and waits until it runs."""
        told = json.dumps(values)
        self.run("upgrade", "--install", RELEASE, str(chart), "--values=-", "--wait", "--timeout=180s", stdin=told)
