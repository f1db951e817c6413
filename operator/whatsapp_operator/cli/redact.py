"""Takes out of a diagnostic bundle what nobody but the tenant may read."""

import re
from typing import Any, Final

import yaml

from whatsapp_operator.api import names
from whatsapp_operator.api.masking import mask

# Fields whose whole value goes, whatever it looks like.
_FIELDS: Final = {
    "phone": "<phone>",
    "jid": "<jid>",
    "lid": "<jid>",
    "pushName": "<name>",
    "businessName": "<name>",
}
_ANNOTATIONS: Final = {names.ANNOTATION_FORCE_RELINK: "<token>"}
# What kubectl keeps here is the whole object once more; the others tell nothing about a failure.
_DROPPED: Final = ("kubectl.kubernetes.io/last-applied-configuration",)
_SAMPLE: Final = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?P<labels>\{.*\})?(?P<value> \S+.*)")
_URL: Final = re.compile(r"(?<=://)[^/\s\"']*@")


def text(found: str) -> str:
    """A log, an event or a message."""
    # Also a password that looks like nothing at all.
    return "\n".join(mask(_URL.sub("<userinfo>@", line)) for line in found.split("\n"))


def document(found: Any) -> str:
    """An object, or a list of them, as YAML."""
    return text(yaml.safe_dump(_walk(found), sort_keys=False, width=10_000, allow_unicode=True))


def metrics(found: str) -> str:
    """In the format of Prometheus: text is in labels and comments only; a value may look like a number to call."""
    return "\n".join(_sample(line) for line in found.split("\n"))


def _sample(line: str) -> str:
    match = _SAMPLE.fullmatch(line)
    if line.startswith("#") or match is None:
        return text(line)
    return match["name"] + text(match["labels"] or "") + match["value"]


def _walk(found: Any) -> Any:
    if isinstance(found, list):
        return [_walk(item) for item in found]
    if not isinstance(found, dict):
        return found
    return {key: _value(key, value) for key, value in found.items() if key not in ("managedFields", *_DROPPED)}


def _value(key: str, value: Any) -> Any:
    if isinstance(value, str):
        if key in _FIELDS:
            return _FIELDS[key]
        if key in _ANNOTATIONS:
            return _ANNOTATIONS[key]
        if key == names.ANNOTATION_DESIRED_STATE:
            return re.sub(r'("(?:phone|rejectedPhone)": ?)"[^"]*"', r'\1"<phone>"', value)
    return _walk(value)
