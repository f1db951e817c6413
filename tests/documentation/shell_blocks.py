"""The shell commands of the documentation, and by what each block of them is run.

The line above a block is one of these comments, which no reader sees:

    <!-- run: cluster -->                       by tests/e2e/test_documentation.py, in the order of the page
    <!-- run: cluster, then scan support -->    the same; afterwards the phone scans the QR of the session `support`
    <!-- run: cluster, then enter support -->   the same with its pairing code
    <!-- run: checkout -->                      by tests/integration/test_documentation.py, in a copy of this checkout
    <!-- run: tests/e2e/test_gitops.py -->      by this test, which asks for them: blocks("docs/gitops.md")
    <!-- not run: why it cannot be -->
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from tests.cluster.paths import CHECKOUT

FOLDERS: Final = ("docs", "charts", "examples", "tests", "images", "operator")
CLUSTER: Final = "cluster"
CHECKOUT_ONLY: Final = "checkout"
SHELL: Final = "sh"

_FENCE = re.compile(r"(?P<indent> *)(?P<ticks>```+)(?P<language>\S*)")
_RUN = re.compile(r"<!-- run: (?P<by>[\w./-]+)(?:, then (?P<action>scan|enter) (?P<session>[\w-]+))? -->")
_NOT_RUN = re.compile(r"<!-- not run: (?P<why>.+) -->")


@dataclass(frozen=True)
class Block:
    """`page` is relative to the checkout, `line` that of the opening fence; `by` is None where it is not run.

    `then` is what the phone does afterwards: ("scan" or "enter", name of the session).
    """

    page: str
    line: int
    text: str
    by: str | None
    then: tuple[str, str] | None = None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


class UnmarkedError(ValueError):
    """A fenced block has no language, or a shell block does not say by what it is run."""


def pages(root: Path = CHECKOUT) -> list[str]:
    """Every page of the project, relative to it."""
    found = [*root.glob("*.md"), *(page for folder in FOLDERS for page in (root / folder).rglob("*.md"))]
    return sorted(str(page.relative_to(root)) for page in found)


def blocks(page: str, by: str | None = None, root: Path = CHECKOUT) -> list[Block]:
    """The shell blocks of a page, in order; with `by`, only those that are marked with it.

    Raises:
        UnmarkedError: one of them has no mark; names its line.
    """
    found = list(_shell_blocks(page, (root / page).read_text().splitlines()))
    return [block for block in found if by is None or block.by == by]


def _shell_blocks(page: str, lines: Sequence[str]) -> list[Block]:
    found = []
    fences = [number for number, line in enumerate(lines) if _FENCE.match(line)]
    for first, last in list(pairwise(fences))[::2]:
        fence = _FENCE.match(lines[first])
        assert fence
        language = fence["language"]
        if language in ("", "bash", "shell", "console", "shell-session"):
            raise UnmarkedError(
                f"{page}:{first + 1}: a block is `sh` (run, or said why not), `text`, `yaml` or the like"
            )
        if language == SHELL:
            text = "".join(line.removeprefix(fence["indent"]) + "\n" for line in lines[first + 1 : last])
            found.append(_marked(page, first, text, lines[first - 1].strip()))
    return found


def _marked(page: str, first: int, text: str, mark: str) -> Block:
    if run := _RUN.fullmatch(mark):
        then = (run["action"], run["session"]) if run["action"] else None
        return Block(page, first + 1, text, run["by"], then)
    if _NOT_RUN.fullmatch(mark):
        return Block(page, first + 1, text, None)
    raise UnmarkedError(f"{page}:{first + 1}: no mark above the block, see tests/documentation/shell_blocks.py")
