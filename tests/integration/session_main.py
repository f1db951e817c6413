"""The session's supervisor as the pod runs it, but with paths and addresses from one JSON argument."""

import asyncio
import json
import os
import sys
from pathlib import Path

from whatsapp_operator.session.__main__ import run
from whatsapp_operator.session.settings import Settings

if __name__ == "__main__":
    os.umask(0o077)
    given = json.loads(sys.argv[1])
    paths = ("data_dir", "desired_file", "ca_dir", "service_account_dir", "message_socket")
    asyncio.run(run(Settings(**{name: Path(value) if name in paths else value for name, value in given.items()})))
