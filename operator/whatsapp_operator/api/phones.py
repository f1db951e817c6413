"""When two spellings of a phone number mean the same WhatsApp account.

Three countries renumbered their mobile phones, and WhatsApp keeps the form that an account was registered with, so the
number that a person declares and the one in the linked device's JID may differ in one digit.
"""

import re
from typing import Final

# Each with the part that may be there or not; what is left is the canonical form.
_RENUMBERED: Final = (
    # Brazil: a 9 before the eight digits of a mobile number (Anatel, 2012-2016); old mobile numbers begin with 6 to 9.
    (re.compile(r"\+55([1-9][0-9])9([6-9][0-9]{7})"), r"+55\1\2"),
    # Mexico: a 1 after the country code of mobile numbers, dropped in 2019.
    (re.compile(r"\+521([0-9]{10})"), r"+52\1"),
    # Argentina: a 9 after the country code of mobile numbers that are called from abroad.
    (re.compile(r"\+549([0-9]{10})"), r"+54\1"),
)


def canonical(phone: str) -> str:
    """One spelling for all of the same account: E.164 in, E.164-like out. Not to be dialled, only to be compared."""
    for pattern, replacement in _RENUMBERED:
        if pattern.fullmatch(phone):
            return pattern.sub(replacement, phone)
    return phone


def same_account(one: str | None, other: str | None) -> bool:
    """Whether both are numbers, and of the same account."""
    return one is not None and other is not None and canonical(one) == canonical(other)
