"""`make release VERSION=x.y.z`: all that is released of a version, in dist/release.

The first run commits the version ("Release x.y.z"); it makes no tag and pushes nothing. Everything is built from
that commit, with its time, so that every further run gives the same files.
"""

# ruff: noqa: T201

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charts import render
from images import build, inventory, licences, sbom, version
from images.version import ReleaseError
from tests.cluster import binaries
from tests.cluster.errors import ClusterError
from tests.cluster.paths import CHECKOUT

DESTINATION = "dist/release"
RELEASED = ("operator", "session")
REF_NAME = "org.opencontainers.image.ref.name"
TEXTS = re.compile(r"(?i)(licen[cs]e|copying|notice)(\.(txt|md))?")


def git(root: Path, *arguments: str) -> str:
    """What git says. Raises ReleaseError with its error."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def prepare(root: Path, wanted: str) -> None:
    """Makes the checkout the commit of the release, which it may be already.

    Raises ReleaseError if it cannot become that.
    """
    version.key(wanted)
    if changed := git(root, "status", "--porcelain"):
        raise ReleaseError(f"the checkout is not clean. Remedy: commit, or put away, these changes:\n{changed}")
    file = root / "CHANGELOG.md"
    changelog = file.read_text() if file.is_file() else ""
    tags = git(root, "tag").split()
    if wanted in (sections := version.sections(changelog)) and build.version(root) == wanted:
        tag = f"v{wanted}"
        elsewhere = tag in tags and git(root, "rev-parse", f"{tag}^{{commit}}") != git(root, "rev-parse", "HEAD")
        if elsewhere or sections[version.UNRELEASED]:
            raise ReleaseError(
                f"{wanted} was released from an earlier commit. Remedy: check that commit out to build it again,"
                " or choose a greater version"
            )
        return
    version.check_next(wanted, changelog, tags)
    files = version.write(root, wanted, time.strftime("%Y-%m-%d", time.gmtime()))
    git(root, "add", *map(str, files))
    git(root, "commit", "--quiet", "--message", f"Release {wanted}")
    print(f"committed the version: {git(root, 'log', '-1', '--format=%h %s')}", flush=True)


def rewrite(source: Path, target: Path, reference: str) -> str:
    """Copies an OCI archive, named anew, so that it depends on the image alone. Returns the manifest's digest."""
    with tarfile.open(source) as tar, tarfile.open(target, "w") as copy:
        for name in sorted(tar.getnames()):
            file = tar.extractfile(name) if tar.getmember(name).isfile() else None
            if file is None:
                continue
            content = file.read()
            if name == "index.json":
                index: dict[str, Any] = json.loads(content)
                (manifest,) = index["manifests"]
                manifest["annotations"] = {REF_NAME: reference}
                content = json.dumps(index, sort_keys=True).encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            copy.addfile(entry, io.BytesIO(content))
    return str(manifest["digest"])


def images(root: Path, wanted: str, destination: Path, registry: str) -> dict[str, str]:
    """Writes the archives and returns the digests by image. Each is built twice, the second time from nothing.

    Raises ReleaseError if the two differ.
    """
    built = build.build_all(root)
    digests: dict[str, str] = {}
    for image in build.IMAGES:
        if image.name not in RELEASED:
            continue
        archive = destination / f"whatsapp-operator-{image.name}-{wanted}.oci.tar"
        digests[image.name] = rewrite(built[image.name].archive, archive, f"{registry}/{image.name}:{wanted}")
        with tempfile.TemporaryDirectory(prefix="again-") as directory:
            again = Path(directory) / "image.tar"
            print(f"building {image.name} again, from nothing", flush=True)
            build.build_archive(image, built[image.name].reference, again, root, cached=False)
            if (digest := inventory.read_files(again).digest) != digests[image.name]:
                raise ReleaseError(
                    f"two builds of the {image.name} image differ, {digests[image.name]} and {digest}. Remedy: find"
                    " what differs (docs/release.md, Reproducibility), and make it the same"
                )
        contents = inventory.read(archive)
        if told := licences.problems(contents):
            raise ReleaseError(f"licences in the {image.name} image: {'; '.join(told)}. Remedy: see docs/release.md")
        stem = archive.name.removesuffix(".oci.tar")
        (destination / f"{stem}.cdx.json").write_text(sbom.render(sbom.document(image.name, wanted, contents)))
        (destination / f"{stem}.licences.txt").write_text(
            licences.third_party(f"{registry}/{image.name}:{wanted}", contents, go_texts(contents))
        )
    return digests


def go_texts(contents: inventory.Inventory) -> dict[str, str]:
    """The licence texts of the Go modules in an image, from the modules themselves, checked by their checksums."""
    found: dict[str, str] = {}
    for package in contents.packages:
        if package.kind == "golang" and package.checksum:
            folder = binaries.module_files(package.name, package.version, package.checksum)
            texts = [file.read_text() for file in sorted(folder.iterdir()) if TEXTS.fullmatch(file.name)]
            if not texts:
                raise ReleaseError(f"{package.purl} has no licence file")
            found[package.name] = "\n\n".join(texts)
    if "golang.org/x/sys" in found:
        # The same authors, and the same text.
        found["std"] = found["golang.org/x/sys"]
    return found


def chart(root: Path, wanted: str, destination: Path, registry: str, digests: dict[str, str], epoch: str) -> None:
    """Packages the chart with the images' digests in its values, and renders it for kubectl.

    Without a registry the package asks for the repositories and the manifest has the example's, as those of a checkout.
    `epoch` is the time of the package's files, in seconds.
    """
    with tempfile.TemporaryDirectory(prefix="chart-") as directory:
        copy = Path(directory) / render.CHART.name
        shutil.copytree(root / render.CHART.relative_to(CHECKOUT), copy)
        values = copy / "values.yaml"
        text = values.read_text()
        for name in RELEASED:
            repository = f"{registry}/{name}" if registry else '""'
            text, count = re.subn(
                rf"^({name}:\n(?:(?:  .*)?\n)*?  image:\n(?:    .*\n)*?    repository: )\S*\n"
                r"((?:    .*\n)*?    digest: )\S*\n",
                rf'\g<1>{repository}\n\g<2>"{digests[name]}"\n',
                text,
                flags=re.MULTILINE,
            )
            if count != 1:
                raise ReleaseError(f"values.yaml of the chart has no repository and digest of the {name} image")
        values.write_text(text)
        environment = {"SOURCE_DATE_EPOCH": epoch}
        render.helm("package", str(copy), "--destination", str(destination), environment=environment)
    named = {
        name: {"repository": f"{registry or render.REGISTRY}/{name}", "digest": digests[name]} for name in RELEASED
    }
    manifest = render.manifest({name: {"image": image} for name, image in named.items()})
    (destination / f"whatsapp-operator-{wanted}.yaml").write_text(manifest)


def wheel(root: Path, destination: Path, epoch: str) -> None:
    """Builds the package, of which `pip install 'whatsapp_operator-....whl[cli]'` makes the kubectl plugin."""
    command = ["uv", "build", "--wheel", "--quiet", "--out-dir", str(destination), "--no-create-gitignore"]
    command += ["--build-constraints", "requirements/build.txt", "--require-build-hashes"]
    environment = os.environ | {"SOURCE_DATE_EPOCH": epoch}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ReleaseError(f"building the wheel failed: {done.stderr[-3000:]}")


def checksums(directory: Path) -> str:
    """As `sha256sum *` prints them."""
    files = sorted(file for file in directory.iterdir() if file.name != "SHA256SUMS")
    return "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)


def release(root: Path, wanted: str, registry: str) -> Path:
    prepare(root, wanted)
    epoch = git(root, "log", "-1", "--format=%ct")
    target = root / DESTINATION
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="release-", dir=target.parent) as directory:
        destination = Path(directory) / "release"
        destination.mkdir()
        digests = images(root, wanted, destination, registry or build.REPOSITORY)
        chart(root, wanted, destination, registry, digests, epoch)
        wheel(root, destination, epoch)
        notes = version.sections((root / "CHANGELOG.md").read_text())[wanted]
        (destination / "CHANGES.md").write_text(f"{notes}\n")
        (destination / "SHA256SUMS").write_text(checksums(destination))
        shutil.rmtree(target, ignore_errors=True)
        destination.rename(target)
    return target


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m images.release", description=__doc__)
    parser.add_argument("version", help="x.y.z, or x.y.z-rc.n")
    # None is assumed: whoever owned it would have the operator's rights.
    parser.add_argument("--registry", default="", help="where the images will be pushed; the chart names it")
    options = parser.parse_args(arguments)
    try:
        target = release(CHECKOUT, options.version, options.registry)
    except (ClusterError, render.HelmError) as error:
        print(f"not released: {error}", file=sys.stderr)
        return 1
    print((target / "SHA256SUMS").read_text(), end="")
    print(f"released {options.version} into {target}: docs/release.md says how to check and publish it")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
