"""Where the plugin writes: colours and widths for a terminal, plain text else, JSON and YAML as they are."""

import json
import sys
import textwrap
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Final, NoReturn

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from whatsapp_operator.api.reasons import ConditionType, Phase
from whatsapp_operator.cli.exits import CliError
from whatsapp_operator.cli.words import NOTHING, plain

# Between two columns.
GAP: Final = 3
# Wider than any line: what is no terminal neither wraps nor cuts.
_UNBOUNDED: Final = 100_000
_STATUS_STYLES: Final = {"True": "green", "False": "", "Unknown": "yellow"}
_ABNORMAL_STYLES: Final = {ConditionType.STALLED: "red", ConditionType.RECONCILING: "cyan"}
_PHASE_STYLES: Final = {
    Phase.CONNECTED: "green",
    Phase.STALLED: "red",
    Phase.DISCONNECTED: "yellow",
    Phase.WAITING_FOR_SCAN: "cyan",
    Phase.AUTHENTICATING: "cyan",
    Phase.SUSPENDED: "dim",
    Phase.EXPIRED: "yellow",
    Phase.DELETING: "dim",
}


class Format(StrEnum):
    """-o; without it, text for a person."""

    JSON = "json"
    YAML = "yaml"
    WIDE = "wide"
    NAME = "name"


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        # Else the program would end with 1, though nothing is wrong with `kubectl wa list | head`.
        raise BrokenPipeError


class Output:
    """Standard output for results, standard error for all that is said about them."""

    def __init__(self, *, no_color: bool = False) -> None:
        self.console = self._console(no_color, stderr=False)
        self.errors = self._console(no_color, stderr=True)

    @staticmethod
    def _console(no_color: bool, *, stderr: bool) -> Console:
        stream = sys.stderr if stderr else sys.stdout
        width = None if stream.isatty() else _UNBOUNDED
        # FORCE_COLOR and the like would bring escape sequences into pipes.
        return _Console(
            stderr=stderr,
            no_color=True if no_color else None,
            force_terminal=stream.isatty(),
            width=width,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=False,
        )

    @property
    def is_terminal(self) -> bool:
        return self.console.is_terminal

    @property
    def has_colours(self) -> bool:
        return self.is_terminal and self.console.color_system is not None and not self.console.no_color

    def check_blocks(self) -> None:
        """That a QR can be drawn, if this is a terminal at all.

        Raises:
            CliError: its encoding has no blocks.
        """
        try:
            "▀▄█".encode(self.console.encoding)
        except UnicodeEncodeError:
            raise CliError(
                f"a QR cannot be drawn in the encoding {self.console.encoding}", "Set LC_ALL=C.UTF-8."
            ) from None

    def line(self, text: str | Text = "", *, whole: bool = False) -> None:
        """Wrapped at words on a terminal, unless it is to be copied as a whole."""
        self.console.print(text, soft_wrap=whole or not self.is_terminal)

    def paragraph(self, text: str, indent: int) -> None:
        """Wrapped at words and indented as a whole; one line where this is no terminal."""
        margin = " " * indent
        width = max(20, self.console.width - 1)
        lines = textwrap.wrap(
            plain(text), width, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False
        )
        for line in lines:
            self.line(line, whole=True)

    def say(self, text: str | Text) -> None:
        # A command is to be copied as it stands: it is indented, and left to the terminal to be broken.
        self.errors.print(text, soft_wrap=str(text).startswith(" "))

    def error(self, error: CliError) -> None:
        self.say(Text.assemble(("error: ", "bold red"), plain(error.message)))
        for remedy in error.remedies:
            self.say(plain(remedy))

    def document(self, found: Any, form: Format) -> None:
        """As JSON or YAML, without anything of the terminal's."""
        if form is Format.JSON:
            # A terminal obeys control characters, some of which JSON leaves as they are.
            self.console.file.write(json.dumps(found, indent=2, ensure_ascii=self.is_terminal) + "\n")
        else:
            self.console.file.write(yaml.safe_dump(found, sort_keys=False, width=_UNBOUNDED, allow_unicode=True))

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str | Text]], *, last_wraps: bool = False) -> None:
        """Aligned columns without lines, as kubectl's.

        Where the last one wraps, it gets what is left of a terminal's width; else lines may be longer than that.
        """
        lines = [[Text(title, "bold") for title in header]]
        lines += [[cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row] for row in rows]
        if not (self.is_terminal and last_wraps):
            widths = [max(cell.cell_len for cell in column) for column in zip(*lines, strict=True)]
            for line in lines:
                self.line(aligned(line, widths), whole=True)
            return
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_edge=False, show_header=False)
        for index in range(len(header)):
            table.add_column(no_wrap=index < len(header) - 1, overflow="fold")
        for line in lines:
            table.add_row(*line)
        self.console.print(table)


def aligned(cells: Iterable[Text], widths: Iterable[int]) -> Text:
    """One row, without blanks at its end."""
    row = Text()
    for cell, width in zip(cells, widths, strict=True):
        row.append_text(cell).append(" " * (width - cell.cell_len + GAP))
    row.rstrip()
    return row


def phase(text: str) -> Text:
    return Text(plain(text), _PHASE_STYLES.get(text, ""))  # type: ignore[call-overload]


def status(text: str, kind: str = "") -> Text:
    """Of a condition of that type."""
    abnormal = _ABNORMAL_STYLES.get(kind) if text == "True" else None  # type: ignore[call-overload]
    return Text(plain(text), abnormal or _STATUS_STYLES.get(text, ""))


def stripped(found: dict[str, Any]) -> dict[str, Any]:
    """An object as kubectl shows it: without managedFields."""
    metadata = {key: value for key, value in found["metadata"].items() if key != "managedFields"}
    return {**found, "metadata": metadata}


def either(text: Any) -> str:
    """A dash for nothing."""
    return NOTHING if text in (None, "") else plain(text)
