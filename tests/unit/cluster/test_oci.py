import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.cluster import oci


def read(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: content.read() for member in tar if (content := tar.extractfile(member))}


@pytest.mark.parametrize("from_file", [False, True])
def test_an_archive_is_a_consistent_image(tmp_path: Path, from_file: bool) -> None:
    layer = oci.layer({"bin/tool": b"#!"}, {"bin/sh": "tool"}, ["tmp"])
    rootfs: bytes | Path = layer
    if from_file:
        rootfs = tmp_path / "rootfs.tar"
        rootfs.write_bytes(layer)
    archive = tmp_path / "image.tar"
    oci.write_archive(archive, "localhost/tool:1", rootfs, {"Entrypoint": ["/bin/tool"]})

    files = read(archive)
    blobs = {name.removeprefix("blobs/sha256/"): content for name, content in files.items() if "sha256" in name}
    assert {digest: hashlib.sha256(content).hexdigest() for digest, content in blobs.items()} == {d: d for d in blobs}
    index = json.loads(files["index.json"])["manifests"][0]
    assert index["annotations"]["org.opencontainers.image.ref.name"] == "localhost/tool:1"
    manifest = json.loads(blobs[index["digest"].removeprefix("sha256:")])
    config = json.loads(blobs[manifest["config"]["digest"].removeprefix("sha256:")])
    assert config["config"] == {"Entrypoint": ["/bin/tool"]}
    assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
    assert blobs[manifest["layers"][0]["digest"].removeprefix("sha256:")] == layer
    assert sorted(path.name for path in tmp_path.glob("image*")) == ["image.tar"]


def test_a_layer_holds_programs_links_and_writable_directories() -> None:
    with tarfile.open(fileobj=io.BytesIO(oci.layer({"bin/a": b"x"}, {"bin/b": "a"}, ["tmp"]))) as tar:
        entries = {entry.name: entry for entry in tar}
    assert (entries["bin/a"].mode, entries["bin/a"].uid) == (0o755, 0)
    assert (entries["bin/b"].issym(), entries["bin/b"].linkname) == (True, "a")
    assert (entries["tmp"].isdir(), entries["tmp"].mode) == (True, 0o1777)


def test_the_same_content_is_the_same_layer() -> None:
    assert oci.layer({"a": b"1", "b": b"2"}) == oci.layer({"b": b"2", "a": b"1"})
