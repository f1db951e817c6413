"""Whatever the size of the terminal, `link` stays within it, and what has expired is not on it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.style import Style

from tests import qr_reader
from tests.unit.cli.test_qr import PAYLOAD, modules
from whatsapp_operator.cli.reading import Session
from whatsapp_operator.cli.screen import View, compose
from whatsapp_operator.cli.shown import Shown

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TEXT = "The attempt before this one failed: nobody scanned."


def view(seconds: float = 47, *, qr: str | None = None, code: str | None = None) -> View:
    window = (NOW + timedelta(seconds=151)).isoformat()
    raw = {
        "metadata": {"name": "support", "namespace": "shop"},
        "spec": {"tenant": "acme", "phone": "+15551230001"},
        "status": {"pairing": {"attempt": 2, "expiresAt": window}},
    }
    found = Shown(qr, code, NOW + timedelta(seconds=seconds)) if qr or code else None
    return View(Session(raw), TEXT, found, NOW)


def drawn(seen: View, columns: int, lines: int) -> list[str]:
    found = compose(seen, columns=columns, lines=lines, colours=True, light_background=False)
    return [line.plain for line in found]


@given(
    columns=st.integers(20, 250),
    lines=st.integers(3, 80),
    shown=st.sampled_from([{"qr": PAYLOAD}, {"code": "K7QF2MZX"}, {}]),
)
def test_nothing_is_wider_or_higher_than_the_terminal(columns: int, lines: int, shown: dict[str, Any]) -> None:
    found = drawn(view(**shown), columns, lines)
    assert len(found) <= lines
    # A word is never broken, and the longest one has ten letters; a code is as wide as it is.
    assert max(map(len, found)) <= max(columns, 21)


@pytest.mark.parametrize(("columns", "lines"), [(80, 42), (80, 36), (67, 34 + 2), (200, 50), (127, 34)])
def test_the_qr_is_drawn_whole(columns: int, lines: int) -> None:
    found = compose(view(qr=PAYLOAD), columns=columns, lines=lines, colours=True, light_background=False)
    whole = [line for line in found if any(isinstance(span.style, Style) for span in line.spans)]
    [width] = {max(span.end for span in line.spans if isinstance(span.style, Style)) for line in whole}
    assert qr_reader.read(modules([line[:width] for line in whole])) == PAYLOAD


def test_times_are_counted_down_in_words() -> None:
    assert "This QR: 0:47 left, window 2 of 3: 2:31 left." in drawn(view(qr=PAYLOAD), 80, 42)
    assert "This code: 0:47 left." in drawn(view(code="K7QF2MZX"), 80, 24)
    assert "    K 7 Q F - 2 M Z X" in drawn(view(code="K7QF2MZX"), 80, 24)


@pytest.mark.parametrize("shown", [{"qr": PAYLOAD}, {"code": "K7QF2MZX"}])
def test_what_has_expired_is_not_shown(shown: dict[str, Any]) -> None:
    found = "\n".join(drawn(view(0, **shown), 80, 42))
    assert "▀" not in found
    assert "K 7 Q F" not in found


def test_between_two_codes_there_is_a_word() -> None:
    waits = replace(view(), text="")
    assert "The next QR or code follows by itself." in drawn(waits, 80, 24)


def test_a_small_terminal_is_told_so() -> None:
    found = " ".join(drawn(view(qr=PAYLOAD), 80, 24))
    assert "67 columns and 36 lines, and has 80 and 24" in found
    assert "▀" not in found
