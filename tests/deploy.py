"""`make deploy`: installs the operator (and, with --simulator, the simulator) from the images of this checkout."""

import argparse
import base64
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from images.build import IMAGES, references
from tests.apiserver import ROOT, secrets_path
from tests.cluster.errors import ClusterError
from tests.target import Target, live_target

NAMESPACE = "whatsapp-operator-system"
CLAIM_KEY = "whatsapp-operator-claim-key"


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


def overlay(images: dict[str, str]) -> dict[str, Any]:
    """A kustomization of the committed manifests that runs these images; the simulator's variant for the sessions."""
    operator, _, tag = images["operator"].rpartition(":")
    container = {"name": "operator", "env": [{"name": "SESSION_IMAGE", "value": images["session-simulator"]}]}
    patch = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "whatsapp-operator", "namespace": NAMESPACE},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    return {
        "resources": ["manifests"],
        "images": [{"name": "whatsapp-operator/operator", "newName": operator, "newTag": tag}],
        "patches": [{"patch": yaml.safe_dump(patch)}],
    }


def deploy_operator(target: Target, images: dict[str, str]) -> None:
    """Definition, claim key, and the rest; waits until the operator is rolled out. May be repeated."""
    apply = ("apply", "--server-side", "--force-conflicts", "--filename=-")
    target.kubectl.run(*apply, stdin=(ROOT / "crds/whatsapp-operator.io_whatsappsessions.yaml").read_text())
    target.kubectl.run(*apply, stdin=(ROOT / "charts/manifests/namespace.yaml").read_text())
    if target.api.find(secrets_path(NAMESPACE, CLAIM_KEY)) is None:
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        target.api.create(secrets_path(NAMESPACE), {"metadata": {"name": CLAIM_KEY}, "data": {"key": key}})
    with tempfile.TemporaryDirectory() as directory:
        # kubectl's kustomize reads only below the kustomization.
        (Path(directory) / "manifests").symlink_to(ROOT / "charts/manifests")
        (Path(directory) / "kustomization.yaml").write_text(json.dumps(overlay(images)))
        rendered = target.kubectl.run("kustomize", "--load-restrictor=LoadRestrictionsNone", directory)
    target.kubectl.run(*apply, stdin=rendered)


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
    options = parser.parse_args()
    try:
        target, images = live_target(), image_references()
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    deploy_operator(target, images)
    if options.simulator:
        deploy_simulator(target, images)
    wait_for_rollouts(target, simulator=options.simulator)
    print(f"The operator runs in namespace {NAMESPACE} ({images['operator']}).")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
