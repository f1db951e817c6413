"""pyproject.toml has the version; every other place says the same."""

import re
import tomllib

import pytest
import yaml

from images import build
from tests.cluster.paths import CHECKOUT
from whatsapp_operator import __version__


def test_the_package_has_the_version() -> None:
    assert __version__ == build.version()


def test_the_simulator_has_the_version() -> None:
    simulator = tomllib.loads((CHECKOUT / "tests/simulator/pyproject.toml").read_text())
    assert simulator["project"]["version"] == build.version()


@pytest.mark.parametrize("key", ["version", "appVersion"])
def test_the_chart_has_the_version(key: str) -> None:
    chart = yaml.safe_load((CHECKOUT / "charts/whatsapp-operator/Chart.yaml").read_text())
    assert chart[key] == build.version()


def test_no_dockerfile_has_a_version_of_its_own() -> None:
    for dockerfile in (CHECKOUT / "images").glob("*/Dockerfile"):
        assert set(re.findall(r"^ARG VERSION=(\S+)", dockerfile.read_text(), re.MULTILINE)) == {"dev"}
