"""How the plugin is started, and what it says where its dependencies are missing."""

import os
import subprocess
import sys
import tomllib

import pytest
from typer.testing import CliRunner

from tests.apiserver import ROOT
from whatsapp_operator import __version__
from whatsapp_operator.cli import __main__ as entry
from whatsapp_operator.cli.app import app
from whatsapp_operator.cli.exits import Exit

COMMANDS = ("link", "qr", "code", "status", "list", "relink", "suspend", "resume", "logs", "report", "doctor")


def test_the_entry_points_are_those_of_the_package() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for program, function in (("kubectl-wa", entry.main), ("kubectl_complete-wa", entry.complete)):
        assert scripts[program] == f"{entry.__name__}:{function.__name__}"


@pytest.mark.parametrize("module", ["typer", "segno"])
def test_a_missing_extra_is_named(module: str) -> None:
    script = f"import sys; sys.modules[{module!r}] = None; from whatsapp_operator.cli.__main__ import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == Exit.ERROR
    assert f"needs {module}, which the extra [cli] brings" in done.stderr
    # Whoever registered the name there would be run beside an administrator's kubeconfig.
    assert "whatsapp-operator[cli]" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps_and_takes_what_kubectl_takes(command: str) -> None:
    told = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "120", "NO_COLOR": "1"}).stdout
    for option in ("--namespace", "--context", "--kubeconfig", "--no-color"):
        assert option in told


@pytest.mark.parametrize("arguments", [["nothing"], ["status", "--nothing"], ["list", "-o", "xml"], ["qr"]])
def test_a_wrong_line_is_a_usage_error(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == Exit.USAGE


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", ""],
        ["suspend", "support/status"],
        ["logs", ".."],
        ["report", "support", "support?watch"],
        ["list", "-n", "shop/secrets"],
        ["doctor", "--operator-namespace", ""],
    ],
)
def test_what_would_lead_to_another_object_is_no_name(arguments: list[str]) -> None:
    told = CliRunner().invoke(app, ["--kubeconfig", "/nowhere", *arguments])
    assert told.exit_code == Exit.USAGE
    assert "is no name" in told.stderr


def test_the_version_is_told() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.stdout) == (Exit.OK, f"kubectl-wa {__version__}\n")


def test_a_reader_that_has_had_enough_is_no_error() -> None:
    script = """
import typer
from whatsapp_operator.cli.app import command

app = typer.Typer()

@app.command()
@command
async def many(setting):
    while True:
        setting.output.line("a line")

app()
"""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
    try:
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (Exit.OK, "")
