"""Times, durations and foreign text as a person reads them."""

import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Final

NOTHING: Final = "-"


def plain(text: object) -> str:
    """Text of others' making on one line and without control characters, which a terminal would obey."""
    return "".join(" " if c in "\t\n\r" else c for c in str(text) if c in "\t\n\r" or unicodedata.category(c)[0] != "C")


def parse_time(text: str | None) -> datetime | None:
    """A metav1.Time or MicroTime; None for what is none."""
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return found if found is None or found.tzinfo is not None else found.replace(tzinfo=UTC)


def age(span: timedelta) -> str:
    """As kubectl shows it: 45s, 3m12s, 25m, 5h3m, 30h, 4d2h, 60d."""
    seconds = max(0, int(span.total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d"


def since(text: str | None, now: datetime) -> str:
    """How long ago."""
    moment = parse_time(text)
    return NOTHING if moment is None else age(now - moment)


def ago(text: str | None, now: datetime) -> str:
    moment = parse_time(text)
    if moment is None:
        return NOTHING
    return f"{age(now - moment)} ago" if moment <= now else f"in {age(moment - now)}"


def countdown(span: timedelta) -> str:
    """Minutes and seconds, 0:00 at the least."""
    # Rounded up, so that 0:00 is the end.
    seconds = max(0, -int(-span.total_seconds() // 1))
    return f"{seconds // 60}:{seconds % 60:02}"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
