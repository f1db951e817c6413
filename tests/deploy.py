"""`make deploy`: installs the operator (and, with --simulator, the simulator) from the images of this checkout."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import yaml

from charts.render import CHART, NAMESPACE, NAMESPACE_OBJECT, RELEASE, HelmError, helm
from images.build import IMAGES, references
from tests.apiserver import ROOT
from tests.cluster.errors import ClusterError
from tests.target import Target, live_target


def image_references(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The images to run, by name: those of this checkout, or with CONTEXT, those that were pushed to REGISTRY as TAG.

    Raises:
        ClusterError: another cluster is asked for, and it is not said where it can pull the images from.
    """
    if not env.get("CONTEXT"):
        return references()
    registry, tag = env.get("REGISTRY"), env.get("TAG")
    if not registry or not tag:
        raise ClusterError(
            "CONTEXT names a cluster that is not this checkout's own and cannot see the images built here: push them to"
            " a registry that it can pull from, and set REGISTRY (such as registry.example/whatsapp-operator) and TAG"
        )
    return {image.name: f"{registry}/{image.name}:{tag}" for image in IMAGES}


def chart_values(images: Mapping[str, str]) -> dict[str, Any]:
    """The values of the chart that run these images: the simulator's variant for the sessions."""

    def image(name: str) -> dict[str, str]:
        repository, _, tag = images[name].rpartition(":")
        return {"repository": repository, "tag": tag}

    return {"operator": {"image": image("operator")}, "session": {"image": image("session-simulator")}}


def printed(values: Mapping[str, Any]) -> str:
    """As YAML, with quotes: Helm reads a tag such as 17663571e210 as a number, which PyYAML does not expect."""
    return yaml.safe_dump(values, default_style='"')


def deploy_operator(target: Target, images: Mapping[str, str]) -> None:
    """Installs or upgrades the chart, and waits until the operator is rolled out. May be repeated.

    Raises:
        HelmError: the operator is not rolled out within three minutes, among other things.
    """
    target.api.apply(NAMESPACE_OBJECT)
    # Fields that tests have changed are the chart's again.
    helm(
        "upgrade", "--install", RELEASE, str(CHART), f"--namespace={NAMESPACE}", "--values=-",
        "--wait", "--timeout=180s", "--force-conflicts",
        *([f"--kube-context={target.kubectl.context}"] if target.kubectl.context else []),
        stdin=json.dumps(chart_values(images)),
        environment={"KUBECONFIG": target.kubectl.kubeconfig},
        seconds=240,
    )  # fmt: skip


def deploy_simulator(target: Target, images: dict[str, str]) -> None:
    manifest = (ROOT / "tests/simulator/deployment.yaml").read_text()
    manifest = manifest.replace("whatsapp-operator/simulator:latest", images["simulator"])
    target.kubectl.run("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=manifest)


def wait_for_rollouts(target: Target, *, simulator: bool) -> None:
    names = [(NAMESPACE, "whatsapp-operator")] + ([("whatsapp-simulator", "whatsapp-simulator")] if simulator else [])
    for namespace, name in names:
        target.kubectl.run(
            "rollout", "status", f"--namespace={namespace}", f"deployment/{name}", "--timeout=180s", seconds=200
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.deploy", description=__doc__)
    parser.add_argument("--simulator", action="store_true", help="install the simulator too")
    parser.add_argument("--values", action="store_true", help="only print the chart's values that name the images")
    options = parser.parse_args()
    try:
        images = image_references()
        if options.values:
            print(printed(chart_values(images)), end="")  # noqa: T201
            return 0
        target = live_target()
        deploy_operator(target, images)
    except (ClusterError, HelmError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    if options.simulator:
        deploy_simulator(target, images)
    wait_for_rollouts(target, simulator=options.simulator)
    print(f"The operator runs in namespace {NAMESPACE} ({images['operator']}).")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
