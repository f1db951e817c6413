"""What a phone number must be beyond its pattern: of a country, and as long as numbers of that country can be."""

from functools import lru_cache
from typing import Final

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumber, ValidationResult

from whatsapp_operator.api.phones import canonical

_FORM: Final = "Write +, the country calling code, and the number as it is dialled from abroad."


@lru_cache(maxsize=1024)
def fault(phone: str) -> str | None:
    """What is wrong with a number that has E.164 form, and what to do; None if it may exist.

    The text names the country calling code and holds nothing else of the number. Assigned ranges are not looked at:
    they change more often than the library is upgraded.
    """
    try:
        parsed = phonenumbers.parse(phone)
    except NumberParseException as error:
        if error.error_type == NumberParseException.INVALID_COUNTRY_CODE:
            return f"it begins with the calling code of no country. {_FORM}"
        return f"it is too short. {_FORM}"
    code = parsed.country_code or 0
    digits = canonical(phone).removeprefix(f"+{code}")
    of_country = f"a number of the country calling code +{code}"
    written = phonenumbers.national_significant_number(parsed)
    if digits.startswith("0") and not written.startswith("0"):
        return f"it has a 0 after +{code} that is dialled only within the country. Leave it out."
    # Not as it was parsed, for that leaves out digits that are taken for a prefix.
    zeros = len(digits) - len(str(int(digits)))
    exact = PhoneNumber(
        country_code=code, national_number=int(digits), italian_leading_zero=zeros > 0, number_of_leading_zeros=zeros
    )
    match phonenumbers.is_possible_number_with_reason(exact):
        case ValidationResult.IS_POSSIBLE:
            return None
        case ValidationResult.TOO_LONG:
            return f"it is too long for {of_country}. {_FORM}"
        case ValidationResult.INVALID_LENGTH:
            return f"it is longer or shorter than {of_country} can be. {_FORM}"
        case _:
            # A number without its area code is too short as well, seen from abroad.
            return f"it is too short for {of_country}. {_FORM}"
