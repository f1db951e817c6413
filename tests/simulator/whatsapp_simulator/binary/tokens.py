"""The token dictionary, read out of the client library so that it is always the version of the client under test.

The library is Go: its tables are arrays of string headers (pointer, length) in the data segment, filled in by the
loader. They are found from words that occur in them. Loading the library starts a Go runtime of some 40 MB, so it
happens in a child process that prints the tables as JSON and ends.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SINGLE_SIZE: Final = 236
DOUBLE_TABLES: Final = 4
DOUBLE_SIZE: Final = 256

_HEADER: Final = struct.Struct("<QQ")
_SLICE: Final = struct.Struct("<QQQ")
_SECOND_SINGLE: Final = b"xmlstreamstart"
_FIRST_DOUBLE: Final = b"read-self"


class DictionaryError(RuntimeError):
    """The dictionary could not be read out of the client library."""


@dataclass(frozen=True, slots=True)
class Dictionary:
    """236 single-byte tokens (entry 0 is unused) and four tables of 256 double-byte tokens."""

    single: tuple[str, ...]
    double: tuple[tuple[str, ...], ...]


def library_path() -> Path:
    """Where the client library lies, found without importing its package.

    Raises:
        DictionaryError: neonize is not installed, or holds no library for this platform.
    """
    spec = importlib.util.find_spec("neonize")
    if spec is None or not spec.submodule_search_locations:
        raise DictionaryError("neonize is not installed")
    libraries = sorted(Path(spec.submodule_search_locations[0]).glob("neonize-linux-*.so"))
    if not libraries:
        raise DictionaryError("neonize holds no library for Linux")
    return libraries[0]


def read_dictionary() -> Dictionary:
    """Read the dictionary in a child process.

    Raises:
        DictionaryError: the child failed; its last line of output is in the message.
    """
    result = subprocess.run([sys.executable, "-P", __file__], capture_output=True, text=True, timeout=60, check=False)
    if result.returncode != 0:
        cause = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise DictionaryError(f"the client library's dictionary could not be read: {cause}")
    tables = json.loads(result.stdout)
    return Dictionary(tuple(tables["single"]), tuple(tuple(table) for table in tables["double"]))


class _Memory:
    """The readable mappings of a library loaded into this process."""

    def __init__(self, library: str) -> None:
        self._spans: list[tuple[int, bytes]] = []
        for line in Path("/proc/self/maps").read_text().splitlines():
            fields = line.split()
            if fields[-1].endswith(library) and fields[1].startswith("r"):
                start, end = (int(part, 16) for part in fields[0].split("-"))
                self._spans.append((start, ctypes.string_at(start, end - start)))

    def find(self, pattern: bytes) -> list[int]:
        expression = re.compile(re.escape(pattern), re.DOTALL)
        return [start + match.start() for start, data in self._spans for match in expression.finditer(data)]

    def headers(self, word: bytes) -> list[int]:
        """Addresses of the string headers that point at an occurrence of the word."""
        return [header for at in self.find(word) for header in self.find(_HEADER.pack(at, len(word)))]

    def strings(self, at: int, count: int) -> list[str]:
        headers = [_HEADER.unpack(ctypes.string_at(at + _HEADER.size * i, _HEADER.size)) for i in range(count)]
        return [ctypes.string_at(pointer, length).decode() if length else "" for pointer, length in headers]


def _tables() -> dict[str, list[str] | list[list[str]]]:
    path = library_path()
    ctypes.CDLL(str(path))
    memory = _Memory(path.name)
    firsts = memory.headers(_SECOND_SINGLE)
    slots = [
        slot
        for header in memory.headers(_FIRST_DOUBLE)
        for slot in memory.find(_SLICE.pack(header, DOUBLE_SIZE, DOUBLE_SIZE))
    ]
    if not firsts or not slots:
        raise DictionaryError("the tables were not found in the library")
    single = memory.strings(firsts[0] - _HEADER.size, SINGLE_SIZE)
    double = []
    for i in range(DOUBLE_TABLES):
        pointer, length, _ = _SLICE.unpack(ctypes.string_at(slots[0] + _SLICE.size * i, _SLICE.size))
        double.append(memory.strings(pointer, length))
    return {"single": single, "double": double}


if __name__ == "__main__":
    json.dump(_tables(), sys.stdout)
