"""Rules that every Dockerfile of this repository keeps."""

import re
from pathlib import Path

import pytest

from images.build import context_paths, instructions
from tests.cluster.paths import CHECKOUT

DOCKERFILES = sorted((CHECKOUT / "images").glob("*/Dockerfile"))
every_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)


def stages(path: Path) -> list[list[str]]:
    """The instructions of each stage, FROM first."""
    found: list[list[str]] = []
    for instruction in instructions(path.read_text()):
        if instruction.startswith("FROM "):
            found.append([])
        if found:
            found[-1].append(" ".join(instruction.split()))
    return found


def test_there_is_one_for_each_program() -> None:
    assert [path.parent.name for path in DOCKERFILES] == ["operator", "session", "simulator"]


@every_dockerfile
def test_the_default_base_is_public_and_pinned_by_tag(path: Path) -> None:
    (base,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", path.read_text(), re.MULTILINE)
    assert re.fullmatch(r"docker\.io/library/python:\d+\.\d+-slim-\w+", base)


@every_dockerfile
def test_the_image_starts_from_nothing_and_runs_its_module_as_another_user_than_root(path: Path) -> None:
    *_, final = stages(path)
    assert final[0].split()[1] == "scratch"
    assert "USER 65532:65532" in final
    assert not [instruction for instruction in final if instruction.startswith("RUN ")]
    module = {"operator": "whatsapp_operator.controller", "session": "whatsapp_operator.session"}.get(
        path.parent.name, "whatsapp_simulator"
    )
    assert f'ENTRYPOINT ["python", "-m", "{module}"]' in final
    (label,) = [instruction for instruction in final if instruction.startswith("LABEL ")]
    for key in ("title", "description", "version", "licenses"):
        assert f"org.opencontainers.image.{key}=" in label


@every_dockerfile
def test_packages_are_installed_by_hash_from_wherever_the_builder_says(path: Path) -> None:
    installs = [text for stage in stages(path) for text in stage if "pip install" in text]
    assert len(installs) == 1
    assert "--require-hashes" in installs[0]
    assert "--only-binary :all:" in installs[0]
    for text in (path.read_text(), (CHECKOUT / "requirements" / f"{path.parent.name}.txt").read_text()):
        assert "://" not in text
        assert "index-url" not in text


@every_dockerfile
def test_dependencies_are_cached_apart_from_our_source(path: Path) -> None:
    """A change of our source must not install the dependencies again."""
    (dependencies,) = [stage for stage in stages(path) if any("pip install" in text for text in stage)]
    copied = context_paths("\n".join(dependencies))
    assert copied == [f"requirements/{path.parent.name}.txt", "images/rootfs.py"]


@every_dockerfile
def test_the_build_context_has_what_is_copied(path: Path) -> None:
    sent = [Path(line[1:]) for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for copied in map(Path, context_paths(path.read_text())):
        assert any(copied.is_relative_to(allowed) or copied.match(str(allowed)) for allowed in sent), copied


@pytest.mark.parametrize("name", ["operator", "session"])
def test_the_products_images_copy_nothing_of_the_tests(name: str) -> None:
    dockerfile = (CHECKOUT / "images" / name / "Dockerfile").read_text()
    assert not [path for path in context_paths(dockerfile) if path.startswith("tests")]


def test_the_session_image_copies_only_what_it_imports_of_the_api() -> None:
    copied = context_paths((CHECKOUT / "images" / "session" / "Dockerfile").read_text())
    package = "operator/whatsapp_operator"
    texts = [path.read_text() for path in (CHECKOUT / package / "session").glob("*.py")]
    modules = {name for text in texts for name in re.findall(r"from whatsapp_operator\.api\.(\w+) import", text)}
    modules |= {name for text in texts for name in re.findall(r"from whatsapp_operator\.api import (\w+)", text)}
    assert modules >= {"names", "reasons"}
    assert {path for path in copied if path.startswith(package)} == {
        f"{package}/__init__.py",
        f"{package}/api/__init__.py",
        *(f"{package}/api/{module}.py" for module in modules),
        f"{package}/session",
    }
