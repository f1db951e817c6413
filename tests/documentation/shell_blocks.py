"""The shell commands of the documentation, and by what each block of them is run.

The line above a block is one of these comments, which no reader sees:

    <!-- run: cluster -->                       by tests/e2e/test_documentation.py, in the order of the page
    <!-- run: cluster, then scan support -->    the same; afterwards the phone scans the QR of the session `support`
    <!-- run: cluster, then enter support -->   the same with its pairing code
    <!-- run: tests/e2e/test_gitops.py -->      by this test, which asks for them: blocks("docs/gitops.md")
    <!-- not run: why it cannot be -->

A block with a title, such as ```yaml title="support.yaml", is a file that the commands find in their folder.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.paths import CHECKOUT

FOLDERS: Final = ("docs", "charts", "examples", "tests", "images", "operator")
CLUSTER: Final = "cluster"
SHELL: Final = "sh"

_FENCE = re.compile(r'(?P<indent> *)```(?P<language>\S*)(?: title="(?P<title>[^"]+)")?')
_RUN = re.compile(r"<!-- run: (?P<by>[\w./-]+)(?:, then (?P<action>scan|enter) (?P<session>[\w-]+))? -->")
_NOT_RUN = re.compile(r"<!-- not run: (?P<why>.+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block; `page` is relative to the checkout, `line` that of the opening fence.

    Attributes:
        title: name of the file that it is.
        by: what runs it.
        then: what the phone does afterwards: ("scan" or "enter", name of the session).
        why_not: why it is not run.
    """

    page: str
    line: int
    language: str
    text: str
    title: str | None
    by: str | None
    then: tuple[str, str] | None
    why_not: str | None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages(root: Path = CHECKOUT) -> list[str]:
    """Every page of the project, relative to it."""
    found = [*root.glob("*.md"), *(page for folder in FOLDERS for page in (root / folder).rglob("*.md"))]
    return sorted(str(page.relative_to(root)) for page in found)


def blocks(page: str, by: str, root: Path = CHECKOUT) -> list[Block]:
    """The shell blocks of a page that are marked with `by`, in order."""
    return [block for block in fenced(page, root) if block.language == SHELL and block.by == by]


def files(page: str, root: Path = CHECKOUT) -> dict[str, str]:
    """The content of each file that the page shows, by its name."""
    return {block.title: block.text for block in fenced(page, root) if block.title}


def fenced(page: str, root: Path = CHECKOUT) -> Iterator[Block]:
    """Every fenced block of a page."""
    lines = (root / page).read_text().splitlines()
    numbers = [number for number, line in enumerate(lines) if _FENCE.match(line)]
    for first, last in zip(numbers[::2], numbers[1::2], strict=True):
        fence, above = _FENCE.match(lines[first]), lines[first - 1].strip()
        assert fence
        run, not_run = _RUN.fullmatch(above), _NOT_RUN.fullmatch(above)
        yield Block(
            page=page,
            line=first + 1,
            language=fence["language"],
            text="".join(line.removeprefix(fence["indent"]) + "\n" for line in lines[first + 1 : last]),
            title=fence["title"],
            by=run["by"] if run else None,
            then=(run["action"], run["session"]) if run and run["action"] else None,
            why_not=not_run["why"] if not_run else None,
        )
