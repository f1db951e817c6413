"""The session's supervisor as the pod runs it, but with paths, addresses and limits from one JSON argument."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from whatsapp_operator.session.__main__ import run
from whatsapp_operator.session.limits import Limits
from whatsapp_operator.session.settings import Settings

if __name__ == "__main__":
    os.umask(0o077)
    given: dict[str, Any] = json.loads(sys.argv[1])
    for name in ("data_dir", "desired_file", "ca_dir", "service_account_dir", "message_socket"):
        given[name] = Path(given[name])
    limits = Limits(**given.pop("limits"))
    asyncio.run(run(Settings(**given), limits))
