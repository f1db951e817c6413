"""Takes phone numbers, JIDs, QR texts, pairing codes, keys and tokens out of text that leaves the process."""

import re
from typing import Final

MASK: Final = "***"

# In this order: what is contained in another comes after it.
_PATTERNS: Final = (
    # A QR: the URL with its five fields, or the four bare fields.
    re.compile(r"https?://wa\.me/\S+"),
    re.compile(r"\b\d@[A-Za-z0-9+/=_-]{8,}(?:,[A-Za-z0-9+/=_-]*)*"),
    # user:password@ in a URL
    re.compile(r"(?<=://)[^/\s@\"']+(?=@)"),
    # JSON Web Tokens, with or without the word Bearer
    re.compile(r"\beyJ[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"),
    re.compile(r"(?<=[Bb]earer )\S+"),
    # JIDs of every server; the user may carry an agent and a device
    re.compile(
        r"[A-Za-z0-9_.:+-]+@(?:s\.whatsapp\.net|c\.us|g\.us|lid|hosted(?:\.lid)?|newsletter|broadcast|msgr|bot)\b"
    ),
    # pairing codes (digits and capitals without 0, I, O and U)
    re.compile(r"\b[1-9A-HJ-NP-TV-Z]{4}-[1-9A-HJ-NP-TV-Z]{4}\b"),
    re.compile(r"(?i)(?<=code[ =:])\s*[1-9A-HJ-NP-TV-Z]{8}\b"),
    # keys: 32 bytes and more in base64 or hex
    re.compile(r"[A-Za-z0-9+/_-]{40,}={0,2}"),
    # phone numbers, as they are or grouped by spaces, dots or dashes
    re.compile(r"\+[1-9](?:[ .-]?\d){6,14}"),
    re.compile(r"(?<![\w.-])[1-9]\d{6,14}(?![\w-]|\.\d)"),
)


def mask(text: str) -> str:
    """The text with every credential and personal number replaced."""
    for pattern in _PATTERNS:
        text = pattern.sub(MASK, text)
    return text
