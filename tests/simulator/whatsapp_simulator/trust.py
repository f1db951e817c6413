"""Make the client library in this process trust a simulator's Noise root key.

The library holds WhatsApp's root public key in one 32-byte variable and offers no setting for it. This replaces the
variable's value in memory. It belongs to tests and to the simulator's variant of the session image, nowhere else.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

WHATSAPP_ROOT: Final = bytes.fromhex("142375574d0a587166aae71ebe516437c4a28b73e3695c6ce1f7f9545da8ee6b")
"""The root key of the Noise certificate chain as clients hold it."""

TRUST_LINE: Final = "# whatsapp-simulator noise root: "
"""What `trust.pem` says ahead of the root key in hexadecimal."""

_LIBRARY: Final = "neonize-linux-"


class TrustError(RuntimeError):
    """The root key could not be replaced, or is not to be had."""


def trust_root(public: bytes, current: bytes = WHATSAPP_ROOT) -> int:
    """Replace the root key `current` by `public` (both 32 bytes) in the loaded client library.

    Call it after the library was loaded (`import neonize`) and before the first connection.

    Returns:
        How many places were written, at least 1.

    Raises:
        ValueError: a key has not 32 bytes.
        TrustError: the library is not loaded, or does not hold the current key.
    """
    if len(public) != len(WHATSAPP_ROOT) or len(current) != len(WHATSAPP_ROOT):
        raise ValueError("a root key has 32 bytes")
    written = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split()
        if _LIBRARY not in fields[-1] or not fields[1].startswith("rw"):
            continue
        start, end = (int(part, 16) for part in fields[0].split("-"))
        data = ctypes.string_at(start, end - start)
        at = data.find(current)
        while at >= 0:
            ctypes.memmove(start + at, public, len(public))
            written += 1
            at = data.find(current, at + len(current))
    if not written:
        raise TrustError("the client library is not loaded, or does not hold the expected root key")
    return written


def root_in(bundle: str) -> bytes:
    """The root key in the text of a `trust.pem`.

    Raises:
        TrustError: the text has no line with a root key, or a malformed one.
    """
    for line in bundle.splitlines():
        if line.startswith(TRUST_LINE):
            try:
                root = bytes.fromhex(line.removeprefix(TRUST_LINE).strip())
            except ValueError as error:
                raise TrustError("the root key is not hexadecimal") from error
            if len(root) != len(WHATSAPP_ROOT):
                raise TrustError("the root key has not 32 bytes")
            return root
    raise TrustError("no root key of a simulator in this bundle")
