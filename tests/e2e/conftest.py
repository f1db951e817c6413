"""Real pods on a real node: `make test-e2e` brings up the cluster, the images, the operator and the simulator first."""

import itertools
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.scenario import Scenario
from tests.target import Target, live_target

LAST = "test_rights.py"
STARTED = datetime.now(UTC)
_left_out: list[pytest.Item] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The rights are compared with what all other tests have used."""
    items.sort(key=lambda item: item.path.name == LAST)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    _left_out.extend(items)


@pytest.fixture(scope="session")
def whole_run(request: pytest.FixtureRequest) -> datetime:
    """Since when every end-to-end test was run, and passed."""
    ran = {item.path for item in request.session.items}
    parts = _left_out or any("::" in argument for argument in request.config.args)
    if parts or request.session.testsfailed or not ran.issuperset(Path(__file__).parent.glob("test_*.py")):
        pytest.skip("needs the whole run")
    return STARTED


@pytest.fixture(scope="session")
def target() -> Target:
    return live_target()


@pytest.fixture(scope="session")
def ended() -> Iterator[list[Scenario]]:
    """The namespaces of modules that are over, which go while the next ones run, and must be gone at the end."""
    found: list[Scenario] = []
    yield found
    for scenario in found:
        scenario.removed()


@pytest.fixture(scope="module")
def scenario(target: Target, ended: list[Scenario], request: pytest.FixtureRequest) -> Iterator[Scenario]:
    """A namespace of the test module's own, removed at its end."""
    module = request.module.__name__.rpartition(".")[2].removeprefix("test_").replace("_", "-")
    made = target.scenario(f"e2e-{module}-{secrets.token_hex(2)}")
    made.prepare()
    yield made
    made.remove(wait=False)
    ended.append(made)


@pytest.fixture(scope="session")
def new_phone() -> Callable[[], str]:
    """Numbers that no other test, of this run or another, uses."""
    run, count = secrets.randbelow(9_000) + 1_000, itertools.count(100)
    return lambda: f"+1555{run}{next(count)}"
