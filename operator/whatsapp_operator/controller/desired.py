"""The desired state of a running pod, as docs/architecture.md defines it."""

import json
import re
from dataclasses import dataclass
from typing import Final

from whatsapp_operator.api import names
from whatsapp_operator.api.models import DEFAULT_INACTIVE_EXPIRY, WhatsAppSession

_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s)")
_UNIT_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True, slots=True)
class Wish:
    """The part of the desired state that is not copied from the spec; phones in E.164 form."""

    phone: str | None = None
    rejected_phone: str | None = None
    relink_request_id: str | None = None
    unlink: bool = False
    expire: bool = False


def duration_seconds(text: str) -> float:
    """Seconds of a duration such as 2160h or 1h30m; the pattern was checked at admission."""
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(text))


def log_level(session: WhatsAppSession) -> str | None:
    """The log level asked for by annotation; None for none, or one that there is not."""
    found = session.metadata.annotations.get(names.ANNOTATION_LOG_LEVEL, "").upper()
    return found if found in names.LOG_LEVELS else None


def wrong_log_level(session: WhatsAppSession) -> str | None:
    """What is wrong with the annotation that asks for a log level, for a person; None if nothing is."""
    asked = session.metadata.annotations.get(names.ANNOTATION_LOG_LEVEL, "")
    if not asked or log_level(session) is not None:
        return None
    return f"The annotation {names.ANNOTATION_LOG_LEVEL} is ignored: it is none of {', '.join(names.LOG_LEVELS)}."


def document(session: WhatsAppSession, wish: Wish) -> str:
    """The document, always the same text for the same content."""
    spec = session.spec
    expiry = spec.recovery.inactive_expiry
    seconds = duration_seconds(expiry) if expiry is not None else DEFAULT_INACTIVE_EXPIRY.total_seconds()
    return json.dumps(
        {
            "phone": wish.phone,
            "pairing": {
                "method": spec.pairing.method.value,
                "attempts": spec.pairing.attempts,
                "displayName": spec.pairing.display_name,
            },
            "recovery": {
                "onLoggedOut": spec.recovery.on_logged_out.value,
                "inactiveExpirySeconds": int(seconds),
            },
            "relinkRequestID": wish.relink_request_id,
            "rejectedPhone": wish.rejected_phone,
            "unlink": wish.unlink,
            "expire": wish.expire,
            "logLevel": log_level(session),
        },
        sort_keys=True,
        separators=(",", ":"),
    )


def parse_wish(text: str | None) -> Wish:
    """What a pod was told; nothing, where its annotation is missing or was made unreadable by hand."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = {}
    if not isinstance(found, dict):
        return Wish()
    texts = {key: value for key, value in found.items() if isinstance(value, str)}
    return Wish(
        phone=texts.get("phone"),
        rejected_phone=texts.get("rejectedPhone"),
        relink_request_id=texts.get("relinkRequestID"),
        unlink=found.get("unlink") is True,
        expire=found.get("expire") is True,
    )
