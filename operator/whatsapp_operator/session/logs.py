"""JSON logs, a line each, with session, tenant and attempt id; masked."""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from whatsapp_operator.api.masking import mask
from whatsapp_operator.api.names import LOG_LEVELS

logger = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """`attempt` tells the correlation id of the open pairing attempt, or None."""

    def __init__(self, session: str, tenant: str, attempt: Callable[[], str | None]) -> None:
        super().__init__()
        self._session = session
        self._tenant = tenant
        self._attempt = attempt

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix("whatsapp_operator."),
            "message": mask(record.getMessage()),
            "session": self._session,
            "tenant": self._tenant,
        }
        attempt = self._attempt()
        if attempt is not None:
            entry["attempt"] = attempt
        if record.exc_info:
            entry["exception"] = mask(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


def configure(level: str, session: str, tenant: str, attempt: Callable[[], str | None]) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(session, tenant, attempt))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.raiseExceptions = False  # a log call that is wrong would print its arguments
    # asyncio logs whole reprs of transports and tasks at DEBUG
    logging.getLogger("asyncio").setLevel(logging.WARNING)


class Level:
    """The level from now on: the one that is asked for, or the environment's."""

    def __init__(self, default: str) -> None:
        self._default = default
        self._unknown: str | None = None

    def follow(self, asked: str | None) -> None:
        """A name that is none of the known ones is told of once and counts as None."""
        unknown = asked if asked not in (None, *LOG_LEVELS) else None
        logging.getLogger().setLevel(self._default if unknown is not None or asked is None else asked)
        if unknown not in (None, self._unknown):
            logger.warning("the log level that is asked for is none of %s", ", ".join(LOG_LEVELS))
        self._unknown = unknown
