"""The annotation forceRelink: each token that was not yet handled becomes one request to the session pod."""

import hashlib
from datetime import datetime
from typing import Final

from whatsapp_operator.api import names
from whatsapp_operator.api.models import RelinkStatus, SessionReport, WhatsAppSession

TOKEN_BYTES: Final = 128


def token(annotations: dict[str, str]) -> str | None:
    """The token asked for; "false", the empty and the overlong are none."""
    value = annotations.get(names.ANNOTATION_FORCE_RELINK, "")
    return None if value in ("", "false") or _too_long(value) else value


def wrong_token(session: WhatsAppSession) -> str | None:
    """What is wrong with the annotation, for a person; None if nothing is."""
    if not _too_long(session.metadata.annotations.get(names.ANNOTATION_FORCE_RELINK, "")):
        return None
    return f"The forceRelink token is longer than {TOKEN_BYTES} bytes and is ignored."


def _too_long(value: str) -> bool:
    return len(value.encode()) > TOKEN_BYTES


def advance(session: WhatsAppSession, report: SessionReport | None, now: datetime) -> RelinkStatus | None:
    """status.relink as it should be now.

    The request id is made of the token and the time, so that a token that was removed and comes again is a new request.
    """
    current = session.status.relink
    uid, wanted = session.metadata.uid, token(session.metadata.annotations)
    digest = hashlib.sha256(f"{uid}\0{wanted}".encode()).hexdigest()[:32] if wanted is not None else None
    if digest is None:
        current = current.model_copy(update={"token_hash": None}) if current is not None else None
    elif current is None or current.token_hash != digest:
        request = hashlib.sha256(f"{digest}\0{now.isoformat()}".encode()).hexdigest()[:16]
        current = RelinkStatus(token_hash=digest, request_id=request, requested_at=now)
    if (
        current is not None
        and current.completed_at is None
        and report is not None
        and current.request_id is not None
        and report.relink_request_id == current.request_id
    ):
        current = current.model_copy(update={"completed_at": now, "outcome": report.relink_outcome})
    return current


def pending(session: WhatsAppSession) -> bool:
    """Whether a request that is on record has not been reported done."""
    relink = session.status.relink
    return relink is not None and relink.request_id is not None and relink.completed_at is None
