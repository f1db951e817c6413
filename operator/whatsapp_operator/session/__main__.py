"""`python -m whatsapp_operator.session`: the session pod's first process."""

import asyncio
import logging
import os
import signal
import sys

from whatsapp_operator.session import logs
from whatsapp_operator.session.limits import LIMITS, Limits
from whatsapp_operator.session.settings import Settings, SettingsError
from whatsapp_operator.session.supervisor import Supervisor

logger = logging.getLogger(__name__)


async def run(settings: Settings, limits: Limits = LIMITS) -> None:
    """A supervisor with its logs and signals; returns after SIGTERM or SIGINT."""
    supervisor = Supervisor(settings, limits)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    logs.configure(settings.log_level, settings.session, settings.tenant, lambda: supervisor.attempt_id)
    await supervisor.run()


def main() -> int:
    """Status 0 after a signal, 1 after a failure, 2 for an environment that cannot be used."""
    os.umask(0o077)
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        print(f"whatsapp session: {error}", file=sys.stderr)  # noqa: T201
        return 2
    try:
        asyncio.run(run(settings))
    except Exception:
        logger.exception("the supervisor has failed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
