"""Builds the images with the Dockerfiles beside this file and loads them into the local cluster.

No Docker is needed: see tests/cluster/images.py. An image's tag is a hash over everything that decides what is in it,
so what is built is not built again, and what the cluster has is not loaded again. `:dev` follows the newest.
"""

# ruff: noqa: T201

import argparse
import fnmatch
import hashlib
import json
import shlex
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tests.cluster import images
from tests.cluster.errors import ClusterError
from tests.cluster.locks import exclusive
from tests.cluster.paths import CHECKOUT, ClusterPaths, cluster_paths

REPOSITORY = "localhost/whatsapp-operator"
MEGABYTE = 1_000_000
# Archives of one image that stay in the cache: checkouts and branches take turns.
ARCHIVES_KEPT = 4
# As in .dockerignore.
NEVER_SENT = ("__pycache__", "*.pyc")
# The only programs in an image; what installs or compiles software is no program alone.
PROGRAMS = ("dash", "python*", "sh", "uname")
INSTALLERS = ("*/ensurepip/*", "*/pip/*", "*/setuptools/*", "*/distutils/*")
# Only the simulator and its variant of the session image know of the simulator.
SIMULATOR_ONLY = ("*/whatsapp_simulator*", "*/sitecustomize*")


@dataclass(frozen=True)
class Image:
    """`parent` is the image that the build argument SESSION_IMAGE names. The limits are in bytes."""

    name: str
    dockerfile: str
    target: str | None = None
    parent: str | None = None
    forbidden: tuple[str, ...] = (*INSTALLERS, *SIMULATOR_ONLY)
    unpacked_limit: int | None = None
    compressed_limit: int | None = None


# A parent comes before what is made from it.
IMAGES = (
    Image(
        "session",
        "images/session/Dockerfile",
        unpacked_limit=150 * MEGABYTE,
        compressed_limit=55 * MEGABYTE,
    ),
    Image("operator", "images/operator/Dockerfile"),
    Image("simulator", "images/simulator/Dockerfile", target="simulator", forbidden=INSTALLERS),
    Image(
        "session-simulator",
        "images/simulator/Dockerfile",
        target="session",
        parent="session",
        forbidden=INSTALLERS,
    ),
)


@dataclass(frozen=True)
class Contents:
    """Sizes in bytes: of the files, and of the layers as they are transferred."""

    unpacked: int
    compressed: int
    paths: frozenset[str]


@dataclass(frozen=True)
class Built:
    reference: str
    archive: Path
    unpacked: int
    compressed: int


def instructions(dockerfile: str) -> Iterator[str]:
    """The instructions of a Dockerfile, each on one line, without comments."""
    lines = "\n".join(line for line in dockerfile.splitlines() if not line.lstrip().startswith("#"))
    return (line for line in lines.replace("\\\n", " ").splitlines() if line.strip())


def context_paths(dockerfile: str) -> list[str]:
    """The paths that a Dockerfile copies out of the build context."""
    paths: list[str] = []
    for instruction in instructions(dockerfile):
        keyword, *words = shlex.split(instruction)
        flags = [word for word in words if word.startswith("--")]
        if keyword.upper() == "COPY" and not any(flag.startswith("--from=") for flag in flags):
            paths += [word for word in words if word not in flags][:-1]
    return paths


def context_files(root: Path, paths: Iterable[str]) -> list[Path]:
    """The files below `root` that are sent for these paths, sorted. Raises ClusterError for one that is not there."""
    files: set[Path] = set()
    for path in paths:
        if not (root / path).exists():
            raise ClusterError(f"{path}, which a Dockerfile copies, is not there")
        found = [root / path] if (root / path).is_file() else (root / path).rglob("*")
        files |= {file for file in found if file.is_file() and not _matches(file.relative_to(root).parts, NEVER_SENT)}
    return sorted(files)


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(part, pattern) for part in parts for pattern in patterns)


def version(root: Path = CHECKOUT) -> str:
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def references(root: Path = CHECKOUT) -> dict[str, str]:
    """The references, by name of the image, that the sources below `root` make; built or not."""
    found: dict[str, str] = {}
    for image in IMAGES:
        dockerfile = (root / image.dockerfile).read_text()
        content = hashlib.sha256()
        decisive = [
            dockerfile,
            image.target,
            version(root),
            images.base_digest(),
            found[image.parent] if image.parent else None,
        ]
        content.update(json.dumps(decisive).encode())
        for file in context_files(root, context_paths(dockerfile)):
            executable = bool(file.stat().st_mode & 0o111)
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            content.update(json.dumps([str(file.relative_to(root)), executable, digest]).encode())
        found[image.name] = f"{REPOSITORY}/{image.name}:{content.hexdigest()[:12]}"
    return found


def build_all(root: Path = CHECKOUT) -> dict[str, Built]:
    """Builds what is not built yet. Raises ClusterError if a build fails or an image holds what it must not."""
    built: dict[str, Built] = {}
    wanted = references(root)
    cache = images.image_cache() / "project"
    cache.mkdir(exist_ok=True)
    with exclusive(cache):
        for image in IMAGES:
            parent = built[image.parent] if image.parent else None
            built[image.name] = _build(image, wanted[image.name], parent, root, cache)
    return built


def _build(image: Image, reference: str, parent: Built | None, root: Path, cache: Path) -> Built:
    archive = cache / f"{image.name}-{reference.rpartition(':')[2]}.oci.tar"
    sizes = archive.with_suffix(".json")
    # The sizes are written last: without them the archive has not passed.
    if not sizes.is_file():
        print(f"building {image.name}", flush=True)
        began = time.monotonic()
        build_archive(image, reference, archive, root, parent)
        contents = read_contents(archive)
        check(image, contents)
        sizes.write_text(json.dumps({"unpacked": contents.unpacked, "compressed": contents.compressed}))
        print(f"built {image.name} in {time.monotonic() - began:.1f} s", flush=True)
        _drop_old_archives(image, cache)
    archive.touch()
    return Built(reference, archive, **json.loads(sizes.read_text()))


def build_archive(
    image: Image, reference: str, archive: Path, root: Path, parent: Built | None = None, *, cached: bool = True
) -> None:
    build_args = {"VERSION": version(root)}
    if parent:
        build_args["SESSION_IMAGE"] = f"oci-archive:{parent.archive}"
    images.build(
        root,
        reference,
        dockerfile=root / image.dockerfile,
        target=image.target,
        build_args=build_args,
        archive=archive,
        cached=cached,
    )


def _drop_old_archives(image: Image, cache: Path) -> None:
    by_age = sorted(
        cache.glob(f"{image.name}-????????????.oci.tar"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for archive in by_age[ARCHIVES_KEPT:]:
        archive.with_suffix(".json").unlink(missing_ok=True)
        archive.unlink()


def read_contents(archive: Path) -> Contents:
    """What is in the image of an OCI archive with one manifest; a file that a later layer hides counts too."""
    with tarfile.open(archive) as tar:

        def blob(descriptor: dict[str, Any]) -> IO[bytes]:
            algorithm, digest = descriptor["digest"].split(":")
            return _member(tar, f"blobs/{algorithm}/{digest}")

        (manifest,) = json.load(_member(tar, "index.json"))["manifests"]
        layers = json.load(blob(manifest))["layers"]
        unpacked, paths = 0, set()
        for layer in layers:
            with tarfile.open(fileobj=blob(layer), mode="r|*") as files:
                for file in files:
                    unpacked += file.size
                    paths.add(str(PurePosixPath("/", file.name)))
    return Contents(unpacked, sum(layer["size"] for layer in layers), frozenset(paths))


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    file = tar.extractfile(name)
    if file is None:
        raise ClusterError(f"{name} in the image archive is not a file")
    return file


def check(image: Image, contents: Contents) -> None:
    """Raises ClusterError if the image is too big or holds what it must not."""
    found = {path for path in contents.paths if _matches([path], image.forbidden)}
    programs = {path for path in contents.paths if PurePosixPath(path).parent.name in ("bin", "sbin")}
    found |= {path for path in programs if not _matches([PurePosixPath(path).name], PROGRAMS)}
    if found:
        raise ClusterError(f"the {image.name} image holds what it must not: {', '.join(sorted(found)[:10])}")
    for what, size, limit in (
        ("unpacked", contents.unpacked, image.unpacked_limit),
        ("compressed", contents.compressed, image.compressed_limit),
    ):
        if limit and size > limit:
            raise ClusterError(
                f"the {image.name} image has {size / MEGABYTE:.1f} MB {what}: more than {limit / MEGABYTE:.0f}"
            )


def load_all(built: dict[str, Built], paths: ClusterPaths | None = None) -> None:
    """Makes the running cluster hold the images, each as `:<hash>` and as `:dev`."""
    present = images.loaded(paths)
    for image in built.values():
        if image.reference not in present:
            print(f"loading {image.reference}", flush=True)
            images.load(image.archive, paths)
    present = images.loaded(paths)
    for name, image in built.items():
        alias = f"{REPOSITORY}/{name}:dev"
        if present.get(alias) != present[image.reference]:
            images.tag(image.reference, alias, paths)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m images.build", description="Build the images and load them into the cluster."
    )
    parser.add_argument("--no-load", action="store_true", help="only build")
    options = parser.parse_args(arguments)
    try:
        built = build_all()
        for image in built.values():
            print(
                f"{image.reference:<64} {image.unpacked / MEGABYTE:6.1f} MB unpacked"
                f" {image.compressed / MEGABYTE:6.1f} MB compressed"
            )
        if not options.no_load and cluster_paths().containerd_socket.exists():
            load_all(built)
        elif not options.no_load:
            print("not loaded: this checkout's cluster is not up")
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
