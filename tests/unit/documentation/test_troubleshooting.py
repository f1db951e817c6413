import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.cluster.paths import CHECKOUT
from tests.documentation.failures import FAILURES, Failure
from tests.documentation.troubleshooting import REASONS, render
from whatsapp_operator.api import names
from whatsapp_operator.api.reasons import ConditionType, Reason

CONTRACT = CHECKOUT.parent / "shared" / "API.md"
PAGE = CHECKOUT / "docs" / "troubleshooting.md"

with_contract = pytest.mark.skipif(not CONTRACT.exists(), reason="the contract lies beside the checkout, if anywhere")
every_failure = pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.seen)


@cache
def functions_in(path: Path) -> frozenset[str]:
    """Names of the tests that pytest would find in a file, without running any of it."""
    functions = (
        node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def rows_of_contract(heading: str) -> list[tuple[str, ...]]:
    """The cells of the table under a heading of API.md, without its head."""
    section = CONTRACT.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows[2:]]


def test_the_committed_page_is_what_make_docs_makes() -> None:
    assert PAGE.read_text() == render()


@every_failure
def test_a_test_makes_the_failure_outside_of_unit_tests(failure: Failure) -> None:
    assert [path for path, _ in failure.tests if path.startswith(("tests/integration/", "tests/e2e/"))]
    assert len(set(failure.tests)) == len(failure.tests)


@every_failure
def test_the_tests_of_a_failure_exist(failure: Failure) -> None:
    for path, name in failure.tests:
        assert (CHECKOUT / path).is_file(), path
        assert name in functions_in(CHECKOUT / path), f"{path}::{name}"


@with_contract
def test_the_failures_are_those_of_the_contract() -> None:
    assert [(row.seen, row.does, row.conditions) for row in FAILURES] == rows_of_contract(
        "What happens on each failure"
    )


@with_contract
def test_the_reasons_of_a_condition_are_those_of_the_contract() -> None:
    told = {row[0]: set(re.findall(r"\w+", " ".join(row[1:]))) for row in rows_of_contract("Conditions")}
    assert set(told) == set(ConditionType)
    known = {reason.value for reason in Reason}
    for kind, reasons in REASONS.items():
        if kind in (ConditionType.PHONE_CLAIMED, ConditionType.QR_READY, ConditionType.AUTH_PAIRED):
            assert {reason.value for reason in reasons} == told[kind] & known
        else:
            # The prose beside them has words that are reasons, too.
            assert {reason.value for reason in reasons} >= told[kind] & known - {"Connected"}, kind


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_has_one_place_on_the_page(reason: Reason) -> None:
    assert render().count(f'<a id="{reason}"></a>{reason} |') == 1


def test_the_names_in_the_commands_are_ours() -> None:
    page = render()
    for name in (names.ANNOTATION_LOG_LEVEL, names.ANNOTATION_FORCE_RELINK, names.KIND, names.owned_name("support")):
        assert name in page
    for name in re.findall(rf"{re.escape(names.GROUP)}/\w+", page):
        assert name in (names.ANNOTATION_LOG_LEVEL, names.ANNOTATION_FORCE_RELINK)
    assert set(re.findall(r"\.data\.([\w\\.]+)}", page)) == {r"qr\.png", names.SECRET_KEY_CODE}
    assert f"pods/wa-support:{names.SESSION_HTTP_PORT}/proxy/metrics" in page
