"""Labels of everything that the operator makes."""

from collections.abc import Mapping
from typing import Final

from whatsapp_operator.api import names
from whatsapp_operator.api.models import WhatsAppSession

# Of one session; the version is that of the operator that made the object.
OWN: Final = frozenset(
    {
        names.LABEL_APP_NAME,
        names.LABEL_APP_COMPONENT,
        names.LABEL_APP_PART_OF,
        names.LABEL_APP_MANAGED_BY,
        names.LABEL_APP_VERSION,
        names.LABEL_APP_INSTANCE,
        names.LABEL_SESSION,
        names.LABEL_SESSION_UID,
        names.LABEL_TENANT,
        names.LABEL_PRIMARY,
    }
)


def untouched(found: Mapping[str, str], session: str) -> bool:
    """Whether the labels that are the same for all, or follow from the name of the session, are as they were made."""
    wanted = common("session", "") | {names.LABEL_APP_INSTANCE: session, names.LABEL_SESSION: session}
    return all(found.get(key) == value for key, value in wanted.items() if key != names.LABEL_APP_VERSION)


def mended(wanted: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What is written over labels that somebody has changed; the version goes on telling who made the object."""
    return tuple(sorted((key, value) for key, value in wanted.items() if key != names.LABEL_APP_VERSION))


def common(component: str, version: str) -> dict[str, str]:
    """The recommended labels, without those of one session; managed-by and part-of are what the watches select by."""
    return {
        names.LABEL_APP_NAME: "whatsapp-session",
        names.LABEL_APP_COMPONENT: component,
        names.LABEL_APP_PART_OF: names.FIELD_MANAGER_OPERATOR,
        names.LABEL_APP_MANAGED_BY: names.FIELD_MANAGER_OPERATOR,
        names.LABEL_APP_VERSION: version,
    }


def of_session(session: WhatsAppSession, version: str) -> dict[str, str]:
    """Labels of an object that belongs to one session; session-uid is what binds it."""
    return common("session", version) | {
        names.LABEL_APP_INSTANCE: session.metadata.name,
        names.LABEL_SESSION: session.metadata.name,
        names.LABEL_SESSION_UID: session.metadata.uid,
        names.LABEL_TENANT: session.spec.tenant,
    }
