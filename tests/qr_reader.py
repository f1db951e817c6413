"""Reads a QR from its modules, as a phone does: nothing of how it was drawn is known here but the standard."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from segno import consts

Modules = Sequence[Sequence[bool]]

_FORMAT_MASK: Final = 0b101010000010010
# Two bits of the format information.
_LEVELS: Final = {0b01: "L", 0b00: "M", 0b11: "Q", 0b10: "H"}
_MASKS: Final = (
    lambda i, j: (i + j) % 2 == 0,
    lambda i, _: i % 2 == 0,
    lambda _, j: j % 3 == 0,
    lambda i, j: (i + j) % 3 == 0,
    lambda i, j: (i // 2 + j // 3) % 2 == 0,
    lambda i, j: i * j % 2 + i * j % 3 == 0,
    lambda i, j: (i * j % 2 + i * j % 3) % 2 == 0,
    lambda i, j: ((i + j) % 2 + i * j % 3) % 2 == 0,
)
_BYTES: Final = 0b0100
_FINDER: Final = ("1111111", "1000001", "1011101", "1011101", "1011101", "1000001", "1111111")


class NotReadableError(Exception):
    """What is wrong with it."""


def read(picture: Modules) -> str:
    """The text of a QR with its quiet zone around it; every codeword must be right.

    Raises:
        NotReadableError: it has no quiet zone, is not a QR, or a module of it is wrong.
    """
    code = _cropped(picture)
    size = len(code)
    version, rest = divmod(size - 17, 4)
    if rest or not 1 <= version <= 40:
        raise NotReadableError(f"{size} modules are no QR")
    for top, left in ((0, 0), (0, size - 7), (size - 7, 0)):
        found = ["".join("01"[code[top + i][left + j]] for j in range(7)) for i in range(7)]
        if tuple(found) != _FINDER:
            raise NotReadableError("a corner is broken")
    level, mask = _format(code)
    bits = [code[i][j] != _MASKS[mask](i, j) for i, j in _path(version, size)]
    words = [int("".join("01"[bit] for bit in bits[k : k + 8]), 2) for k in range(0, len(bits) - 7, 8)]
    return _text(_data(words, version, level), version)


def _cropped(picture: Modules) -> Modules:
    rows = [i for i, row in enumerate(picture) if any(row)]
    columns = [j for row in picture for j, dark in enumerate(row) if dark]
    if not rows:
        raise NotReadableError("there is nothing dark")
    top, bottom, left, right = rows[0], rows[-1], min(columns), max(columns)
    if not (top and left and bottom < len(picture) - 1 and right < len(picture[0]) - 1):
        raise NotReadableError("there is no quiet zone")
    code = [list(row[left : right + 1]) for row in picture[top : bottom + 1]]
    if len(code) != len(code[0]):
        raise NotReadableError(f"{len(code[0])} by {len(code)} modules are no square")
    return code


def _format(code: Modules) -> tuple[str, int]:
    size = len(code)
    first = [code[8][j] for j in (0, 1, 2, 3, 4, 5, 7, 8)] + [code[i][8] for i in (7, 5, 4, 3, 2, 1, 0)]
    second = [code[size - 1 - i][8] for i in range(7)] + [code[8][size - 8 + j] for j in range(8)]
    if first != second:
        raise NotReadableError("the two format informations differ")
    bits = int("".join("01"[bit] for bit in first), 2) ^ _FORMAT_MASK
    return _LEVELS[bits >> 13], bits >> 10 & 0b111


def _path(version: int, size: int) -> Iterator[tuple[int, int]]:
    """The modules that hold data, in the order in which they are filled."""
    upward, right = True, size - 1
    while right > 0:
        if right == 6:
            right -= 1
        for i in range(size - 1, -1, -1) if upward else range(size):
            for j in (right, right - 1):
                if not _is_function(i, j, version, size):
                    yield i, j
        upward, right = not upward, right - 2


def _is_function(i: int, j: int, version: int, size: int) -> bool:
    corners = (i < 9 and j < 9) or (i < 9 and j >= size - 8) or (i >= size - 8 and j < 9)
    if corners or 6 in (i, j):
        return True
    if version >= 7 and ((i < 6 and j >= size - 11) or (j < 6 and i >= size - 11)):
        return True
    centres: tuple[int, ...] = consts.ALIGNMENT_POS[version - 2] if version > 1 else ()
    last = size - 7
    return any(
        abs(i - y) <= 2 and abs(j - x) <= 2
        for y in centres
        for x in centres
        if (y, x) not in ((6, 6), (6, last), (last, 6))
    )


def _data(words: list[int], version: int, level: str) -> bytes:
    layouts: Any = consts.ECC
    layout = layouts[version][consts.ERROR_MAPPING[level]]
    blocks = [(part.num_total, part.num_data) for part in layout for _ in range(part.num_blocks)]
    found: list[list[int]] = [[] for _ in blocks]
    rest = iter(words)
    for place in range(max(data for _, data in blocks)):
        for block, (_, data) in zip(found, blocks, strict=True):
            if place < data:
                block.append(next(rest))
    checks = blocks[0][0] - blocks[0][1]
    whole = [list(block) for block in found]
    for _ in range(checks):
        for block in whole:
            block.append(next(rest))
    for block in whole:
        if any(_evaluated(block, power) for power in range(checks)):
            raise NotReadableError("a module is wrong")
    return bytes(word for block in found for word in block)


def _evaluated(block: list[int], power: int) -> int:
    """The polynomial at the power of the generator; 0 for a block without an error."""
    value = 0
    for word in block:
        value = word ^ (consts.GALIOS_EXP[(consts.GALIOS_LOG[value] + power) % 255] if value else 0)
    return value


def _text(data: bytes, version: int) -> str:
    bits = "".join(f"{byte:08b}" for byte in data)
    if int(bits[:4], 2) != _BYTES:
        raise NotReadableError("it is not in bytes")
    width = 8 if version < 10 else 16
    length = int(bits[4 : 4 + width], 2)
    start = 4 + width
    return bytes(int(bits[start + 8 * k : start + 8 * k + 8], 2) for k in range(length)).decode()
