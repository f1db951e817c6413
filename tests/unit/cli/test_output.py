"""Columns line up, a terminal gets no line that is too long where one can be wrapped, and a pipe gets plain text."""

import io
import json

import pytest
import yaml
from rich.console import Console
from rich.text import Text

from whatsapp_operator.cli.output import Format, Output

LONG = "All windows have passed and no phone was linked, which is a rather long message for a table."
ROWS: list[list[str | Text]] = [
    ["support", Text("Connected", "green"), LONG],
    ["a-longer-name", Text("Stalled", "red"), "-"],
]
HEADER = ("NAME", "PHASE", "MESSAGE")


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def terminal(stream: io.StringIO, width: int) -> Output:
    output = Output()
    output.console = Console(
        file=stream, force_terminal=True, width=width, color_system="256", markup=False, highlight=False
    )
    return output


def test_a_pipe_gets_every_row_on_one_line_without_colours(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(HEADER, ROWS, last_wraps=True)
    told = capsys.readouterr().out
    lines = told.splitlines()
    assert len(lines) == 3
    assert "\x1b" not in told
    assert [line.index(text) for line, text in zip(lines, ("PHASE", "Connected", "Stalled"), strict=True)] == [16] * 3
    assert lines[1].endswith(LONG)
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_last_column_wraps_within_a_terminal(stream: io.StringIO, width: int) -> None:
    terminal(stream, width).table(HEADER, ROWS, last_wraps=True)
    lines = [Text.from_ansi(line).plain for line in stream.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    assert " ".join(" ".join(line[27:].split()) for line in lines[1:-1]) == LONG
    assert "\x1b[32mConnected" in stream.getvalue()


def test_names_are_never_cut(stream: io.StringIO) -> None:
    terminal(stream, 20).table(HEADER, ROWS)
    assert "a-longer-name" in stream.getvalue()
    assert LONG in stream.getvalue()


@pytest.mark.parametrize("width", [40, 80])
def test_a_paragraph_is_indented_as_a_whole(stream: io.StringIO, width: int) -> None:
    terminal(stream, width).paragraph(LONG, 2)
    lines = stream.getvalue().splitlines()
    assert all(line.startswith("  ") and len(line) < width for line in lines)
    assert " ".join(line.strip() for line in lines) == LONG


def test_a_document_on_a_terminal_has_nothing_that_the_terminal_obeys(stream: io.StringIO) -> None:
    body = {"name": "\x9b31m\x7f\x1b[2J"}
    for form in (Format.JSON, Format.YAML):
        terminal(stream, 80).document(body, form)
    assert not {"\x9b", "\x7f", "\x1b"} & set(stream.getvalue())


def test_documents_are_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    body = {"text": "[bold]not markup[/bold] :smile: ünïcode", "long": LONG * 3}
    Output().document(body, Format.JSON)
    assert json.loads(capsys.readouterr().out) == body
    Output().document(body, Format.YAML)
    told = capsys.readouterr().out
    assert yaml.safe_load(told) == body
    assert len(told.splitlines()) == 2
