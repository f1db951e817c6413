"""The text behind a QR: a reference from the server and the client's keys."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from whatsapp_simulator.keys import KEY_SIZE

_FIELDS: Final = 4


class QRError(ValueError):
    """The text is not that of a linking QR; the message says why, and repeats nothing of it."""


@dataclass(frozen=True, slots=True, repr=False)
class QRText:
    """What a phone reads from the screen."""

    ref: str
    noise: bytes
    identity: bytes
    adv_secret: bytes

    @classmethod
    def parse(cls, text: str) -> QRText:
        """Read `ref,noise,identity,advSecret[,clientType]`, bare or after the `#` of a URL; keys in base64.

        Raises:
            QRError: a field is missing or is no key of 32 bytes.
        """
        fields = text.rpartition("#")[2].strip().split(",")
        if len(fields) < _FIELDS or not fields[0]:
            raise QRError("a QR text has at least four fields")
        return cls(fields[0], *(_key(field) for field in fields[1:_FIELDS]))


def _key(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise QRError("a key in the QR text is not base64") from error
    if len(key) != KEY_SIZE:
        raise QRError("a key in the QR text has not 32 bytes")
    return key
