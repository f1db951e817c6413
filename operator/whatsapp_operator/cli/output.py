"""Where the plugin writes: colours and widths for a terminal, plain text else, JSON and YAML as they are."""

import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Final

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from whatsapp_operator.api.reasons import Phase
from whatsapp_operator.cli.exits import CliError
from whatsapp_operator.cli.words import NOTHING, plain

# Wider than any line: what is no terminal neither wraps nor cuts.
_UNBOUNDED: Final = 100_000
_STATUS_STYLES: Final = {"True": "green", "False": "", "Unknown": "yellow"}
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
        return Console(
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
            sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        else:
            sys.stdout.write(yaml.safe_dump(found, sort_keys=False, width=_UNBOUNDED, allow_unicode=True))

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str | Text]], *, last_wraps: bool = False) -> None:
        """Aligned columns without lines, as kubectl's; on a terminal the last one gets what is left of the width."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold", show_edge=False)
        for index, title in enumerate(header):
            last = index == len(header) - 1
            table.add_column(title, no_wrap=not (last and last_wraps), overflow="fold" if last_wraps else "ellipsis")
        for row in rows:
            table.add_row(*(cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row))
        if self.is_terminal:
            self.console.print(table)
            return
        with self.console.capture() as capture:
            self.console.print(table)
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))


def phase(text: str) -> Text:
    return Text(plain(text), _PHASE_STYLES.get(text, ""))  # type: ignore[call-overload]


def status(text: str) -> Text:
    return Text(plain(text), _STATUS_STYLES.get(text, ""))


def stripped(found: dict[str, Any]) -> dict[str, Any]:
    """An object as kubectl shows it: without managedFields."""
    metadata = {key: value for key, value in found["metadata"].items() if key != "managedFields"}
    return {**found, "metadata": metadata}


def either(text: Any) -> str:
    """A dash for nothing."""
    return NOTHING if text in (None, "") else plain(text)
