"""One of each kind of text that must never leave a process."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Secret:
    """A text as it may come along, and the parts of it that tell something."""

    text: str
    parts: tuple[str, ...] = ()

    def found_in(self, output: str) -> bool:
        return any(part in output for part in self.parts or (self.text,))


_FIELDS: Final = (
    "OfllebC2GwdJ1kJjM0nBWgy7GaeY0c6eIds7NfQTt+bapf0sNNbcWfrV0FbcaNhI",
    "4ZbiWHSz+EHMCbbMUupf5owviz9sQN88VhWz5eipR2o=",
    "te8unM+zt+sMo9dYuHUwkJjkX5rZOCzy8fXD52xXURg=",
    "cWOa0xHQ6vJDwFP260ytu77q7rosidA6lsjFwITifiY=",
)
_QR: Final = f"2@{','.join(_FIELDS)}"
_TOKEN: Final = ("eyJhbGciOiJSUzI1NiJ9", "eyJzdWIiOiJzZXNzaW9uIn0", "c2lnbmF0dXJl-_")

SECRETS: Final = {
    "number": Secret("15551230001"),
    "E.164 number": Secret("+15551230001", ("15551230001",)),
    "grouped number": Secret("+1 (555) 867-5309", ("(555)", "867-5309")),
    "quoted number": Secret("%2B15551230001", ("15551230001",)),
    "short number": Secret("+1234567", ("1234567",)),
    "JID": Secret("15551230001@s.whatsapp.net", ("15551230001",)),
    "device JID": Secret("15551230001:3@s.whatsapp.net", ("15551230001",)),
    "agent JID": Secret("15551230001.0:3@s.whatsapp.net", ("15551230001",)),
    "LID": Secret("915551230001:1@lid", ("915551230001",)),
    "group": Secret("120363041234567890@g.us", ("120363041234567890",)),
    "old group": Secret("15551230001-1600000000@g.us", ("15551230001", "1600000000")),
    "device address": Secret("915551230001_1:1", ("915551230001",)),
    "QR": Secret(f"https://wa.me/settings/linked_devices#{_QR},6", _FIELDS),
    "bare QR": Secret(_QR, _FIELDS),
    "pairing code": Secret("K7QF-2MZX", ("K7QF", "2MZX")),
    "key in base64": Secret(_FIELDS[1], (_FIELDS[1][:12],)),
    "key in base64 for URLs": Secret("4ZbiWHSz-EHMCbbMUupf5owviz9sQN88VhWz5eipR2o", ("4ZbiWHSz",)),
    "key in hex": Secret("142375574d0a587166aae71ebe516437c4a28b73e3695c6ce1f7f9545da8ee6b", ("142375574d0a",)),
    "token": Secret(".".join(_TOKEN), _TOKEN),
    "bearer": Secret("Bearer abcdefgh1234", ("abcdefgh1234",)),
    "basic": Secret("Basic dXNlcjpodW50ZXIy", ("dXNlcjpodW50ZXIy",)),
    "proxy": Secret("http://user:hunter2@proxy.example:8080", ("user:", "hunter2")),
    "proxy with an odd password": Secret("http://user:s3/cr3t@2@proxy.example:8080", ("user:", "s3/", "cr3t")),
    "proxy without a scheme": Secret("user:hunter2@proxy.example:8080", ("hunter2",)),
    "SOCKS proxy": Secret("socks5://user:hunter2@proxy.example:1080", ("user:", "hunter2")),
}
