"""A QR on a terminal is the very QR, with colours and without, and never wider than the terminal."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from tests import qr_reader
from whatsapp_operator.cli import qr, screen

# As long as WhatsApp's: a reference, three keys and the kind of client.
KEY = base64.b64encode(bytes(range(32))).decode()
PAYLOAD = f"https://wa.me/settings/linked_devices#2@{base64.b64encode(bytes(range(115))).decode()},{KEY},{KEY},{KEY},1"
BLOCKS = {" ": (False, False), "▀": (True, False), "▄": (False, True), "█": (True, True)}


def modules(lines: list[Text]) -> list[list[bool]]:
    """As the colours of the cells tell."""
    rows: list[list[bool]] = []
    for line in lines:
        upper, lower = [], []
        for offset, character in enumerate(line.plain):
            [style] = [span.style for span in line.spans if span.start <= offset < span.end]
            assert not isinstance(style, str)
            assert style.color is not None
            assert style.bgcolor is not None
            tones = [part.number == 16 for part in (style.color, style.bgcolor)]
            upper.append(tones[0] if character == "▀" else tones[1])
            lower.append(tones[1])
        rows += [upper, lower]
    return rows


def bare(lines: list[Text], *, light_background: bool) -> list[list[bool]]:
    rows: list[list[bool]] = []
    for line in lines:
        pairs = [BLOCKS[character] for character in line.plain]
        rows += [[top == light_background for top, _ in pairs], [bottom == light_background for _, bottom in pairs]]
    return rows


@pytest.mark.parametrize("border", qr.BORDERS)
def test_what_is_drawn_can_be_read(border: int) -> None:
    picture = qr.draw(PAYLOAD, border)
    assert qr_reader.read(modules(qr.render(picture, colours=True))) == PAYLOAD
    for light in (True, False):
        lines = qr.render(picture, colours=False, light_background=light)
        assert qr_reader.read(bare(lines, light_background=light)) == PAYLOAD


@given(st.text(alphabet=st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=120))
def test_any_text_can_be_read_back(text: str) -> None:
    assert qr_reader.read(modules(qr.render(qr.draw(text), colours=True))) == text


def test_the_reader_sees_a_single_wrong_module() -> None:
    rows = [list(row) for row in qr.draw(PAYLOAD).rows]
    rows[30][30] = not rows[30][30]
    with pytest.raises(qr_reader.NotReadableError, match="module"):
        qr_reader.read(rows)


def test_the_reader_asks_for_a_quiet_zone() -> None:
    with pytest.raises(qr_reader.NotReadableError, match="quiet zone"):
        qr_reader.read(qr.draw(PAYLOAD, 0).rows)


@pytest.mark.parametrize(("columns", "lines"), [(80, 40), (73, 37), (70, 35), (67, 34)])
def test_the_widest_quiet_zone_that_fits_is_taken(columns: int, lines: int) -> None:
    picture = qr.fitting(PAYLOAD, columns, lines)
    assert picture is not None
    assert picture.columns <= columns
    assert picture.lines <= lines
    assert qr_reader.read(picture.rows) == PAYLOAD


def test_what_does_not_fit_is_not_drawn() -> None:
    columns, lines = qr.least(PAYLOAD)
    assert (columns, lines) == (67, 34)
    assert qr.fitting(PAYLOAD, columns - 1, lines) is None
    assert qr.fitting(PAYLOAD, columns, lines - 1) is None
    assert f"{columns} columns and {lines + 2} lines, and has 60 and 20" in screen.too_small(PAYLOAD, 60, 20, further=2)
