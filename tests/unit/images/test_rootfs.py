"""What goes into an image's root, decided from the output of the tools of the base it is taken from."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

import pytest

from images.rootfs import Rootfs, excluded, hops, parse_common_licences, parse_ldconfig, parse_ldd, parse_owners

LDD_OF_TWO_FILES = """/usr/bin/python3.11:
\tlinux-vdso.so.1 (0x00007ffc1f1f2000)
\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f0d30000000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f0d30222000)
/usr/lib/python3.11/lib-dynload/_asyncio.so:
\tstatically linked
"""


def links(targets: Mapping[str, str]) -> Callable[[str], str | None]:
    return targets.get


@pytest.mark.parametrize(
    ("path", "patterns", "expected"),
    [
        ("test/test_os.py", ["test"], True),
        ("package/test/data", ["test"], True),
        ("package/testing.py", ["test"], False),
        ("lib-dynload/_gdbm.cpython-311.so", ["lib-dynload/_gdbm.*"], True),
        ("package/lib-dynload/_gdbm.so", ["lib-dynload/_gdbm.*"], False),
        ("phonenumbers/geodata/data0.py", ["phonenumbers/geodata"], True),
        ("phonenumbers/geocoder.py", ["phonenumbers/geodata"], False),
        ("package/stubs.pyi", ["*.pyi"], True),
        ("package/module.py", [], False),
    ],
)
def test_a_pattern_excludes_a_name_anywhere_or_a_path_from_the_start(
    path: str, patterns: list[str], expected: bool
) -> None:
    assert excluded(PurePosixPath(path), patterns) is expected


def test_ldd_gives_libraries_and_loader_but_not_the_kernels() -> None:
    assert parse_ldd(LDD_OF_TWO_FILES) == {"/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"}


def test_a_library_that_ldd_does_not_find_is_an_error() -> None:
    with pytest.raises(LookupError, match=r"libstdc\+\+\.so\.6 is not found"):
        parse_ldd(LDD_OF_TWO_FILES + "\tlibstdc++.so.6 => not found\n")


def test_ldconfig_gives_the_library_of_that_very_name() -> None:
    output = (
        "2 libs found in cache `/etc/ld.so.cache'\n"
        "\tlibmagic.so.10 (libc6,x86-64) => /lib/libmagic.so.10\n"
        "\tlibmagic.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libmagic.so.1\n"
    )
    assert parse_ldconfig(output, "libmagic.so.1") == "/lib/x86_64-linux-gnu/libmagic.so.1"
    with pytest.raises(LookupError, match=r"libmagic\.so\.2"):
        parse_ldconfig(output, "libmagic.so.2")


@pytest.mark.parametrize(
    ("path", "targets", "expected"),
    [
        ("/bin/sh", {}, ["/bin/sh"]),
        ("/bin/sh", {"/bin": "usr/bin", "/usr/bin/sh": "dash"}, ["/bin", "/usr/bin/sh", "/usr/bin/dash"]),
        ("/a/b", {"/a/b": "/c/d"}, ["/a/b", "/c/d"]),
        ("/a/b/c", {"/a/b": "../x/./y"}, ["/a/b", "/x/y/c"]),
        ("/a/b", {"/a": "z", "/z/b": "/a/c"}, ["/a", "/z/b", "/z/c"]),
    ],
)
def test_hops_are_the_links_on_the_way_and_the_file(path: str, targets: dict[str, str], expected: list[str]) -> None:
    assert hops(path, links(targets)) == expected


def test_a_loop_of_links_is_an_error() -> None:
    with pytest.raises(OSError, match="symbolic links"):
        hops("/a", links({"/a": "b", "/b": "a"}))


def test_owners_are_packages_without_architecture_and_diversions() -> None:
    output = (
        "libc6:amd64: /lib/x86_64-linux-gnu/libc.so.6\n"
        "libgcc-s1:amd64, libgcc-s1:i386: /lib/x86_64-linux-gnu\n"
        "diversion by dash from: /bin/sh\n"
        "dash: /bin/dash\n"
    )
    assert parse_owners(output) == {"libc6", "libgcc-s1", "dash"}


def test_a_copyright_file_refers_to_common_licences() -> None:
    text = "on Debian systems in /usr/share/common-licenses/GPL-3. Also `/usr/share/common-licenses/LGPL-2.1'."
    assert parse_common_licences(text) == ["/usr/share/common-licenses/GPL-3", "/usr/share/common-licenses/LGPL-2.1"]


def test_a_file_is_added_at_its_path_with_the_links_that_lead_to_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "lib.so.1").write_text("content")
    (tmp_path / "alias").symlink_to("real")
    (tmp_path / "real" / "lib.so").symlink_to("lib.so.1")
    rootfs = Rootfs(tmp_path / "root")

    rootfs.add_file(f"{tmp_path}/alias/lib.so")

    inside = rootfs.inside(str(tmp_path))
    assert (inside / "alias").readlink() == Path("real")
    assert (inside / "real" / "lib.so").readlink() == Path("lib.so.1")
    assert (inside / "alias" / "lib.so").read_text() == "content"
    assert rootfs.taken == {os.path.realpath(tmp_path / "real" / "lib.so.1")}


def test_a_tree_is_added_without_what_is_unused_and_gives_its_elf_files(tmp_path: Path) -> None:
    source = tmp_path / "packages"
    (source / "package" / "tests").mkdir(parents=True)
    (source / "package" / "tests" / "big.py").write_text("")
    (source / "package" / "module.py").write_text("")
    (source / "package" / "native.so").write_bytes(b"\x7fELF\x02")
    (source / "package" / "native.so.1").symlink_to("native.so")
    rootfs = Rootfs(tmp_path / "root")

    elf_files = rootfs.add_tree(source, "/app/lib", ["package/tests"])

    added = rootfs.inside("/app/lib/package")
    assert sorted(path.name for path in added.iterdir()) == ["module.py", "native.so", "native.so.1"]
    assert (added / "native.so.1").is_symlink()
    assert elf_files == {str(source / "package" / "native.so")}
