"""`python -m whatsapp_operator.controller`."""

import sys
from importlib import metadata

from whatsapp_operator.controller import logs, settings
from whatsapp_operator.controller.app import main

DISTRIBUTION = "whatsapp-operator"


def version() -> str:
    """Version of the package; that of a checkout which was not installed is unknown."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


if __name__ == "__main__":
    found = settings.parse(sys.argv[1:], version=version())
    logs.configure(found.log_format, found.log_level)
    sys.exit(main(found))
