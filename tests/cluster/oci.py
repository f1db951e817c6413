"""OCI image archives written without an image builder: a few files and a command make an image.

Formats: the OCI image specification 1.1 (image-layout, index, manifest, config), in one tar file.
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def layer(files: Mapping[str, bytes], links: Mapping[str, str] | None = None, directories: Sequence[str] = ()) -> bytes:
    """A layer (tar), by relative path: executables owned by root, symbolic links, world-writable directories."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in directories:
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            archive.addfile(entry)
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
        for path, target in sorted((links or {}).items()):
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
            archive.addfile(entry)
    return buffer.getvalue()


def write_archive(path: Path, reference: str, rootfs: Path | bytes, config: Mapping[str, Any] | None = None) -> None:
    """Writes an image of one layer, replacing `path` at once.

    `rootfs` is the layer as uncompressed tar, in memory or as a file; `config` is the image's run configuration
    (`Entrypoint`, `Env`, ...).
    """
    layer_digest, layer_size = _measure(rootfs)
    image = {
        "architecture": _ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        "history": [{"created_by": "tests/cluster"}],
    }
    image_blob = json.dumps(image).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor("application/vnd.oci.image.config.v1+json", image_blob),
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": f"sha256:{layer_digest}",
                "size": layer_size,
            }
        ],
    }
    manifest_blob = json.dumps(manifest).encode()
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            _descriptor("application/vnd.oci.image.manifest.v1+json", manifest_blob)
            | {"annotations": {"org.opencontainers.image.ref.name": reference, "io.containerd.image.name": reference}}
        ],
    }
    partial = path.with_name(f"{path.name}.partial")
    with tarfile.open(partial, "w") as archive:
        _add(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        for blob in (image_blob, manifest_blob):
            _add(archive, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)
        _add(archive, f"blobs/sha256/{layer_digest}", rootfs)
        _add(archive, "index.json", json.dumps(index).encode())
    partial.replace(path)


def _measure(content: Path | bytes) -> tuple[str, int]:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest(), len(content)
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), content.stat().st_size


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}", "size": len(blob)}


def _add(archive: tarfile.TarFile, name: str, content: Path | bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = 0o644
    if isinstance(content, bytes):
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    else:
        entry.size = content.stat().st_size
        with content.open("rb") as file:
            archive.addfile(entry, file)
