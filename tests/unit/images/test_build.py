"""What is built, under which tag, and what is refused."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from images import build
from tests.cluster import oci
from tests.cluster.errors import ClusterError
from tests.cluster.paths import CHECKOUT

DOCKERFILE = """# COPY comment /
ARG BASE_IMAGE=base:1
FROM ${BASE_IMAGE} AS build
COPY requirements.txt /build/
COPY source/one.py \\
     source/two.py /app/
# a comment between
RUN true
FROM scratch
COPY --from=build /app /app
COPY --chown=0:0 LICENSE /app/
"""


def image_of(tmp_path: Path, *paths: str) -> build.Contents:
    archive = tmp_path / "image.tar"
    oci.write_archive(archive, "localhost/test:1", oci.layer(dict.fromkeys(paths, b"12345")))
    return build.read_contents(archive)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of all that decides the images' tags."""
    for image in build.IMAGES:
        dockerfile = CHECKOUT / image.dockerfile
        paths = build.context_paths(dockerfile.read_text())
        for file in [dockerfile, CHECKOUT / "pyproject.toml", *build.context_files(CHECKOUT, paths)]:
            target = tmp_path / file.relative_to(CHECKOUT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return tmp_path


def test_context_paths_are_what_is_copied_from_the_context() -> None:
    assert build.context_paths(DOCKERFILE) == ["requirements.txt", "source/one.py", "source/two.py", "LICENSE"]


def test_context_files_leave_out_compiled_modules(tmp_path: Path) -> None:
    (tmp_path / "package" / "__pycache__").mkdir(parents=True)
    for name in ("module.py", "py.typed", "old.pyc", "__pycache__/module.cpython-311.pyc"):
        (tmp_path / "package" / name).write_text("")
    (tmp_path / "LICENSE").write_text("")
    files = build.context_files(tmp_path, ["package", "LICENSE"])
    assert [str(file.relative_to(tmp_path)) for file in files] == ["LICENSE", "package/module.py", "package/py.typed"]


def test_a_copied_path_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="nowhere"):
        build.context_files(tmp_path, ["nowhere"])


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        ("operator/whatsapp_operator/session/__init__.py", {"session", "session-simulator"}),
        ("operator/whatsapp_operator/controller/__init__.py", {"operator"}),
        ("operator/whatsapp_operator/api/names.py", {"session", "session-simulator", "operator"}),
        ("requirements/operator.txt", {"operator"}),
        ("tests/simulator/whatsapp_simulator/trust.py", {"simulator", "session-simulator"}),
        ("images/operator/Dockerfile", {"operator"}),
        ("images/rootfs.py", {image.name for image in build.IMAGES}),
    ],
)
def test_a_change_makes_new_tags_of_the_images_it_is_in_and_no_others(
    checkout: Path, path: str, changed: set[str]
) -> None:
    before = build.references(checkout)
    with (checkout / path).open("a") as file:
        file.write("\n# changed\n")
    after = build.references(checkout)
    assert {name for name in after if after[name] != before[name]} == changed


def test_tags_depend_on_content_only(checkout: Path) -> None:
    assert build.references(checkout) == build.references(CHECKOUT)


def test_contents_are_read_out_of_the_archive(tmp_path: Path) -> None:
    contents = image_of(tmp_path, "usr/bin/python3.11", "app/src/module.py")
    assert contents.unpacked == 10
    assert contents.compressed > 0
    assert contents.paths == {"/usr/bin/python3.11", "/app/src/module.py"}


@pytest.mark.parametrize(
    "path",
    [
        "usr/bin/bash",
        "usr/sbin/ldconfig",
        "app/lib/bin/httpx",
        "usr/lib/python3.11/ensurepip/__init__.py",
        "app/lib/pip/__init__.py",
        "app/simulator/whatsapp_simulator/trust.py",
        "app/simulator/sitecustomize.py",
    ],
)
@pytest.mark.parametrize("name", ["session", "operator"])
def test_installers_foreign_programs_and_the_simulators_trust_are_refused(tmp_path: Path, name: str, path: str) -> None:
    image = next(image for image in build.IMAGES if image.name == name)
    allowed = ("usr/bin/python3.11", "usr/bin/dash", "app/lib/module.py")
    build.check(image, image_of(tmp_path, *allowed))
    with pytest.raises(ClusterError, match=path):
        build.check(image, image_of(tmp_path, *allowed, path))


def test_only_the_simulators_images_may_hold_the_simulator(tmp_path: Path) -> None:
    contents = image_of(tmp_path, "app/simulator/whatsapp_simulator/trust.py")
    allowed = set()
    for image in build.IMAGES:
        try:
            build.check(image, contents)
        except ClusterError:
            continue
        allowed.add(image.name)
    assert allowed == {"simulator", "session-simulator"}


def test_an_image_over_its_limit_is_refused(tmp_path: Path) -> None:
    contents = image_of(tmp_path, "app/module.py")
    session = build.IMAGES[0]
    build.check(dataclasses.replace(session, unpacked_limit=5), contents)
    with pytest.raises(ClusterError, match="unpacked"):
        build.check(dataclasses.replace(session, unpacked_limit=4), contents)
    with pytest.raises(ClusterError, match="compressed"):
        build.check(dataclasses.replace(session, compressed_limit=1), contents)
