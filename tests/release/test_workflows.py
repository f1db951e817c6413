"""The workflows run what a person runs, and no more of the world than they say."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import binaries
from tests.cluster.paths import CHECKOUT

WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yml"))
every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["jobs"]
    return found


def commands(job: dict[str, Any]) -> list[str]:
    return [line.strip() for step in job["steps"] for line in step.get("run", "").splitlines()]


def test_actionlint_accepts_them() -> None:
    program = binaries.ensure("actionlint") / "actionlint"
    found = subprocess.run([program, "-no-color", *WORKFLOWS], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_actionlint_is_heard(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    program = binaries.ensure("actionlint") / "actionlint"
    assert subprocess.run([program, "-no-color", broken], capture_output=True, check=False).returncode != 0


@every_workflow
def test_actions_are_pinned_by_commit(path: Path) -> None:
    for job in jobs(path).values():
        for used in (step["uses"] for step in job["steps"] if "uses" in step):
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", used)


@every_workflow
def test_rights_are_given_job_by_job_and_written_by_none_that_runs_our_code(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        (right,) = job["permissions"].items()
        runs_our_code = any(command.startswith(("make", ".ci/run")) for command in commands(job))
        assert right == ("contents", "read" if runs_our_code else "write")


@every_workflow
def test_the_tests_are_those_that_a_person_runs(path: Path) -> None:
    found = [command for job in jobs(path).values() for command in commands(job)]
    assert ".ci/run" in found
    assert "make audit" in found
    targets = {command.split()[1] for command in found if command.startswith("make ")}
    makefile = (CHECKOUT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_a_tag_is_built_by_the_target_of_the_release() -> None:
    (path,) = [path for path in WORKFLOWS if path.stem == "release"]
    build, publish = jobs(path).values()
    assert 'make release VERSION="${TAG#v}"' in commands(build)
    assert publish["needs"] == "build"
    assert "sha256sum --check SHA256SUMS" in commands(publish)
    (published,) = [command for command in commands(publish) if command.startswith("gh release create")]
    assert '--prerelease="$PRERELEASE"' in published


@pytest.mark.parametrize("version", ["1;id", "$HOME", "a b"])
def test_a_version_is_one_word_whatever_is_in_it(version: str) -> None:
    """Of it the shell makes nothing, as of a registry: a tag may have any such name."""
    given = [f"VERSION={version.replace('$', '$$')}", f"REGISTRY={version.replace('$', '$$')}"]
    told = subprocess.run(
        ["make", "--dry-run", "release", *given], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout
    (line,) = [line for line in told.splitlines() if "images.release" in line]
    assert shlex.split(line)[-2:] == [version, f"--registry={version}"]
    assert f"'{version}'" in line
