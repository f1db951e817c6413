"""`python -m whatsapp_operator.controller`."""

import logging
import os
import sys

from whatsapp_operator import __version__
from whatsapp_operator.controller import logs, settings
from whatsapp_operator.controller.app import main

# Set by the image, to what it was built as.
VERSION_VARIABLE = "WHATSAPP_OPERATOR_VERSION"


def version() -> str:
    """Version of the image or else of the package."""
    return os.environ.get(VERSION_VARIABLE) or __version__


if __name__ == "__main__":
    found = settings.parse(sys.argv[1:], version=version())
    logs.configure(found.log_format, found.log_level)
    try:
        sys.exit(main(found))
    except Exception:
        # Not left to the interpreter, which would print what it says as it is.
        logging.getLogger(__name__).exception("the operator cannot run")
        sys.exit(1)
