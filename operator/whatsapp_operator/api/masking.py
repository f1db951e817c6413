"""Takes phone numbers, JIDs, QR texts, pairing codes, keys and tokens out of text that leaves a process.

What is no secret, but looks like one, stays: uids, digests, versions of objects, times, names and paths.
"""

import re
from itertools import pairwise
from typing import Final

_CODE: Final = "[1-9A-HJ-NP-TV-Z]"  # digits and capitals without 0, I, O and U
# Where a word begins: also after a line break that was escaped, as in a repr.
_BEGINS: Final = r"(?:(?<![A-Za-z0-9.-])|(?<=\\[nrt]))"

# What looks like a secret and is none.
_KEPT: Final = (
    r"\b[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}\b"
    r"|\bsha256:[0-9a-f]{64}\b"
    r"|(?i:\b(?:resource_?)?version)(?: in [a-z ]+)?[\s:=\"']{1,4}\d+(?: \(\d+\))?"
    r"|\b\d+ bytes\b"
    # Of a quota and a LimitRange.
    r"|\b(?:(?:requests|limits)\.)?(?:cpu|memory|storage|ephemeral-storage)=\d+\b"
    r"|\b(?:usage|amount) per [A-Za-z]+ is \d+\b|\bbut (?:request|limit) is \d+\b"
    r"|\\[nrt]"
)
_WHOLE: Final = {
    # The URL with its five fields, or the four bare fields.
    "qr": r"https?://wa\.me/\S+|(?<!\d)\d@[A-Za-z0-9+/=_-]{16,}(?:,[A-Za-z0-9+/=_-]*)*",
    "token": rf"{_BEGINS}eyJ[A-Za-z0-9_-]{{10,}}(?:\.[A-Za-z0-9_-]*)*"
    r"|(?:(?<=[Bb]earer )|(?<=BEARER ))[\w.~+/=-]{8,}"
    r"|(?<=[Bb]asic )(?=\S*[A-Z0-9=])[\w.~+/=-]{8,}",
}
_LONG: Final = {
    # 32 bytes and more in base64 or hex.
    "key": r"[A-Za-z0-9+/_-]{40,}={0,2}",
}
_SHORT: Final = {
    "jid": r"[A-Za-z0-9_.:+-]{1,64}"
    r"@(?:s\.whatsapp\.net|c\.us|g\.us|lid|hosted(?:\.lid)?|newsletter|broadcast|msgr|bot)\b"
    r"|\b12036\d{13}\b",  # a group, without its server
    # In a URL, whatever is in the password, or on its own; an image's tag and digest look alike.
    "userinfo": r"(?:(?<=://)[^\s\"'/]{1,256}|(?:(?<=http://)|(?<=https://))[^\s\"']{1,256}"
    r"|[\w.~-]{1,64}:[^\s\"'/@]{1,256})(?=@(?!sha256:))",
    "code": rf"{_BEGINS}{_CODE}{{4}}-{_CODE}{{4}}(?![\w-])|(?:(?<=code[ =:])|(?<=code: )){_CODE}{{8}}\b",
    # In international form, also grouped, and then as JIDs and the library's addresses of devices have it.
    "phone": r"(?:\+|%2[Bb])[1-9](?:[ .()/-]{0,2}\d){6,14}"
    rf"|{_BEGINS}(?:00)?[1-9]\d{{6,14}}(?:\.\d{{1,3}}(?=:))?(?![A-Za-z0-9-]|\.\d)",
}
_HEX_KEY: Final = re.compile(r"(?<![A-Za-z0-9])(?:[0-9a-f]{64,}|[0-9A-F]{64,})(?![A-Za-z0-9])")


def _any(kinds: dict[str, str]) -> re.Pattern[str]:
    """At each place the first that fits."""
    return re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in {"kept": _KEPT, **kinds}.items()))


# One after the other: what is long may be a path with a token or a number in it.
_PASSES: Final = (_any(_WHOLE), _any(_LONG), _any(_SHORT))


# Without any of these there is nothing to be found, as in most sentences.
_HINT: Final = re.compile(
    rf"[0-9@]|eyJ|[Bb]earer |BEARER |[Bb]asic |[A-Z]{{4}}-|code[ =:] ?{_CODE}{{8}}|[A-Za-z0-9+/_-]{{40}}"
)


def mask(text: str) -> str:
    """The text with every credential and personal number replaced by its kind, such as <phone>."""
    if _HINT.search(text) is None:
        return text
    for pattern in _PASSES:
        text = pattern.sub(_replacement, text)
    return text


def _replacement(match: re.Match[str]) -> str:
    kind, found = match.lastgroup, match[0]
    if kind == "kept":
        return found
    if kind == "key" and not _is_key(found):
        return _HEX_KEY.sub("<key>", found)
    return f"<{kind}>"


def _is_key(text: str) -> bool:
    """Whether a long run of letters and digits is random: paths and names change less often between kinds of them."""
    if text.endswith("=") or re.fullmatch(r"[0-9a-f]+|[0-9A-F]+", text):
        return True
    kinds = ["a" if c.islower() else "A" if c.isupper() else "0" for c in text if c.isalnum()]
    changes = sum(before != after for before, after in pairwise(kinds))
    return {"a", "A"} <= set(kinds) and changes > 0.25 * len(kinds)
