"""What the file system below a directory can do."""

import subprocess
import tempfile
from functools import cache
from pathlib import Path


@cache
def overlay_works(directory: Path) -> bool:
    """Whether an overlay can be mounted on `directory`: not inside a container whose root is an overlay itself."""
    with tempfile.TemporaryDirectory(prefix="overlay-", dir=directory) as scratch:
        for name in ("lower", "upper", "work", "merged"):
            (Path(scratch) / name).mkdir()
        options = f"lowerdir={scratch}/lower,upperdir={scratch}/upper,workdir={scratch}/work"
        # In a mount namespace of its own, so that nothing is left mounted.
        command = ["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", options, f"{scratch}/merged"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
