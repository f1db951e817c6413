"""What a new user does: the commands of README.md, copied as they stand, from a cluster to a linked device."""

import os
from collections.abc import Iterator

import pytest

from tests.apiserver import ROOT, conditions
from tests.documentation.shell import Shell
from tests.documentation.shell_blocks import blocks
from tests.scenario import Scenario
from tests.target import Target

pytestmark = pytest.mark.alone

SESSION = "demo"
MOST = 5


@pytest.fixture
def scenario(target: Target) -> Iterator[Scenario]:
    """The namespace of the commands, without their session."""
    found = target.scenario("default")
    found.delete_if_there(SESSION)
    yield found
    found.delete_if_there(SESSION)


def test_from_a_cluster_to_a_linked_device(scenario: Scenario) -> None:
    [steps] = blocks("README.md", by="tests/e2e/test_first_steps.py")
    commands = steps.text.replace("\\\n", "").strip().splitlines()
    assert len(commands) <= MOST
    # Of a make around this test nothing is told to those of the commands.
    made = {"MAKEFLAGS": "", "MAKELEVEL": "", "MFLAGS": ""} if "MAKEFLAGS" in os.environ else {}
    Shell(ROOT, made).run(steps, seconds=300)
    session = scenario.get(SESSION)
    assert conditions(session)["Connected"]["status"] == "True"
    assert [device["connected"] for device in scenario.simulator.devices(session["spec"]["phone"])] == [True]
