"""What `kubectl wa link` is told about a session that is to be made."""

from dataclasses import dataclass
from typing import Any

from whatsapp_operator.api import names
from whatsapp_operator.api.reasons import PairingMethod
from whatsapp_operator.cli.exits import CliError, Exit
from whatsapp_operator.cli.reading import Session
from whatsapp_operator.kube.client import Object


@dataclass(frozen=True, slots=True)
class Wish:
    """Fields of spec by their meaning; None is left to the definition's default."""

    tenant: str | None = None
    phone: str | None = None
    method: PairingMethod | None = None
    attempts: int | None = None
    display_name: str | None = None
    proxy: str | None = None
    proxy_secret: str | None = None
    ca_secret: str | None = None
    ca_config_map: str | None = None
    storage_class: str | None = None
    size: str | None = None

    def spec(self) -> dict[str, Any]:
        """The parts that were asked for."""
        found = {
            "tenant": self.tenant,
            "phone": self.phone,
            "pairing": _without_none(method=self.method, attempts=self.attempts, displayName=self.display_name),
            "proxy": _without_none(url=self.proxy, secretRef=_reference(self.proxy_secret, "--proxy-secret")),
            "caBundle": _without_none(
                secretRef=_reference(self.ca_secret, "--ca-secret"),
                configMapRef=_reference(self.ca_config_map, "--ca-configmap"),
            ),
            "storage": _without_none(storageClassName=self.storage_class, size=self.size),
        }
        return {key: value for key, value in found.items() if value}

    def manifest(self, name: str, namespace: str) -> Object:
        """The session as it is created.

        Raises:
            CliError: it is not said whose it is, or a reference cannot be read.
        """
        if self.tenant is None:
            raise CliError(
                f"there is no session {name} in namespace {namespace}",
                "To make it, say whose it is by --tenant, and which number by --phone (or let any phone scan).",
                code=Exit.USAGE,
            )
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name, "namespace": namespace},
            "spec": self.spec(),
        }

    def check(self, session: Session) -> None:
        """That the session is as asked for, as `link` changes no spec.

        Raises:
            CliError: names the field.
        """
        for path, wanted in _leaves(self.spec()):
            found: Any = session.spec
            for key in path:
                found = (found or {}).get(key)
            if found != wanted:
                field = ".".join(("spec", *path))
                raise CliError(
                    f"session {session.name} exists with another {field}: {found or 'none'} instead of {wanted}",
                    f"Leave the option out, or change the session first: kubectl edit was {session.name}"
                    f" -n {session.namespace}",
                    code=Exit.USAGE,
                )


def _without_none(**found: Any) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, PairingMethod) else value for key, value in found.items() if value}


def _reference(text: str | None, option: str) -> dict[str, str] | None:
    if text is None:
        return None
    name, slash, key = text.partition("/")
    if not (slash and name and key):
        raise CliError(f"{option} takes NAME/KEY: the object and the key in it", code=Exit.USAGE)
    return {"name": name, "key": key}


def _leaves(found: dict[str, Any], *path: str) -> list[tuple[tuple[str, ...], Any]]:
    leaves: list[tuple[tuple[str, ...], Any]] = []
    for key, value in found.items():
        leaves += _leaves(value, *path, key) if isinstance(value, dict) else [((*path, key), value)]
    return leaves
