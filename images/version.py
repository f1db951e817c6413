"""The version: what may follow on it, and the places that it is written to. pyproject.toml is the one that counts.

Releases follow Semantic Versioning. CHANGELOG.md follows Keep a Changelog: what is to be released is under
`## [Unreleased]`, below the headings Added, Changed, Deprecated, Removed, Fixed and Security.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.errors import ClusterError

# As wheels, image tags and charts can all have it: no build metadata, and of pre-releases these.
SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-(alpha|beta|rc)\.(0|[1-9]\d*))?")
HEADINGS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
UNRELEASED = "Unreleased"
Key = tuple[int, int, int, str, int]


class ReleaseError(ClusterError):
    """Nothing was released; the text says why, and what to do."""


def key(version: str) -> Key:
    """What versions are ordered by. Raises ReleaseError for what is no version."""
    if not (match := SEMVER.fullmatch(version)):
        raise ReleaseError(
            f"{version!r} is no version. Remedy: write it as X.Y.Z or X.Y.Z-rc.N (alpha, beta, rc), without a leading v"
        )
    major, minor, patch, stage, number = match.groups()
    # A release follows its candidates.
    return int(major), int(minor), int(patch), stage or "~", int(number or 0)


def sections(changelog: str) -> dict[str, str]:
    """The text below each `## [version]` heading, by version, newest first."""
    parts = re.split(r"^## \[([^\]\n]+)\][^\n]*\n", changelog, flags=re.MULTILINE)
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def problems(changelog: str) -> list[str]:
    """What in a changelog is not as Keep a Changelog has it."""
    found = sections(changelog)
    told = [] if next(iter(found), None) == UNRELEASED else [f"the first section is not ## [{UNRELEASED}]"]
    for name, text in found.items():
        told += [
            f"[{name}] has the heading {heading!r}, which is none of {', '.join(HEADINGS)}"
            for heading in re.findall(r"^### (.*)$", text, re.MULTILINE)
            if heading not in HEADINGS
        ]
        _, *parts = re.split(r"^### (.*)$", text, flags=re.MULTILINE)
        told += [
            f"[{name}] has nothing under {heading!r}"
            for heading, entries in zip(parts[::2], parts[1::2], strict=True)
            if not re.search(r"^- \S", entries, re.MULTILINE)
        ]
        if text and not text.startswith("### "):
            told.append(f"[{name}] has text outside of the headings")
    versions = [key(name) for name in found if name != UNRELEASED]
    if versions != sorted(set(versions), reverse=True):
        told.append("the versions are not in falling order")
    return told


def check_next(version: str, changelog: str, tags: Iterable[str]) -> None:
    """Raises ReleaseError if `version` cannot be the next release; `tags` are those of the repository."""
    wanted = key(version)
    if told := problems(changelog):
        raise ReleaseError(f"CHANGELOG.md: {told[0]}. Remedy: mend it, and commit")
    released = [name for name in sections(changelog) if name != UNRELEASED]
    released += [tag[1:] for tag in tags if tag.startswith("v") and SEMVER.fullmatch(tag[1:])]
    last = max(released, key=key, default=None)
    if last and wanted <= key(last):
        raise ReleaseError(f"{version} is not greater than {last}, the last release. Remedy: choose a greater one")
    if not sections(changelog)[UNRELEASED]:
        raise ReleaseError(
            f"CHANGELOG.md has nothing under [{UNRELEASED}]. Remedy: say there what users see differently, and commit"
        )


def write(root: Path, version: str, date: str) -> list[Path]:
    """Writes the version to all its places, and makes the unreleased notes its own. Returns the changed files."""
    places = {
        "pyproject.toml": (r'^version = ".*"$', f'version = "{version}"'),
        "tests/simulator/pyproject.toml": (r'^version = ".*"$', f'version = "{version}"'),
        "operator/whatsapp_operator/__init__.py": (r'^__version__ = ".*"$', f'__version__ = "{version}"'),
        "charts/whatsapp-operator/Chart.yaml": (r"^((?:appV|v)ersion): .*$", rf"\g<1>: {version}"),
        "CHANGELOG.md": (rf"^## \[{UNRELEASED}\]$", f"## [{UNRELEASED}]\n\n## [{version}] - {date}"),
    }
    for name, (pattern, replacement) in places.items():
        file = root / name
        text, count = re.subn(pattern, replacement, file.read_text(), flags=re.MULTILINE)
        if not count:
            raise ReleaseError(f"{name} has no line for the version")
        file.write_text(text)
    return [root / name for name in places]
