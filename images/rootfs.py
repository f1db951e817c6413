"""Collects only the files that a Python program needs to run: the root of an image without a distribution.

Runs in the build stage of the Dockerfiles, on the interpreter that is to be shipped (Debian's under /usr, or one under
/usr/local), with nothing but the standard library. What goes in: the interpreter and its standard library without
tests, GUI and packaging; the installed packages; the shared libraries that all of these need; a shell, root
certificates, user 65532; and for each Debian package that a file is from, its licence and its entry of the dpkg
database, where vulnerability scanners look for it.
"""

import argparse
import errno
import fnmatch
import os
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

UNUSED_STDLIB = (
    "*-packages",
    "config-*",
    "curses",
    "distutils",
    "ensurepip",
    "idlelib",
    "lib-dynload/_ctypes_test.*",
    "lib-dynload/_curses*",
    "lib-dynload/_dbm.*",
    "lib-dynload/_gdbm.*",
    "lib-dynload/_test*",
    "lib-dynload/_tkinter.*",
    "lib-dynload/_xx*",
    "lib-dynload/nis.*",
    "lib-dynload/ossaudiodev.*",
    "lib-dynload/readline.*",
    "lib-dynload/xx*",
    "lib2to3",
    "pydoc_data",
    "sitecustomize.py",
    "test",
    "tkinter",
    "turtle.py",
    "turtledemo",
    "venv",
)
# Read by compilers, type checkers and installers.
UNUSED_ANYWHERE = ("*.pyi", "*.pyx", "*.pxd", "*.c", "*.h", "*.a", "__pycache__", "RECORD")

SHELL = "/bin/sh"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
ALWAYS = (SHELL, CERTIFICATES, "/etc/os-release")
# glibc opens it by name when a thread ends, so no ELF header tells of it.
LIBRARIES = ("libgcc_s.so.1",)

GENERATED = {
    "etc/passwd": (
        "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\nnonroot:x:65532:65532:nonroot:/nonexistent:/usr/sbin/nologin\n"
    ),
    "etc/group": "root:x:0:\nnonroot:x:65532:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
INTERPRETER_NAMES = ("usr/bin/python", "usr/bin/python3")
# As many as the kernel follows.
MAX_LINKS = 40


def excluded(relative: PurePosixPath, patterns: Iterable[str]) -> bool:
    """Whether a pattern matches the path or one of its parents.

    A pattern without a slash is held against each name on the path, another against the path from its start.
    """
    parts = relative.parts
    prefixes = ["/".join(parts[: length + 1]) for length in range(len(parts))]
    return any(
        fnmatch.fnmatchcase(candidate, pattern)
        for pattern in patterns
        for candidate in (prefixes if "/" in pattern else parts)
    )


def parse_ldd(output: str) -> set[str]:
    """The absolute paths of the shared libraries in the output of ldd(1) for one or more files.

    Raises LookupError if a library is not found.
    """
    found: set[str] = set()
    for line in output.splitlines():
        if "=> not found" in line:
            raise LookupError(f"shared library {line.split()[0]} is not found")
        if match := re.match(r"\t(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", line):
            found.add(match[1])
    return found


def parse_ldconfig(output: str, name: str) -> str:
    """The path of library `name` in the output of `ldconfig -p`. Raises LookupError if it is not there."""
    for line in output.splitlines():
        if match := re.match(rf"\t{re.escape(name)} \(.*\) => (/\S+)$", line):
            return match[1]
    raise LookupError(f"shared library {name} is not installed")


def hops(path: str, readlink: Callable[[str], str | None]) -> list[str]:
    """What must exist for the absolute `path` to resolve: each symbolic link on the way, and last the file itself.

    `readlink` returns the target of a link, and None for what is not one. Raises OSError for a loop.
    """
    links: list[str] = []
    pending = list(reversed(PurePosixPath(path).parts[1:]))
    current = PurePosixPath("/")
    while pending:
        name = pending.pop()
        if name == "..":
            current = current.parent
            continue
        step = current / name
        target = readlink(str(step))
        if target is None:
            current = step
            continue
        links.append(str(step))
        if len(links) > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target_parts = PurePosixPath(target).parts
        if target.startswith("/"):
            current, target_parts = PurePosixPath("/"), target_parts[1:]
        pending.extend(reversed(target_parts))
    return [*dict.fromkeys(links), str(current)]


def parse_owners(output: str) -> set[str]:
    """The packages in the output of `dpkg-query --search`: one or more a line, with or without the architecture."""
    owners: set[str] = set()
    for line in output.splitlines():
        if match := re.match(r"([^ :,]+(?::[^ :,]+)?(?:, [^ :,]+(?::[^ :,]+)?)*): /", line):
            owners.update(name.split(":")[0] for name in match[1].split(", "))
    return owners


def parse_common_licences(copyright_file: str) -> list[str]:
    """The paths of the texts that a Debian copyright file refers to instead of having them."""
    return sorted(set(re.findall(r"/usr/share/common-licenses/[A-Za-z0-9.+-]*[A-Za-z0-9]", copyright_file)))


class Rootfs:
    """The directory that is being filled, and what was taken from the machine around it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.taken: set[str] = set()

    def inside(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def add_file(self, path: str) -> None:
        """Adds a file at its own path, along with the symbolic links that lead to it."""
        *links, file = hops(path, read_link)
        for link in links:
            target = self.inside(link)
            if not target.is_symlink():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(Path(link).readlink())
        # The parents of `file` are free of links, so this stays below the root.
        target = self.inside(file)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)
        self.taken.add(file)

    def add_tree(self, source: Path, destination: str, unused: Sequence[str]) -> set[str]:
        """Adds the files below `source` that no pattern excludes. Returns the ELF files among them."""

        def ignore(directory: str, names: list[str]) -> list[str]:
            relative = PurePosixPath(directory).relative_to(source)
            return [name for name in names if excluded(relative / name, unused)]

        copied: set[str] = set()

        def copy(file: str, target: str) -> str:
            copied.add(file)
            return str(shutil.copy2(file, target, follow_symlinks=False))

        shutil.copytree(source, self.inside(destination), symlinks=True, ignore=ignore, copy_function=copy)
        if str(source) == destination:
            self.taken |= copied
        return {file for file in copied if is_elf(Path(file))}

    def write(self, path: str, content: str) -> None:
        target = self.inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)

    def add_debian_records(self) -> None:
        """Adds licence and dpkg entry of each Debian package that something was taken from."""
        # dpkg knows files by the path in the package, which on a merged /usr may be the one without /usr.
        paths = sorted(self.taken | {path.removeprefix("/usr") for path in self.taken})
        # It fails because it knows only one of the two, and none for what is below /usr/local.
        search = subprocess.run(["dpkg-query", "--search", *paths], capture_output=True, text=True, check=False)
        owners = parse_owners(search.stdout)
        if not owners:
            raise LookupError("the base image's dpkg database does not say which package a file is from")
        # The bundle of certificates is made when its package is installed, and belongs to none.
        for owner in sorted(owners | {"ca-certificates"}):
            self.write(f"var/lib/dpkg/status.d/{owner}", run("dpkg-query", "--status", owner))
            if (copyright_file := Path(f"/usr/share/doc/{owner}/copyright")).exists():
                self.add_file(str(copyright_file))
                for text in parse_common_licences(copyright_file.read_text(errors="replace")):
                    if Path(text).exists():
                        self.add_file(text)


def read_link(path: str) -> str | None:
    return str(Path(path).readlink()) if Path(path).is_symlink() else None


def is_elf(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def run(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def build(arguments: argparse.Namespace) -> None:
    rootfs = Rootfs(arguments.root)
    standard_library = sysconfig.get_path("stdlib")
    interpreter = os.path.realpath(sys.executable)

    programs = rootfs.add_tree(Path(standard_library), standard_library, (*UNUSED_STDLIB, *UNUSED_ANYWHERE))
    programs |= rootfs.add_tree(arguments.packages, arguments.packages_at, (*arguments.prune, *UNUSED_ANYWHERE))
    known_libraries = run("ldconfig", "-p")
    libraries = {parse_ldconfig(known_libraries, name) for name in (*LIBRARIES, *arguments.library)}
    programs |= libraries | {interpreter, SHELL}
    needed = parse_ldd(run("ldd", *sorted(programs)))
    for path in sorted(
        {interpreter, *ALWAYS, *libraries, *needed, *arguments.file, ssl.get_default_verify_paths().openssl_cafile}
    ):
        # A package's own libraries are there already, at the place their users look for them.
        if not Path(path).is_relative_to(arguments.packages):
            rootfs.add_file(path)

    for path, content in GENERATED.items():
        rootfs.write(path, content)
    for name in INTERPRETER_NAMES:
        link = rootfs.inside(name)
        if not link.exists():
            link.symlink_to(interpreter)
    rootfs.inside("tmp").mkdir(mode=0o1777)
    rootfs.inside("tmp").chmod(0o1777)
    rootfs.add_debian_records()
    # Libraries under /usr/local are found through the cache only.
    for path in ("/etc/ld.so.conf", *map(str, Path("/etc/ld.so.conf.d").glob("*.conf"))):
        rootfs.add_file(path)
    run("ldconfig", "-r", str(rootfs.root))
    # The root is read-only when it runs: nothing is compiled later, and no file's time is looked at.
    for tree in (standard_library, arguments.packages_at):
        run(
            *(sys.executable, "-m", "compileall", "-q", "-j0", "--invalidation-mode", "unchecked-hash"),
            *("-s", str(rootfs.root), "-p", "/", str(rootfs.inside(tree))),
        )


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="directory to fill; must not exist")
    parser.add_argument(
        "--packages", type=Path, required=True, help="site-packages directory to take the packages from"
    )
    parser.add_argument("--packages-at", required=True, help="absolute path of the packages in the image")
    parser.add_argument(
        "--prune", action="append", default=[], metavar="PATTERN", help="path below --packages to leave out"
    )
    parser.add_argument(
        "--library", action="append", default=[], metavar="NAME", help="shared library opened at run time"
    )
    parser.add_argument(
        "--file", action="append", default=[], metavar="PATH", help="another file, with what its links lead to"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    build(parse_arguments(sys.argv[1:]))
