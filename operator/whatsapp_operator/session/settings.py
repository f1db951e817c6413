"""What the pod is told by its environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from whatsapp_operator.api import names


class SettingsError(ValueError):
    """The environment lacks something, or holds what cannot be used; the text names the variable."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The paths are those of the pod; local runs and tests pass their own."""

    namespace: str
    session: str
    tenant: str
    pod_uid: str
    """Of the pod; `session_uid` is that of the session object, None under an operator that does not tell it."""
    api_host: str
    api_port: int
    session_uid: str | None = None
    proxy_url: str | None = field(default=None, repr=False)
    log_level: str = "INFO"
    data_dir: Path = Path(names.DATA_DIR)
    desired_file: Path = Path(names.DESIRED_DIR) / names.DESIRED_FILE
    ca_dir: Path = Path(names.CA_DIR)
    service_account_dir: Path = Path(names.SERVICE_ACCOUNT_DIR)
    message_socket: Path = Path(names.MESSAGE_SOCKET)
    http_host: str = ""
    http_port: int = names.SESSION_HTTP_PORT

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Raises SettingsError."""

        def required(name: str) -> str:
            value = environment.get(name, "")
            if not value:
                raise SettingsError(f"{name} is not set")
            return value

        level = environment.get(names.ENV_LOG_LEVEL, "INFO").upper()
        if level not in names.LOG_LEVELS:
            raise SettingsError(f"{names.ENV_LOG_LEVEL} is none of {', '.join(names.LOG_LEVELS)}")
        port = required("KUBERNETES_SERVICE_PORT")
        if not port.isdecimal():
            raise SettingsError("KUBERNETES_SERVICE_PORT is not a number")
        return cls(
            namespace=required(names.ENV_NAMESPACE),
            session=required(names.ENV_SESSION),
            tenant=required(names.ENV_TENANT),
            pod_uid=required(names.ENV_POD_UID),
            api_host=required("KUBERNETES_SERVICE_HOST"),
            api_port=int(port),
            session_uid=environment.get(names.ENV_SESSION_UID) or None,
            # An empty one is a Secret without a URL, and not the wish to go without a proxy.
            proxy_url=environment.get(names.ENV_PROXY_URL),
            log_level=level,
        )
