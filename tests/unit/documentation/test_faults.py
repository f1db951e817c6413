import re

import pytest

from tests.cluster.paths import CHECKOUT
from tests.unit.documentation.test_troubleshooting import functions_in

PAGE = CHECKOUT / "docs" / "faults.md"
ROWS = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "::" in line]


def test_each_fault_has_a_test_and_an_outcome() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if re.match(r"\| (?!fault|edit|---)", line)]
    assert rows == ROWS
    for row in rows:
        _, fault, tests, outcome, _ = (cell.strip() for cell in row.split("|"))
        assert fault
        assert tests
        assert outcome


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_the_tests_of_a_fault_exist(row: str) -> None:
    named = re.findall(r"`(tests/\S+\.py)::(\w+)`", row)
    assert len(named) == row.count("::")
    for path, name in named:
        assert name in functions_in(CHECKOUT / path), f"{path}::{name}"
