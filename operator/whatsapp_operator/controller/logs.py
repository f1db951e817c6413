"""The log: JSON or console, one line an entry, free of numbers, addresses, codes, keys and tokens."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final

_MASKS: Final = (
    # Addresses of devices and groups.
    (re.compile(r"[0-9]{5,}(?:[.:][0-9]+)*@(?:s\.whatsapp\.net|lid|g\.us|c\.us)"), "<jid>"),
    # JSON Web Tokens, such as service account tokens.
    (re.compile(r"eyJ[\w-]{10,}\.[\w-]+(?:\.[\w-]*)?"), "<token>"),
    (re.compile(r"(?i)\b(bearer|basic) [\w.~+/=-]{8,}"), r"\1 <token>"),
    # User and password in a URL.
    (re.compile(r"(?<=://)[^/@\s]+@"), "<userinfo>@"),
    # Text of a QR: comma-separated base64.
    (re.compile(r"[0-9]@[\w+/=,-]{20,}"), "<qr>"),
    # Phone numbers in E.164 form.
    (re.compile(r"\+[1-9][0-9]{6,14}\b"), "<phone>"),
)

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({})))


def mask(text: str) -> str:
    """The text without what must not be read by those who read logs."""
    for pattern, replacement in _MASKS:
        text = pattern.sub(replacement, text)
    return text


class _Form(logging.Formatter):
    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """What was passed as extra=, such as the session."""
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD and not key.startswith("_")}
        return {key: value for key, value in extra.items() if isinstance(value, str | int | float | bool)}

    def trace(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


class JsonForm(_Form):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self.fields(record),
        }
        if trace := self.trace(record):
            entry["trace"] = trace
        return mask(json.dumps(entry, default=str))


class ConsoleForm(_Form):
    """For people."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        fields = "".join(f" {key}={value}" for key, value in self.fields(record).items())
        line = f"{time} {record.levelname:<7} {record.getMessage()}{fields}"
        trace = self.trace(record)
        return mask(f"{line}\n{trace}" if trace else line)


def configure(form: str, level: str) -> None:
    """Set up the root logger of the process; kopf's own chatter only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonForm() if form == "json" else ConsoleForm())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("kopf", "aiohttp", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
