"""How a device names itself to the phone, and how numbers and JIDs relate."""

import re
from dataclasses import dataclass
from typing import Final

BROWSERS: Final = ("Chrome", "Edge", "Firefox", "IE", "Opera", "Safari", "Electron", "UWP")
"""Client types that the pairing code protocol knows; WhatsApp refuses other names in it."""

_FORM: Final = re.compile(r"(?P<browser>[A-Za-z]+) \((?P<system>[^()]+)\)")
_JID: Final = re.compile(r"(?P<number>[1-9][0-9]{6,14})(?:[.:_][0-9]+)*@s\.whatsapp\.net")


@dataclass(frozen=True, slots=True)
class DisplayName:
    """`browser` is one of BROWSERS, `system` what stands beside it in the phone's list of linked devices."""

    browser: str
    system: str

    @property
    def pairing_code_system(self) -> str:
        """The system as the pairing code protocol takes it: that of a desktop, Linux unless it is another."""
        return self.system if self.system in ("Linux", "Windows", "Android", "Mac OS") else "Linux"


def parse_display_name(text: str) -> DisplayName:
    """`Chrome (Linux)` as it says; any other text becomes the system's name of a Chrome."""
    match = _FORM.fullmatch(text.strip())
    if match:
        for browser in BROWSERS:
            if browser.casefold() == match["browser"].casefold():
                return DisplayName(browser, match["system"].strip())
    return DisplayName("Chrome", text.strip())


def phone_of(jid: str) -> str | None:
    """The E.164 number in a device's JID, `15551230001:3@s.whatsapp.net`; None where it holds none."""
    match = _JID.fullmatch(jid)
    return f"+{match['number']}" if match else None
