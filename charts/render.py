"""The chart rendered by the pinned Helm, for all who need its objects without a cluster.

`python -m charts.render` prints the manifest of an installation without Helm: `kubectl apply --server-side -f -`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster import binaries

CHART: Final = Path(__file__).parent / "whatsapp-operator"
RELEASE: Final = "whatsapp-operator"
NAMESPACE: Final = "whatsapp-operator-system"
CLAIM_KEY: Final = "whatsapp-operator-claim-key"
# What kubectl, unlike `helm install --create-namespace`, has to be told.
NAMESPACE_OBJECT: Final = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {
        "name": NAMESPACE,
        "labels": {
            "app.kubernetes.io/name": "whatsapp-operator",
            "app.kubernetes.io/part-of": "whatsapp-operator",
            "pod-security.kubernetes.io/enforce": "restricted",
        },
    },
}


# Stands for the registry of whoever installs it.
REGISTRY: Final = "registry.example.com/whatsapp-operator"
_ASSUMED: Final = {
    "claimKey": {"existingSecret": CLAIM_KEY},
    **{name: {"image": {"repository": f"{REGISTRY}/{name}"}} for name in ("operator", "session")},
}


class HelmError(Exception):
    """Helm refused; the text is what it said."""


def helm(
    *arguments: str, stdin: str | None = None, environment: Mapping[str, str] | None = None, seconds: float = 60
) -> str:
    """Standard output of `helm ARGUMENTS`.

    Raises:
        HelmError: it failed.
    """
    command = [str(binaries.ensure("helm") / "helm"), *arguments]
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, timeout=seconds,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    if done.returncode != 0:
        raise HelmError(f"helm {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def render(
    values: Mapping[str, Any] | None = None, *, release: str = RELEASE, namespace: str = NAMESPACE
) -> list[dict[str, Any]]:
    """The objects that these values give, in the order in which Helm makes them, with a Secret of ours as claim key
    and images of `REGISTRY`.

    Raises:
        HelmError: values or chart are wrong.
    """
    text = _template(_values(values), release, namespace)
    return [found for found in yaml.load_all(text, yaml.CSafeLoader) if found is not None]


def _values(values: Mapping[str, Any] | None) -> str:
    return json.dumps(merged(_ASSUMED, values or {}))


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """As Helm merges values: what is in both is taken from `above`, mapping by mapping."""
    both = {key for key in below.keys() & above.keys() if isinstance(below[key], dict) and isinstance(above[key], dict)}
    return {**below, **above, **{key: merged(below[key], above[key]) for key in both}}


@lru_cache
def _template(values: str, release: str, namespace: str) -> str:
    return helm("template", release, str(CHART), f"--namespace={namespace}", "--values=-", stdin=values)


def manifest(values: Mapping[str, Any] | None = None) -> str:
    """All that is installed, the namespace first, as one document for kubectl; the claim key is the user's to make."""
    return yaml.safe_dump(NAMESPACE_OBJECT, sort_keys=False) + _template(_values(values), RELEASE, NAMESPACE)


if __name__ == "__main__":
    # Values from standard input, as JSON or YAML, if anything comes from there.
    told = {} if sys.stdin.isatty() else yaml.safe_load(sys.stdin) or {}
    sys.stdout.write(manifest(told))
