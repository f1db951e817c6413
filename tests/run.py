"""`make run`: the operator from this checkout outside the cluster, in place of the one inside, until Ctrl-C."""

import base64
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from charts.render import CLAIM_KEY, NAMESPACE
from tests.apiserver import ROOT, secrets_path
from tests.deploy import image_references
from tests.target import Target, live_target


def scale(target: Target, replicas: int) -> None:
    target.kubectl.run("scale", f"--namespace={NAMESPACE}", "deployment/whatsapp-operator", f"--replicas={replicas}")


def main() -> int:
    target = live_target()
    key = target.api.get(secrets_path(NAMESPACE, CLAIM_KEY))["data"]["key"]
    scale(target, 0)
    with tempfile.TemporaryDirectory() as directory:
        # The claims in the cluster are named after this key.
        key_file = Path(directory) / "key"
        key_file.write_bytes(base64.b64decode(key))
        command = [
            sys.executable, "-m", "whatsapp_operator.controller",
            f"--session-image={image_references()['session-simulator']}", f"--claim-key-file={key_file}",
            f"--namespace={NAMESPACE}", "--log-format=console", "--http-host=127.0.0.1",
            *([f"--context={target.kubectl.context}"] if target.kubectl.context else []),
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": target.kubectl.kubeconfig}
        # Ctrl-C reaches the whole process group: the operator ends by itself, and is waited for.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        operator = subprocess.Popen(command, env=environment, preexec_fn=_interruptible)
        try:
            return operator.wait()
        finally:
            scale(target, 2)


def _interruptible() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
