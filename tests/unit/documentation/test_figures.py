"""Figures that are told in more than one place are those of the measurement."""

import re
from collections.abc import Callable

import pytest

from tests.cluster.paths import CHECKOUT

TARGETS = {
    (cells[0], cells[1]): cells[2]
    for line in (CHECKOUT / "docs/performance.md").read_text().splitlines()
    if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 5 and re.match(r"\d", cells[2])
}
ONE = {
    cells[0]: cells[1]
    for line in (CHECKOUT / "docs/one-session.md").read_text().splitlines()
    if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 4
}


def rounded(text: str) -> str:
    """`18.1 ms` as `18 ms`."""
    number, _, unit = text.partition(" ")
    return f"{float(number):.0f} {unit}"


def as_it_is(text: str) -> str:
    return text


@pytest.mark.parametrize(
    ("target", "sessions", "told"),
    [
        ("converging: operator CPU for a session", "1,000", rounded),
        ("cold restart: peak memory", "5,000", rounded),
        ("leader killed: first correct write of the other, worst", "1,000", as_it_is),
    ],
)
def test_of_thousands(target: str, sessions: str, told: Callable[[str], str]) -> None:
    for page in ("README.md", "docs/operations.md"):
        assert told(TARGETS[target, sessions]) in (CHECKOUT / page).read_text(), f"{page}: {target}"


def test_writes_of_a_session() -> None:
    writes = TARGETS["converging: operator writes for a session, without events", "1,000"]
    for page in ("docs/one-session.md", "docs/operations.md"):
        assert re.search(rf"{re.escape(writes)} (for a session|and )", (CHECKOUT / page).read_text()), page


@pytest.mark.parametrize(
    "what",
    [
        "apply -> QRReady, volume provisioned",
        "scan -> Connected",
        "pod deleted -> Connected, no new pairing",
        "pod, connected and idle: working set",
        "pod, connected and idle: CPU",
    ],
)
def test_of_one_session(what: str) -> None:
    assert ONE[what] in (CHECKOUT / "README.md").read_text(), what
