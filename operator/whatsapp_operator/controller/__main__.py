"""`python -m whatsapp_operator.controller`."""

import logging
import os
import sys
from importlib import metadata

from whatsapp_operator.controller import logs, settings
from whatsapp_operator.controller.app import main

DISTRIBUTION = "whatsapp-operator"
# Set by the image, which holds the package's files without its metadata.
VERSION_VARIABLE = "WHATSAPP_OPERATOR_VERSION"


def version() -> str:
    """Version of the image or else of the package; that of a checkout which was not installed is unknown."""
    if found := os.environ.get(VERSION_VARIABLE):
        return found
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


if __name__ == "__main__":
    found = settings.parse(sys.argv[1:], version=version())
    logs.configure(found.log_format, found.log_level)
    try:
        sys.exit(main(found))
    except Exception:
        # Not left to the interpreter, which would print what it says as it is.
        logging.getLogger(__name__).exception("the operator cannot run")
        sys.exit(1)
