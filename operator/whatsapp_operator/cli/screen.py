"""What `kubectl wa link` and `kubectl wa qr` put on a terminal."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.text import Text

from whatsapp_operator.cli import qr
from whatsapp_operator.cli.reading import Session
from whatsapp_operator.cli.shown import Shown
from whatsapp_operator.cli.words import countdown, parse_time, plain

# Where the QR leaves so many columns, what is said about it stands beside it.
_BESIDE: Final = 56
_GAP: Final = 4
_LEAVE: Final = "Ctrl-C leaves; the session goes on."


@dataclass(frozen=True, slots=True)
class View:
    """A session on its way, and what it shows; `text` says where it stands."""

    session: Session
    text: str
    shown: Shown | None
    now: datetime


def compose(view: View, *, columns: int, lines: int, colours: bool, light_background: bool) -> list[Text]:
    """The whole screen, never wider nor higher than it is."""
    head = [_title(view.session, columns), Text()]
    if view.shown is None or not view.shown.valid(view.now):
        body = [*_folded(view.text, columns), Text(), Text(_LEAVE, "dim")]
        return (head + body)[:lines]
    if view.shown.qr is None:
        return (head + _code(view, view.shown.code or "", columns))[:lines]
    return _qr(view, view.shown.qr, columns, lines, colours, light_background)


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


def _qr(view: View, text: str, columns: int, lines: int, colours: bool, light_background: bool) -> list[Text]:
    beside = columns - qr.least(text)[0] >= _BESIDE + _GAP
    told = [
        *([Text(plain(view.text), "yellow")] if view.text else []),
        Text("Scan it with WhatsApp on the phone: Linked devices, Link a device."),
        _times(view),
        Text(_LEAVE, "dim"),
    ]
    if beside:
        found = qr.fitting(text, columns - _BESIDE - _GAP, lines)
        if found is not None:
            rows = qr.render(found, colours=colours, light_background=light_background)
            words = [_title(view.session, _BESIDE), Text(), *(part for line in told for part in _folded(line, _BESIDE))]
            top = max(0, (len(rows) - len(words)) // 2)
            for index, line in enumerate(words[: len(rows)]):
                rows[top + index].append(" " * _GAP).append_text(line)
            return rows
    words = [part for line in told for part in _folded(line, columns)]
    # The title and the last words give way to the QR.
    for head, tail in (([_title(view.session, columns)], words), ([], words), ([], words[:-1])):
        found = qr.fitting(text, columns, lines - len(head) - len(tail))
        if found is not None:
            return [*head, *qr.render(found, colours=colours, light_background=light_background), *tail]
    message = too_small(text, columns, lines, further=2)
    return [_title(view.session, columns), Text(), *_folded(Text(message, "yellow"), columns), Text(), _times(view)][
        :lines
    ]


def _code(view: View, code: str, columns: int) -> list[Text]:
    phone = view.session.spec.get("phone")
    return [
        Text(f"Pairing code for {plain(phone)}" if phone else "Pairing code"),
        Text(),
        Text.assemble("    ", (" ".join(plain(formatted_code(code))), "bold")),
        Text(),
        *_folded(
            "Enter it in WhatsApp on the phone: Linked devices, Link a device, Link with phone number instead.", columns
        ),
        *(_folded(Text(plain(view.text), "yellow"), columns) if view.text else []),
        _times(view),
        Text(_LEAVE, "dim"),
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


def _folded(text: str | Text, columns: int) -> list[Text]:
    """Wrapped at words."""
    whole = text if isinstance(text, Text) else Text(plain(text))
    found: list[Text] = []
    line, style = Text(), whole.style
    for word in whole.plain.split():
        if line and len(line) + 1 + len(word) > columns:
            found.append(line)
            line = Text()
        line.append(f" {word}" if line else word, style)
    return [*found, line]
