"""What the Secret of a session shows now: a QR or a code, and until when."""

import base64
import binascii
from dataclasses import dataclass, field
from datetime import datetime

from whatsapp_operator.api import names
from whatsapp_operator.cli.words import parse_time
from whatsapp_operator.kube.client import Object


@dataclass(frozen=True, slots=True)
class Shown:
    """Either a QR's text or a code; both are credentials, so a repr holds neither."""

    qr: str | None = field(repr=False)
    code: str | None = field(repr=False)
    expires_at: datetime

    def valid(self, now: datetime) -> bool:
        return now < self.expires_at


def read(secret: Object, now: datetime) -> Shown | None:
    """What the Secret shows; None for nothing, for what has expired, and for what does not say when it expires."""
    data = secret.get("data") or {}
    expires = parse_time(_text(data.get(names.SECRET_KEY_EXPIRES_AT)))
    qr, code = _text(data.get(names.SECRET_KEY_QR)), _text(data.get(names.SECRET_KEY_CODE))
    if expires is None or expires <= now or not (qr or code):
        return None
    return Shown(qr or None, code or None, expires)


def _text(encoded: str | None) -> str | None:
    try:
        return base64.b64decode(encoded or "", validate=True).decode() if encoded else None
    except (binascii.Error, UnicodeDecodeError):
        return None
