"""A QR as lines of a terminal: half blocks, two rows of modules a line."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import segno
from rich.style import Style
from rich.text import Text

# Those of the 256-colour cube, which themes leave alone: dark on light whatever the terminal's own colours are.
_DARK: Final = "color(16)"
_LIGHT: Final = "color(231)"
# The standard asks for a quiet zone of four modules; phones read a QR with one, too.
BORDERS: Final = (4, 3, 2, 1)


@dataclass(frozen=True, slots=True)
class Picture:
    """Modules, True for dark, quiet zone included."""

    rows: Sequence[Sequence[bool]]

    @property
    def columns(self) -> int:
        """Of a terminal."""
        return len(self.rows[0])

    @property
    def lines(self) -> int:
        """Of a terminal."""
        return (len(self.rows) + 1) // 2


def draw(text: str, border: int = BORDERS[0]) -> Picture:
    """The smallest QR that holds the text: fewer modules matter more on a screen than the correction of errors."""
    return Picture([[bool(module) for module in row] for row in _made(text).matrix_iter(border=border)])


# Each QR is asked for at several sizes, and again with every second that passes.
@lru_cache(maxsize=2)
def _made(text: str) -> segno.QRCode:
    return segno.make_qr(text, error="l", boost_error=False)


def fitting(text: str, columns: int, lines: int) -> Picture | None:
    """With the widest quiet zone for which there is room; None if there is room for none."""
    pictures = (draw(text, border) for border in BORDERS)
    return next((found for found in pictures if found.columns <= columns and found.lines <= lines), None)


def least(text: str) -> tuple[int, int]:
    """Columns and lines that the QR needs at the least."""
    picture = draw(text, BORDERS[-1])
    return picture.columns, picture.lines


def render(picture: Picture, *, colours: bool, light_background: bool = False) -> list[Text]:
    """One Text a line.

    Args:
        picture: what to draw.
        colours: draw dark on light explicitly. Without them the terminal's own two colours are used as they are.
        light_background: of the terminal, which matters only without colours.
    """
    rows = [list(row) for row in picture.rows]
    if len(rows) % 2:
        rows.append([False] * picture.columns)
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return [_coloured(upper, lower) if colours else _bare(upper, lower, light_background) for upper, lower in pairs]


def _coloured(upper: Sequence[bool], lower: Sequence[bool]) -> Text:
    # A space in the colour of the background has no gaps in any font; only where the halves differ is a block needed.
    line = Text()
    for top, bottom in zip(upper, lower, strict=True):
        style = Style(color=_DARK if top else _LIGHT, bgcolor=_DARK if bottom else _LIGHT)
        line.append(" " if top == bottom else "▀", style)
    return line


def _bare(upper: Sequence[bool], lower: Sequence[bool], light_background: bool) -> Text:
    # A block is in the colour of letters: light on a dark background.
    blocks = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
    ink = [(top == light_background, bottom == light_background) for top, bottom in zip(upper, lower, strict=True)]
    return Text("".join(blocks[pair] for pair in ink))
