"""Labels of everything that the operator makes."""

from whatsapp_operator.api import names
from whatsapp_operator.api.models import WhatsAppSession


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
