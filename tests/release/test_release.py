"""What a release refuses, and that what it makes depends on the commit alone."""

import email
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from charts import render
from images import build, release, version
from images.version import ReleaseError
from tests.cluster import oci
from tests.cluster.paths import CHECKOUT

PLACES = (
    "pyproject.toml",
    "tests/simulator/pyproject.toml",
    "operator/whatsapp_operator/__init__.py",
    "charts/whatsapp-operator/Chart.yaml",
)
UNRELEASED = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A thing.\n"
RELEASED = "# Changelog\n\n## [Unreleased]\n\n## [0.3.0] - 2026-01-02\n\n### Fixed\n\n- A fault.\n"
DIGESTS = {"operator": f"sha256:{'1' * 64}", "session": f"sha256:{'2' * 64}"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    for place in PLACES:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / place, root / place)
    (root / "CHANGELOG.md").write_text(UNRELEASED)
    version.write(root, "0.3.0", "2026-01-02")
    (root / "CHANGELOG.md").write_text(UNRELEASED)
    release.git(root, "init", "--quiet")
    release.git(root, "config", "user.name", "Test")
    release.git(root, "config", "user.email", "test@example.com")
    commit(root)
    return root


@pytest.fixture
def checkout(tmp_path: Path, template: Path) -> Path:
    """A clean repository with a changelog and all the places of a version, which is 0.3.0."""
    return Path(shutil.copytree(template, tmp_path / "checkout"))


def commit(root: Path) -> None:
    release.git(root, "add", ".")
    release.git(root, "commit", "--quiet", "--message", "Change it")


def changelog(root: Path, text: str) -> None:
    (root / "CHANGELOG.md").write_text(text)
    commit(root)


def test_the_first_run_commits_the_version_in_all_its_places(checkout: Path) -> None:
    release.prepare(checkout, "0.4.0-rc.1")
    assert release.git(checkout, "log", "-1", "--format=%s") == "Release 0.4.0-rc.1"
    assert release.git(checkout, "status", "--porcelain") == ""
    for place in PLACES:
        assert "0.4.0-rc.1" in (checkout / place).read_text()
        assert "0.3.0" not in (checkout / place).read_text()
    notes = version.sections((checkout / "CHANGELOG.md").read_text())
    assert notes == {"Unreleased": "", "0.4.0-rc.1": "### Added\n\n- A thing."}


def test_a_further_run_changes_nothing(checkout: Path) -> None:
    release.prepare(checkout, "0.3.0")
    before = release.git(checkout, "rev-parse", "HEAD")
    release.prepare(checkout, "0.3.0")
    release.git(checkout, "tag", "v0.3.0")
    release.prepare(checkout, "0.3.0")
    assert release.git(checkout, "rev-parse", "HEAD") == before


@pytest.mark.parametrize("wanted", ["v1.0.0", "1.0", "01.0.0", "1.0.0+build", "1.0.0-next", "", "1.0.0\n"])
def test_what_is_no_version_is_refused(tmp_path: Path, wanted: str) -> None:
    with pytest.raises(ReleaseError, match=r"is no version. Remedy: write it as X\.Y\.Z"):
        release.prepare(tmp_path, wanted)


def test_a_checkout_with_changes_is_refused(checkout: Path) -> None:
    (checkout / "new").write_text("")
    with pytest.raises(ReleaseError, match=r"not clean. Remedy: commit(.|\n)*new"):
        release.prepare(checkout, "0.4.0")


@pytest.mark.parametrize("text", ["# Changelog\n\n## [Unreleased]\n", RELEASED])
def test_nothing_unreleased_is_refused(checkout: Path, text: str) -> None:
    changelog(checkout, text)
    with pytest.raises(ReleaseError, match=r"nothing under \[Unreleased\]. Remedy: say"):
        release.prepare(checkout, "0.4.0")


@pytest.mark.parametrize("wanted", ["0.2.9", "0.3.0-rc.1"])
def test_a_version_that_is_not_greater_than_the_last_section_is_refused(checkout: Path, wanted: str) -> None:
    changelog(checkout, RELEASED)
    with pytest.raises(ReleaseError, match=r"not greater than 0\.3\.0, the last release. Remedy"):
        release.prepare(checkout, wanted)


def test_a_version_that_is_not_greater_than_the_last_tag_is_refused(checkout: Path) -> None:
    release.git(checkout, "tag", "v0.10.0")
    with pytest.raises(ReleaseError, match=r"not greater than 0\.10\.0"):
        release.prepare(checkout, "0.9.0")


def test_a_version_that_was_released_from_an_earlier_commit_is_refused(checkout: Path) -> None:
    changelog(checkout, RELEASED)
    release.git(checkout, "tag", "v0.3.0")
    (checkout / "more").write_text("")
    commit(checkout)
    with pytest.raises(ReleaseError, match=r"released from an earlier commit\. Remedy"):
        release.prepare(checkout, "0.3.0")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (UNRELEASED.replace("Added", "Improved"), "heading 'Improved'"),
        (UNRELEASED.replace("- A thing.", ""), "nothing under 'Added'"),
        (UNRELEASED.replace("### Added\n", ""), "text outside of the headings"),
        ("# Changelog\n", "the first section is not"),
        (RELEASED + "\n## [0.4.0] - 2026-01-01\n\n### Added\n\n- It.\n", "falling order"),
    ],
)
def test_a_changelog_of_another_form_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ReleaseError, match=problem):
        version.check_next("0.5.0", text, ())


def test_our_changelog_has_the_form() -> None:
    assert version.problems((CHECKOUT / "CHANGELOG.md").read_text()) == []


def test_versions_are_ordered_as_semver_has_it() -> None:
    rising = ["0.9.0", "0.10.0-alpha.2", "0.10.0-beta.1", "0.10.0-rc.2", "0.10.0-rc.10", "0.10.0", "1.0.0"]
    assert sorted(rising, key=version.key) == rising


def test_an_image_archive_depends_on_the_image_alone(tmp_path: Path) -> None:
    digests = set()
    for number in (1, 2):
        oci.write_archive(tmp_path / "built.tar", f"localhost/built:{number}", oci.layer({"app/file": b"content"}))
        # As buildah writes them: blobs in another order, and of another time.
        if number == 2:
            with tarfile.open(tmp_path / "built.tar") as tar, tarfile.open(tmp_path / "other.tar", "w") as other:
                for member in reversed(tar.getmembers()):
                    member.mtime = 12345
                    other.addfile(member, tar.extractfile(member))
            (tmp_path / "other.tar").replace(tmp_path / "built.tar")
        digests.add(release.rewrite(tmp_path / "built.tar", tmp_path / f"{number}.tar", "registry.example/operator:1"))
    assert len(digests) == 1
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    assert build.read_contents(tmp_path / "1.tar").paths == {"/app/file"}


def test_the_chart_installs_what_was_released_and_is_packaged_the_same_each_time(tmp_path: Path) -> None:
    registry = "registry.example:5000/acme"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        release.chart(CHECKOUT, build.version(), tmp_path / name, registry, DIGESTS, "1767225600")
    assert release.checksums(tmp_path / "one") == release.checksums(tmp_path / "two")

    package = tmp_path / "one" / f"whatsapp-operator-{build.version()}.tgz"
    values = yaml.safe_load(render.helm("show", "values", str(package)))
    for name, digest in DIGESTS.items():
        assert values[name]["image"]["repository"] == f"{registry}/{name}"
        assert values[name]["image"]["digest"] == digest
    manifest = (tmp_path / "one" / f"whatsapp-operator-{build.version()}.yaml").read_text()
    templated = render.helm("template", "whatsapp-operator", str(package), "--set=claimKey.existingSecret=x")
    for text in (manifest, templated):
        for name, digest in DIGESTS.items():
            assert f"{registry}/{name}@{digest}" in text
        assert "whatsapp-operator/operator:" not in text


def test_without_a_registry_no_image_is_pulled_from_where_a_stranger_could_put_it(tmp_path: Path) -> None:
    release.chart(CHECKOUT, build.version(), tmp_path, "", DIGESTS, "1767225600")
    package = str(tmp_path / f"whatsapp-operator-{build.version()}.tgz")
    with pytest.raises(render.HelmError, match=r"operator\.image\.repository: must be set"):
        render.helm("template", "whatsapp-operator", package)
    given = ["--set=claimKey.existingSecret=x"]
    given += [f"--set={name}.image.repository=registry.example/{name}" for name in DIGESTS]
    templated = render.helm("template", "whatsapp-operator", package, *given)
    manifest = (tmp_path / f"whatsapp-operator-{build.version()}.yaml").read_text()
    for name, digest in DIGESTS.items():
        assert f"registry.example/{name}@{digest}" in templated
        assert f"{render.REGISTRY}/{name}@{digest}" in manifest


def test_the_wheel_brings_the_plugin(tmp_path: Path) -> None:
    release.wheel(CHECKOUT, tmp_path, "1767225600")
    (wheel,) = tmp_path.iterdir()
    assert wheel.name == f"whatsapp_operator-{build.version()}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as files:
        folder = f"whatsapp_operator-{build.version()}.dist-info"
        entries = files.read(f"{folder}/entry_points.txt").decode()
        metadata = email.message_from_bytes(files.read(f"{folder}/METADATA"))
        modules = {name.split("/")[0] for name in files.namelist()} - {folder}
        assert "whatsapp_operator/cli/__main__.py" in files.namelist()
    assert modules == {"whatsapp_operator"}
    for program in ("kubectl-wa", "kubectl_complete-wa"):
        assert f"{program} = whatsapp_operator.cli.__main__:" in entries
    assert "cli" in metadata.get_all("Provides-Extra", [])


def test_checksums_are_what_sha256sum_checks(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "SHA256SUMS").write_text(release.checksums(tmp_path))
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    found = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout == "a: OK\nb: OK\n"
