import json
import subprocess
import sys
from pathlib import Path

import pytest

from whatsapp_operator import __version__
from whatsapp_operator.controller import __main__ as main


@pytest.mark.parametrize(("environment", "expected"), [("1.2.3", "1.2.3"), ("", __version__), (None, __version__)])
def test_the_version_is_that_of_the_image_or_else_of_the_package(
    monkeypatch: pytest.MonkeyPatch, environment: str | None, expected: str
) -> None:
    if environment is None:
        monkeypatch.delenv("WHATSAPP_OPERATOR_VERSION", raising=False)
    else:
        monkeypatch.setenv("WHATSAPP_OPERATOR_VERSION", environment)
    assert main.version() == expected


def test_what_cannot_run_says_so_in_the_log_and_not_beside_it(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 16)
    command = [
        *(sys.executable, "-m", "whatsapp_operator.controller", "--namespace", "system", "--session-image", "x"),
        *("--claim-key-file", str(key), "--kubeconfig", str(tmp_path / "missing")),
    ]
    found = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": "operator"}, check=False)
    assert found.returncode == 1
    entries = [json.loads(line) for line in found.stderr.splitlines()]
    assert "Traceback" in entries[-1]["trace"]
