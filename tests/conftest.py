"""Random tests run as a seeded sample, or at full count with --hypothesis-profile=soak; either way they are counted."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

SLOW_IS_FINE = [HealthCheck.too_slow]
settings.register_profile(
    "sample", max_examples=100, derandomize=True, deadline=None, suppress_health_check=SLOW_IS_FINE, database=None
)
settings.register_profile(
    "soak", max_examples=5_000, deadline=None, suppress_health_check=SLOW_IS_FINE, print_blob=True, database=None
)
settings.load_profile("sample")

_COUNTS = re.compile(r"(\d+) passing\b")
_EXAMPLES = "examples"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak-report", type=Path, help="write the counts of the random tests to this file (Markdown)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    yield
    statistics = getattr(item, "hypothesis_statistics", "")
    if statistics:
        passed = sum(map(int, _COUNTS.findall(statistics)))
        item.user_properties.append((_EXAMPLES, passed))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    config = terminalreporter.config
    reports = [report for part in terminalreporter.stats.values() for report in part]
    ended = [report for report in reports if getattr(report, "when", None) == "call"]
    counts = {report.nodeid: number for report in ended for key, number in report.user_properties if key == _EXAMPLES}
    if not counts:
        return
    profile = config.getoption("--hypothesis-profile") or "sample"
    total = f"{len(counts)} random tests, {sum(counts.values())} examples (profile {profile})"
    terminalreporter.write_line(total)
    page: Path | None = config.getoption("--soak-report")
    if page is not None:
        rows = "".join(f"| {test} | {count} |\n" for test, count in sorted(counts.items()))
        failed = len(terminalreporter.stats.get("failed", []))
        head = f"# Random tests at full count\n\n{datetime.now(UTC):%Y-%m-%d}: {total}, {failed} failed tests.\n\n"
        page.write_text(f"{head}| test | examples |\n| --- | --- |\n{rows}")
