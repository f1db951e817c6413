"""What `kubectl wa link` and `kubectl wa qr` put on a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.text import Text

from whatsapp_operator.cli import qr
from whatsapp_operator.cli.reading import Session
from whatsapp_operator.cli.shown import Shown
from whatsapp_operator.cli.words import countdown, parse_time, plain

# Where a QR leaves so many columns, what is said about it stands beside it.
_BESIDE: Final = 56
_GAP: Final = 4
# Lines that a QR is never without, on a terminal that is wide enough.
_LEAST_WORDS: Final = 2
_SCAN: Final = Text("Scan it with WhatsApp on the phone: Linked devices, Link a device.")
_ENTER: Final = Text(
    "Enter it in WhatsApp on the phone: Linked devices, Link a device, Link with phone number instead."
)
_NEXT: Final = Text("The next QR or code follows by itself.")
_LEAVE: Final = Text("Ctrl-C leaves; the session goes on.", "dim")


@dataclass(frozen=True, slots=True)
class View:
    """A session on its way, and what it shows; `text` says where it stands."""

    session: Session
    text: str
    shown: Shown | None
    now: datetime


def compose(view: View, *, columns: int, lines: int, colours: bool, light_background: bool) -> list[Text]:
    """The whole screen, never wider nor higher than it is."""
    if view.shown is None or not view.shown.valid(view.now):
        told = [Text(plain(view.text)) if view.text else _NEXT, Text(), _LEAVE]
    elif view.shown.qr is None:
        told = _code(view, view.shown.code or "")
    else:
        text = view.shown.qr
        found = _qr(view, text, columns, lines, colours, light_background)
        if found is not None:
            return found
        told = [Text(too_small(text, columns, lines, further=_LEAST_WORDS), "yellow"), Text(), _times(view), _LEAVE]
    return [_title(view.session, columns), Text(), *_folded(told, columns)][:lines]


def picture(text: str, *, columns: int, lines: int, colours: bool, light_background: bool) -> list[Text] | None:
    """A QR alone; None where there is no room for it."""
    found = qr.fitting(text, columns, lines)
    return qr.render(found, colours=colours, light_background=light_background) if found else None


def too_small(text: str, columns: int, lines: int, *, further: int = 0) -> str:
    """Why a QR is not drawn; `further` lines are needed beside it."""
    width, height = qr.least(text)
    return (
        f"The terminal is too small for the QR: it needs {width} columns and {height + further} lines, and has"
        f" {columns} and {lines}. Enlarge the window or make its font smaller."
    )


def formatted_code(code: str) -> str:
    """As phones ask for it: two groups of four."""
    return code if len(code) != 8 else f"{code[:4]}-{code[4:]}"


def _qr(view: View, text: str, columns: int, lines: int, colours: bool, light_background: bool) -> list[Text] | None:
    """The QR and what is said about it, beside it or below; None where there is no room for it."""
    failed = [Text(plain(view.text), "yellow")] if view.text else []
    told = [*failed, _SCAN, _times(view), _LEAVE]
    if rows := picture(
        text, columns=columns - _BESIDE - _GAP, lines=lines, colours=colours, light_background=light_background
    ):
        width = columns - _GAP - rows[0].cell_len
        words = [_title(view.session, width), Text(), *_folded(told, width)]
        top = max(0, (len(rows) - len(words)) // 2)
        for row, line in zip(rows[top:], words, strict=False):
            row.append(" " * _GAP).append_text(line)
        return rows
    title = [_title(view.session, columns)]
    # What is said gives way to the QR, all but what to do and for how long.
    for head, words in ((title, told), ([], told), ([], told[:-1]), ([], told[-3:-1])):
        tail = _folded(words, columns)
        room = lines - len(head) - len(tail)
        if rows := picture(text, columns=columns, lines=room, colours=colours, light_background=light_background):
            return [*head, *rows, *tail]
    return None


def _code(view: View, code: str) -> list[Text]:
    phone = view.session.spec.get("phone")
    return [
        Text(f"Pairing code for {plain(phone)}" if phone else "Pairing code"),
        Text(),
        Text(f"    {' '.join(plain(formatted_code(code)))}", "bold"),
        Text(),
        *([Text(plain(view.text), "yellow")] if view.text else []),
        _ENTER,
        _times(view),
        _LEAVE,
    ]


def _title(session: Session, columns: int) -> Text:
    phone = session.spec.get("phone")
    title = Text.assemble(
        (plain(session.name), "bold"),
        f"  tenant {plain(session.spec.get('tenant'))}",
        f"  {plain(phone)}" if phone else "  any phone",
        f"  namespace {plain(session.namespace)}",
    )
    title.truncate(columns, overflow="ellipsis")
    return title


def _times(view: View) -> Text:
    pairing = view.session.part("pairing")
    window_ends = parse_time(pairing.get("expiresAt"))
    attempts = (view.session.spec.get("pairing") or {}).get("attempts") or 3
    parts = []
    if view.shown is not None:
        what = "This QR" if view.shown.qr else "This code"
        parts.append(f"{what}: {countdown(view.shown.expires_at - view.now)} left")
    if view.shown is None or view.shown.qr:
        window = f"window {pairing.get('attempt') or 1} of {attempts}"
        parts.append(f"{window}: {countdown(window_ends - view.now)} left" if window_ends else window)
    return Text(", ".join(parts) + ".")


def _folded(lines: Sequence[Text], columns: int) -> list[Text]:
    """Wrapped at words; a line that is indented stays as it is."""
    found: list[Text] = []
    for whole in lines:
        if whole.plain.startswith(" "):
            found.append(whole)
            continue
        line = Text(style=whole.style)
        for word in whole.plain.split():
            if line and len(line) + 1 + len(word) > columns:
                found.append(line)
                line = Text(style=whole.style)
            line.append(f" {word}" if line else word)
        found.append(line)
    return found
