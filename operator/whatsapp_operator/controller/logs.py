"""The log: JSON or console, one line an entry, free of numbers, addresses, codes, keys and tokens."""

import json
import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from whatsapp_operator.api.masking import mask

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({})))


_subject: ContextVar[Mapping[str, str]] = ContextVar("subject", default=MappingProxyType({}))


def about(**fields: str) -> None:
    """From now on every entry of this task, and of those that it starts, has these fields; an empty one is left out."""
    _subject.set({name: value for name, value in fields.items() if value})


class _Form(logging.Formatter):
    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """What the task is about, and what was passed as extra=."""
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD and not key.startswith("_")}
        told = {
            key: value
            for key, value in {**_subject.get(), **extra}.items()
            if isinstance(value, str | int | float | bool)
        }
        return {key: mask(value) if isinstance(value, str) else value for key, value in told.items()}

    def message(self, record: logging.LogRecord) -> str:
        return mask(record.getMessage())

    def trace(self, record: logging.LogRecord) -> str:
        return mask(self.formatException(record.exc_info)) if record.exc_info else ""


class JsonForm(_Form):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message(record),
            **self.fields(record),
        }
        if trace := self.trace(record):
            entry["trace"] = trace
        return json.dumps(entry)


class ConsoleForm(_Form):
    """For people."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        fields = "".join(f" {key}={value}" for key, value in self.fields(record).items())
        line = f"{time} {record.levelname:<7} {self.message(record)}{fields}"
        trace = self.trace(record)
        return f"{line}\n{trace}" if trace else line


def configure(form: str, level: str) -> None:
    """Set up the root logger of the process; kopf's own chatter only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonForm() if form == "json" else ConsoleForm())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.raiseExceptions = False  # a log call that is wrong would print its arguments
    for noisy in ("kopf", "aiohttp", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
