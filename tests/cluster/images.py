"""Images without Docker: a base from Debian packages, Dockerfiles built by buildah, archives loaded into the cluster.

Every image is an OCI archive (one file) in the user cache. Nothing is pulled from an image registry, by construction:
the signature policy of the builds accepts archives only.
"""

import configparser
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import binaries, filesystem, oci, packages
from tests.cluster.errors import ClusterError
from tests.cluster.locks import exclusive
from tests.cluster.paths import CHECKOUT, ClusterPaths, cache_home, cluster_paths

SUITE = "bookworm"
# Python packages may rely on libstdc++ (PEP 600). python3-venv brings ensurepip: the same base serves build stages.
BASE_PACKAGES = ("ca-certificates", "libmagic1", "libstdc++6", "python3", "python3-venv")
# No package is ever installed on top of the base, so what serves only that is left out. The licences and the lists of
# dpkg stay: images take those of the files that they copy.
BASE_REMOVED = (
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/i18n",
    "usr/share/perl5",
    "usr/share/perl",
    "usr/lib/*/libperl.so*",
    "usr/lib/*/perl",
    "usr/lib/*/perl-base",
    "usr/lib/*/gconv",
    "usr/bin/perl*",
    "usr/lib/python3*/pydoc_data",
    "var/cache/*",
    "var/lib/apt/*",
    "var/log/*",
)
BASE_CONFIG = {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
    "Cmd": ["/bin/sh"],
}
# Build secrets that the Dockerfiles may mount.
PIP_CONF_SECRET = "pip.conf"
CA_SECRET = "ca-certificates"
SYSTEM_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host")


def image_cache() -> Path:
    path = cache_home() / "images"
    path.mkdir(parents=True, exist_ok=True)
    return path


def base_digest() -> str:
    """12 hex digits over what the base is made of, except the Debian archive's state on the day of its making."""
    return hashlib.sha256(json.dumps([SUITE, BASE_PACKAGES, BASE_REMOVED, BASE_CONFIG]).encode()).hexdigest()[:12]


def build_base() -> Path:
    """The archive of the base image (Debian with python3, venv, CA certificates, libmagic), made on first use."""
    packages.ensure(packages.IMAGES)
    cache = image_cache()
    archive = cache / f"base-{base_digest()}.oci.tar"
    with exclusive(cache):
        if archive.is_file():
            return archive
        _require_root("mmdebstrap")
        print("making the base image from Debian packages", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="base-", dir=cache) as directory:
            rootfs = Path(directory) / "rootfs.tar"
            _run([*_mmdebstrap(), SUITE, str(rootfs)])
            oci.write_archive(archive, f"localhost/whatsapp-operator-base:{base_digest()}", rootfs, BASE_CONFIG)
        print(f"made the base image in {time.monotonic() - began:.0f} s, {archive.stat().st_size >> 20} MB", flush=True)
    return archive


def _mmdebstrap() -> list[str]:
    removed = " ".join(f'"$1"/{path}' for path in BASE_REMOVED)
    return [
        "mmdebstrap",
        "--quiet",
        "--variant=essential",
        f"--include={','.join(BASE_PACKAGES)}",
        # The public Python images call it python too.
        '--customize-hook=ln -s python3 "$1"/usr/bin/python',
        f"--customize-hook=rm -rf {removed}",
    ]


def build(
    context: Path,
    tag: str,
    *,
    dockerfile: Path | None = None,
    build_args: Mapping[str, str] | None = None,
    target: str | None = None,
    archive: Path | None = None,
    cached: bool = True,
) -> Path:
    """Builds a Dockerfile (default: `context`/Dockerfile) and returns the OCI archive of the image, named `tag` in it.

    `archive` is where to put it, by default in a file of this checkout and `tag`. `BASE_IMAGE` is the Debian base
    unless `build_args` names another: a reference, or `oci-archive:FILE`. Steps are cached between builds, if `cached`.
    A RUN step can mount this machine's pip index settings and CA certificates, the secrets `pip.conf` (at
    /etc/pip.conf) and `ca-certificates` (at its default place); the image holds nothing of them.
    Raises ClusterError if the build fails or this user is not root.
    """
    packages.ensure(packages.IMAGES)
    _require_root("buildah")
    base = None if build_args and "BASE_IMAGE" in build_args else build_base()
    arguments = ({"BASE_IMAGE": f"oci-archive:{base}"} if base else {}) | dict(build_args or {})
    archive = archive or _archive_of(tag)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=archive.parent) as directory:
        scratch = Path(directory)
        buildah = _buildah(scratch)
        pip_conf = scratch / "pip.conf"
        pip_conf.write_text(pip_configuration(os.environ, _pip_files()))
        command = [*buildah, "bud", "--isolation", "chroot", "--layers", "--force-rm", "--format", "oci", "--tag", tag]
        # With the time in it, the same content would be another image every time.
        command += ["--file", str(dockerfile or context / "Dockerfile"), "--timestamp", "0"]
        command += ["--secret", f"id={PIP_CONF_SECRET},src={pip_conf}"]
        if SYSTEM_CA_BUNDLE.exists():
            command += ["--secret", f"id={CA_SECRET},src={SYSTEM_CA_BUNDLE}"]
        if not cached:
            command += ["--no-cache"]
        if target:
            command += ["--target", target]
        for name, value in arguments.items():
            command += ["--build-arg", f"{name}={value}"]
        _run([*command, str(context)])
        partial = scratch / "image.tar"
        _run([*buildah, "push", "--quiet", tag, f"oci-archive:{partial}:{tag}"])
        partial.replace(archive)
    return archive


def load(archive: Path, paths: ClusterPaths | None = None) -> None:
    """Imports an OCI archive into the running cluster's containerd; an image of the same name is replaced.

    Raises ClusterError if this checkout's cluster is not up.
    """
    _ctr(paths, "images", "import", str(archive))


def loaded(paths: ClusterPaths | None = None) -> dict[str, str]:
    """The digests of the images in the running cluster's containerd, by reference.

    Raises ClusterError if this checkout's cluster is not up.
    """
    rows = (line.split() for line in _ctr(paths, "images", "ls").splitlines())
    return {row[0]: row[2] for row in rows if len(row) > 2 and row[2].startswith("sha256:")}


def tag(reference: str, alias: str, paths: ClusterPaths | None = None) -> None:
    """Gives an image of the running cluster's containerd another name, which it takes from any other image."""
    _ctr(paths, "images", "tag", "--force", reference, alias)


def _ctr(paths: ClusterPaths | None, *arguments: str) -> str:
    socket = (paths or cluster_paths()).containerd_socket
    if not socket.exists():
        raise ClusterError("this checkout's cluster is not up: run `make cluster-up`")
    ctr = binaries.ensure("containerd", ["ctr"]) / "ctr"
    return _run([str(ctr), "--address", str(socket), "--namespace", "k8s.io", *arguments])


def save_tiny(
    name: str, programs: Mapping[str, Path], links: Mapping[str, str], entrypoint: list[str]
) -> tuple[str, Path]:
    """(reference, archive) of an image that holds a few static programs; made again only if one of them changed."""
    key = hashlib.sha256(json.dumps([sorted(links.items()), entrypoint]).encode())
    for path, program in sorted(programs.items()):
        stat = program.stat()
        key.update(f"{path} {program} {stat.st_size} {stat.st_mtime_ns}".encode())
    digest = key.hexdigest()[:12]
    reference = f"localhost/{name}:{digest}"
    archive = image_cache() / f"{name}-{digest}.oci.tar"
    if not archive.is_file():
        rootfs = oci.layer(
            {path: program.read_bytes() for path, program in programs.items()}, links, directories=["tmp"]
        )
        oci.write_archive(archive, reference, rootfs, {"Entrypoint": entrypoint, "Env": ["PATH=/bin"]})
    return reference, archive


def clean() -> None:
    """Removes every image and build step of the cache."""
    for directory in (image_cache(), cache_home() / "buildah"):
        shutil.rmtree(directory, ignore_errors=True)


def _archive_of(tag: str) -> Path:
    # Two checkouts build different images under the same tag.
    return image_cache() / cluster_paths(CHECKOUT).id / f"{tag.replace('/', '_').replace(':', '_')}.oci.tar"


def _buildah(scratch: Path) -> list[str]:
    storage = cache_home() / "buildah"
    storage.mkdir(parents=True, exist_ok=True)
    driver = "overlay" if filesystem.overlay_works(storage) else "vfs"
    policy = scratch / "policy.json"
    policy.write_text(
        json.dumps(
            {
                "default": [{"type": "reject"}],
                "transports": {
                    "oci-archive": {"": [{"type": "insecureAcceptAnything"}]},
                    "containers-storage": {"": [{"type": "insecureAcceptAnything"}]},
                },
            }
        )
    )
    return [
        # Its mounts, which it would leave behind, end with this namespace; so does the state that describes them.
        *("unshare", "--mount", "env", f"TMPDIR={scratch}", "buildah"),
        *("--root", str(storage / driver), "--runroot", str(scratch / "run"), "--storage-driver", driver),
        *("--signature-policy", str(policy)),
    ]


def _pip_files() -> list[Path]:
    home = Path.home()
    return [Path("/etc/pip.conf"), home / ".pip" / "pip.conf", home / ".config" / "pip" / "pip.conf"]


def pip_configuration(env: Mapping[str, str], files: list[Path]) -> str:
    """A pip.conf with pip's index settings of this machine: files in rising precedence, then variables."""
    parser = configparser.RawConfigParser()
    parser.read(files)
    settings = {key: parser.get("global", key) for key in PIP_SETTINGS if parser.has_option("global", key)}
    for key in PIP_SETTINGS:
        if value := env.get(f"PIP_{key.upper().replace('-', '_')}"):
            settings[key] = value
    lines = [f"{key} = {value}" for key, value in settings.items()]
    if SYSTEM_CA_BUNDLE.exists():
        lines.append(f"cert = /run/secrets/{CA_SECRET}")
    return "\n".join(["[global]", *lines, ""])


def _require_root(program: str) -> None:
    if os.geteuid() != 0:
        raise ClusterError(f"{program} needs root here: {packages.REMEDY}")


def _run(command: list[str]) -> str:
    """The program's output. Raises ClusterError with the end of it if the program fails."""
    environment = os.environ | {"PATH": packages.SEARCH_PATH}
    result = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed with {result.returncode}:\n{result.stdout[-6000:]}")
    return result.stdout
