"""What software is in an image, read from the image itself: from the metadata of its Python packages, from the dpkg
entries that images/rootfs.py puts in, and from what the Go compiler wrote into neonize's library.
"""

import json
import posixpath
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_string
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote

from images.licences import GO_LICENCES, python_licence
from tests.cluster.errors import ClusterError

GO_BUILD_INFO = b"\xff Go buildinf:"
# Go puts 16 bytes of its own around the list of modules.
GO_SENTINEL = 16
COMMON_LICENCES = "/usr/share/common-licenses/"


@dataclass(frozen=True)
class Package:
    """`licence` is an SPDX expression, or for Debian the short names of the copyright file; empty: unknown.

    `texts` are the licence files, by their path in the image.
    """

    kind: Literal["pypi", "deb", "golang"]
    name: str
    version: str
    licence: str
    texts: dict[str, str] = field(default_factory=dict, compare=False)
    requires: tuple[str, ...] = ()
    architecture: str = ""
    source: str = ""
    """Of a Debian package: the source package; of a Go module: the file that holds it."""
    checksum: str = ""
    """Of a Go module, as in go.sum."""

    @property
    def purl(self) -> str:
        name, version = (quote(text, safe="/" if self.kind == "golang" else "") for text in (self.name, self.version))
        if self.kind == "deb":
            return f"pkg:deb/debian/{name}@{version}?arch={self.architecture}&distro=debian-12"
        return f"pkg:{self.kind}/{name}@{version}"


@dataclass(frozen=True)
class Inventory:
    """`digest` is that of the image's manifest."""

    digest: str
    packages: tuple[Package, ...]


@dataclass(frozen=True)
class Files:
    """The files of an image that tell what is in it, and its symbolic links, by absolute path."""

    digest: str
    contents: dict[str, bytes]
    links: dict[str, str]

    def read(self, path: str) -> str | None:
        """The text at a path, through links of files and of folders; None if there is none."""
        for _ in range(10):
            if path in self.contents:
                return self.contents[path].decode(errors="replace")
            for parent in (path, *map(str, PurePosixPath(path).parents)):
                if parent in self.links:
                    target = posixpath.join(posixpath.dirname(parent), self.links[parent])
                    path = posixpath.normpath(target + path[len(parent) :])
                    break
            else:
                return None
        return None


def read(archive: Path) -> Inventory:
    """The software in the image of an OCI archive. Raises ClusterError if the image holds none that is recorded."""
    files = read_files(archive)
    packages = [*_python(files), *_debian(files), *_go(files)]
    if not packages:
        raise ClusterError(f"{archive} holds no records of what is in it")
    return Inventory(files.digest, tuple(sorted(packages, key=lambda package: (package.kind, package.name))))


def read_files(archive: Path) -> Files:
    contents: dict[str, bytes] = {}
    links: dict[str, str] = {}
    with tarfile.open(archive) as tar:

        def blob(digest: str) -> tarfile.ExFileObject:
            file = tar.extractfile(f"blobs/{digest.replace(':', '/')}")
            if file is None:
                raise ClusterError(f"{archive} lacks {digest}")
            return file  # type: ignore[return-value]

        index = tar.extractfile("index.json")
        if index is None:
            raise ClusterError(f"{archive} is no OCI archive")
        digest: str = json.load(index)["manifests"][0]["digest"]
        for layer in json.load(blob(digest))["layers"]:
            with tarfile.open(fileobj=blob(layer["digest"]), mode="r|*") as members:
                for member in members:
                    path = str(PurePosixPath("/", member.name))
                    if member.issym():
                        links[path] = member.linkname
                    elif member.isfile() and _tells(path) and (file := members.extractfile(member)):
                        contents[path] = file.read()
    return Files(digest, contents, links)


def _tells(path: str) -> bool:
    return (
        ".dist-info/" in path
        or path.startswith(("/usr/share/doc/", "/var/lib/dpkg/status.d/", COMMON_LICENCES))
        or (path.endswith(".so") and "/neonize/" in path)
    )


def _python(files: Files) -> Iterator[Package]:
    for path in sorted(files.contents):
        if not path.endswith(".dist-info/METADATA"):
            continue
        folder = path.removesuffix("METADATA")
        metadata = message_from_string(files.contents[path].decode())
        texts = {
            other: content.decode(errors="replace")
            for other, content in files.contents.items()
            if other.startswith(folder)
            and (
                other.startswith(f"{folder}licenses/")
                or re.match(r"(?i)licen[cs]e|copying|notice", other[len(folder) :])
            )
        }
        requires = (
            re.split(r"[^A-Za-z0-9._-]", requirement)[0]
            for requirement in metadata.get_all("Requires-Dist") or ()
            if "extra ==" not in requirement
        )
        yield Package(
            "pypi",
            canonical(metadata["Name"]),
            metadata["Version"],
            python_licence(metadata),
            texts,
            tuple(sorted({canonical(name) for name in requires})),
        )


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _debian(files: Files) -> Iterator[Package]:
    for path in sorted(files.contents):
        if not path.startswith("/var/lib/dpkg/status.d/"):
            continue
        status = message_from_string(files.contents[path].decode())
        copyright_file = f"/usr/share/doc/{status['Package']}/copyright"
        text = files.read(copyright_file)
        texts = {copyright_file: text} if text else {}
        for name in sorted(set(re.findall(rf"{COMMON_LICENCES}([A-Za-z0-9.+-]*[A-Za-z0-9])", text or ""))):
            if found := files.read(COMMON_LICENCES + name):
                texts[COMMON_LICENCES + name] = found
        names = re.findall(r"^License:[ \t]*(\S.*?)[ \t]*$", text or "", re.MULTILINE)
        in_main = "/" not in (status["Section"] or "non-free/unknown")
        yield Package(
            "deb",
            status["Package"],
            status["Version"],
            (", ".join(dict.fromkeys(names)) or f"see {copyright_file}") if text and in_main else "",
            texts,
            architecture=status["Architecture"],
            source=(status["Source"] or status["Package"]).split()[0],
        )


def _go(files: Files) -> Iterator[Package]:
    for path in sorted(files.contents):
        if path.endswith(".so"):
            for module, version, checksum in go_modules(files.contents[path]):
                yield Package("golang", module, version, GO_LICENCES.get(module, ""), source=path, checksum=checksum)


def go_modules(library: bytes) -> list[tuple[str, str, str]]:
    """(module, version, checksum) of what a library written in Go was linked from, the standard library included."""
    start = library.find(GO_BUILD_INFO)
    if start < 0:
        return []
    toolchain, rest = _go_string(library, start + 32)
    listing, _ = _go_string(library, rest)
    lines = (line.split(b"\t") for line in listing[GO_SENTINEL:-GO_SENTINEL].splitlines())
    found = [tuple(word.decode() for word in words[1:4]) for words in lines if words[0] in (b"dep", b"=>")]
    return [("std", toolchain.decode().removeprefix("go"), ""), *((name, version, h1) for name, version, h1 in found)]


def _go_string(data: bytes, at: int) -> tuple[bytes, int]:
    """A string behind its length (a varint), and where it ends."""
    length = shift = 0
    while True:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return data[at : at + length], at + length
