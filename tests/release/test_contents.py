"""What is told of an image: packages, licences and the bill of materials."""

import dataclasses
import json
from email import message_from_string
from importlib.metadata import distribution
from pathlib import Path

import neonize
import pytest

from images import audit, inventory, licences, sbom
from images.inventory import Inventory, Package
from tests.cluster import oci
from tests.cluster.errors import ClusterError

METADATA = "Name: Some_Package\nVersion: 1.2\n{licence}\nRequires-Dist: other.thing>=2; python_version > '3'\n"
STATUS = "Package: libx1\nSection: {section}\nSource: x (1.0)\nArchitecture: amd64\nVersion: 1:1.0-2+b1\n"
COPYRIGHT = "Files: *\nLicense: GPL-3+\n The text is in /usr/share/common-licenses/GPL-3.\n"


def go_library(*lines: str) -> bytes:
    def string(content: bytes) -> bytes:
        length, prefix = len(content), b""
        while length >= 0x80:
            prefix += bytes([length & 0x7F | 0x80])
            length >>= 7
        return prefix + bytes([length]) + content

    listing = b"s" * 16 + "\n".join(lines).encode() + b"\n" + b"e" * 16
    return b"\x7fELF" + b"\0" * 40 + inventory.GO_BUILD_INFO.ljust(32, b"\0") + string(b"go1.26.8") + string(listing)


def image(tmp_path: Path, licence: str = "License-Expression: MIT", section: str = "libs") -> Path:
    archive = tmp_path / "image.tar"
    files = {
        "app/lib/some_package-1.2.dist-info/METADATA": METADATA.format(licence=licence).encode(),
        "app/lib/some_package-1.2.dist-info/licenses/LICENSE": b"the text of MIT",
        "app/lib/other_thing-2.dist-info/METADATA": b"Name: other.thing\nVersion: 2\nLicense: Apache 2.0\n",
        "app/lib/other_thing-2.dist-info/LICENSE": b"the text of Apache",
        "app/lib/neonize/neonize.so": go_library(
            "path\tx", "dep\tgithub.com/google/uuid\tv1.6.0\th1:abc", *(f"build\tflag{n}" for n in range(99))
        ),
        "var/lib/dpkg/status.d/libx1": STATUS.format(section=section).encode(),
        "usr/share/doc/libx-common/copyright": COPYRIGHT.encode(),
        "usr/share/common-licenses/GPL-3": b"the text of the GPL",
    }
    rootfs = oci.layer(files, {"usr/share/doc/libx1": "libx-common"})
    oci.write_archive(archive, "localhost/test:1", rootfs)
    return archive


def test_packages_of_all_kinds_are_found_with_licence_and_text(tmp_path: Path) -> None:
    found = {package.purl: package for package in inventory.read(image(tmp_path)).packages}
    assert {purl: package.licence for purl, package in found.items()} == {
        "pkg:deb/debian/libx1@1%3A1.0-2%2Bb1?arch=amd64&distro=debian-12": "GPL-3+",
        "pkg:golang/github.com/google/uuid@v1.6.0": "BSD-3-Clause",
        "pkg:golang/std@1.26.8": "BSD-3-Clause",
        "pkg:pypi/other-thing@2": "Apache-2.0",
        "pkg:pypi/some-package@1.2": "MIT",
    }
    debian = found["pkg:deb/debian/libx1@1%3A1.0-2%2Bb1?arch=amd64&distro=debian-12"]
    assert list(debian.texts.values()) == [COPYRIGHT, "the text of the GPL"]
    assert debian.source == "x"


def test_an_image_without_records_is_an_error(tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    oci.write_archive(archive, "localhost/test:1", oci.layer({"app/module.py": b""}))
    with pytest.raises(ClusterError, match="no records"):
        inventory.read(archive)


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("License-Expression: Apache-2.0 AND MIT", []),
        ("License-Expression: GPL-3.0-only OR MIT", []),
        ("Classifier: License :: OSI Approved :: BSD License", []),
        ("License: MIT License", []),
        ("License-Expression: GPL-3.0-only", ["GPL-3.0-only is not allowed"]),
        ("License-Expression: MIT AND AGPL-3.0-only", ["MIT AND AGPL-3.0-only is not allowed"]),
        ("License: Some terms of our own", ["Some terms of our own is not allowed"]),
        ("Summary: says nothing", ["unknown licence"]),
    ],
)
def test_unknown_and_forbidden_licences_are_told(tmp_path: Path, licence: str, expected: list[str]) -> None:
    found = licences.problems(inventory.read(image(tmp_path, licence)))
    assert found == [f"pkg:pypi/some-package@1.2: {problem}" for problem in expected]


@pytest.mark.parametrize("section", ["non-free/libs", "contrib/libs"])
def test_debian_packages_outside_main_are_told(tmp_path: Path, section: str) -> None:
    (problem,) = licences.problems(inventory.read(image(tmp_path, section=section)))
    assert problem.endswith("unknown licence")


def test_a_go_module_that_nobody_looked_at_is_told() -> None:
    package = Package("golang", "example.com/new", "v1", licences.GO_LICENCES.get("example.com/new", ""))
    assert licences.problems(Inventory("sha256:0", (package,))) == ["pkg:golang/example.com/new@v1: unknown licence"]


def test_the_licence_file_has_each_text_once_and_the_reason_of_an_exception(tmp_path: Path) -> None:
    contents = inventory.read(image(tmp_path))
    signal = Package("golang", "go.mau.fi/libsignal", "v1", "GPL-3.0-only")
    contents = dataclasses.replace(contents, packages=(*contents.packages, signal))
    assert licences.problems(contents) == []
    text = licences.third_party(
        "test 1", contents, {"github.com/google/uuid": "the text of BSD", "std": "the text of BSD"}
    )
    for part in (
        "the text of MIT",
        "the text of Apache",
        "the text of the GPL",
        "the text of BSD",
        "linked into neonize",
    ):
        assert text.count(part) == 1, part


def test_what_neonize_is_linked_from_is_known_by_name_and_licence() -> None:
    (library,) = Path(neonize.__file__).parent.glob("*.so")
    modules = {name: checksum for name, _, checksum in inventory.go_modules(library.read_bytes())}
    assert modules["go.mau.fi/whatsmeow"].startswith("h1:")
    assert {"std", "go.mau.fi/whatsmeow", "go.mau.fi/libsignal"} <= modules.keys()
    assert modules.keys() == licences.GO_LICENCES.keys()


def test_every_locked_package_of_the_images_has_an_allowed_licence() -> None:
    names = {name for image in ("operator", "session") for name in audit.locked_in(f"{image}.txt")}
    assert len(names) > 40
    found = {
        name: licences.python_licence(message_from_string(distribution(name).read_text("METADATA") or ""))
        for name in names
    }
    assert {name: licence for name, licence in found.items() if not licences.allowed(licence)} == {}


def test_the_bill_of_materials_keeps_the_schema_and_links_what_needs_what(tmp_path: Path) -> None:
    contents = inventory.read(image(tmp_path))
    text = sbom.render(sbom.document("session", "1.2.3", contents))
    found = json.loads(text)
    assert [component["purl"] for component in found["components"]] == [package.purl for package in contents.packages]
    edges = {entry["ref"]: entry["dependsOn"] for entry in found["dependencies"]}
    assert edges["pkg:pypi/some-package@1.2"] == ["pkg:pypi/other-thing@2"]
    assert found["metadata"]["component"]["hashes"][0]["content"] == contents.digest.removeprefix("sha256:")
    assert sbom.render(sbom.document("session", "1.2.3", inventory.read(image(tmp_path)))) == text


def test_what_breaks_the_schema_is_an_error(tmp_path: Path) -> None:
    broken = sbom.document("session", "1.2.3", inventory.read(image(tmp_path)))
    broken["components"][0]["type"] = "nothing"
    with pytest.raises(ClusterError, match="schema"):
        sbom.render(broken)
