"""Real pods on a real node: `make test-e2e` brings up the cluster, the images, the operator and the simulator first.

Modules run side by side, but those that are marked `alone`: they change what the others stand on.
"""

import itertools
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from charts.render import CHART
from tests.e2e.release import Release
from tests.scenario import Scenario
from tests.target import Target, live_target

# What the others have done is looked at by the first two; the third takes the operator away.
LAST = ("test_prometheus.py", "test_rights.py", "test_upgrade.py")
# The moment at which the modules that run side by side began, where they have passed already.
BESIDE_SINCE = "E2E_BESIDE_SINCE"
STARTED = datetime.now(UTC)
_left_out: list[pytest.Item] = []


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone: changes the operator, its rights or the node under all sessions")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Metrics and rights are compared with what all other tests have done."""
    items.sort(key=lambda item: LAST.index(item.path.name) + 1 if item.path.name in LAST else 0)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    _left_out.extend(items)


@pytest.fixture(scope="session")
def whole_run(request: pytest.FixtureRequest) -> datetime:
    """Since when every end-to-end test was run, and passed."""
    beside = os.environ.get(BESIDE_SINCE)
    left_out = [item for item in _left_out if beside is None or item.get_closest_marker("alone")]
    ran = {item.path for item in [*request.session.items, *_left_out]}
    parts = left_out or any("::" in argument for argument in request.config.args)
    if parts or request.session.testsfailed or not ran.issuperset(Path(__file__).parent.glob("test_*.py")):
        pytest.skip("needs the whole run")
    return datetime.fromisoformat(beside) if beside else STARTED


@pytest.fixture(scope="session")
def target() -> Target:
    return live_target()


@pytest.fixture
def release(target: Target) -> Iterator[Release]:
    """It is at the end what it was."""
    found = Release(target)
    values = found.values()
    yield found
    found.upgrade(CHART, values)


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
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    run, count = (secrets.randbelow(900) + 100) * 10 + worker, itertools.count(100)
    return lambda: f"+1555{run}{next(count)}"
