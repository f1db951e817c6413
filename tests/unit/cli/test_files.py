"""What the commands leave on the disk, and what they say of a log that is not there."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit.cli.test_linking import READY
from tests.unit.cli.test_report import Logs
from whatsapp_operator.cli import app as module
from whatsapp_operator.cli.exits import Exit
from whatsapp_operator.kube.errors import InvalidError


class Waiting(Logs):
    """A cluster whose session has a container that is being made."""

    async def session(self, name: str) -> Any:
        return json.loads(json.dumps(READY.raw))

    async def lines(self, path: str, **query: str) -> AsyncIterator[str]:
        if path.endswith("/log"):
            raise InvalidError("container session is waiting to start", code=400)
        yield ""


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def connected(_: object) -> AsyncIterator[Waiting]:
        yield Waiting()

    monkeypatch.setattr(module, "connected", connected)


def test_a_report_is_its_owners_alone_even_over_a_file_that_was_not(tmp_path: Path) -> None:
    file = tmp_path / "report.tar.gz"
    file.write_text("before")
    file.chmod(0o644)
    told = CliRunner().invoke(module.app, ["report", "support", "--file", str(file)])
    assert told.exit_code == Exit.OK
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("options", [[], ["--previous"]])
def test_a_log_that_is_not_there_is_no_wrong_usage(options: list[str]) -> None:
    told = CliRunner().invoke(module.app, ["logs", "support", *options])
    assert told.exit_code == Exit.NOT_FOUND
    assert "waiting to start" in told.stderr
    assert "kubectl wa doctor support -n shop" in told.stderr
