"""What the operator is told at its start."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from whatsapp_operator.api import names
from whatsapp_operator.kube.lease import LeaseTimes

_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class ClaimScope(StrEnum):
    """Within what a phone can be claimed once."""

    TENANT = "Tenant"
    CLUSTER = "Cluster"


@dataclass(frozen=True, slots=True)
class MaxUnavailable:
    """How many sessions a rollout may have taken down at the same time: a number, or a percentage of those that run."""

    amount: int = 5
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> "MaxUnavailable":
        """Of "5" or "10%". Raises ValueError."""
        found = cls(int(text.removesuffix("%")), text.endswith("%"))
        if found.amount < 0 or (found.percent and found.amount > 100):
            raise ValueError(f"{text} is neither a number from 0 nor a percentage")
        return found

    def of(self, running: int) -> int:
        """A percentage is rounded down, but never to nothing unless it is 0."""
        return max(1, running * self.amount // 100) if self.percent and self.amount else self.amount


@dataclass(frozen=True, slots=True)
class AllowLists:
    """What spec.template may ask for beyond the defaults; empty means nothing."""

    images: frozenset[str] = frozenset()
    priority_classes: frozenset[str] = frozenset()
    toleration_keys: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Options:
    """What plans depend on; the same for every session.

    Attributes:
        claim_key: key of the hash that names phone claims, at least 16 bytes.
        session_log_level: WHATSAPP_LOG_LEVEL of the session pods.
    """

    session_image: str
    version: str
    claim_key: bytes = field(repr=False)
    claim_scope: ClaimScope = ClaimScope.TENANT
    allow: AllowLists = field(default_factory=AllowLists)
    session_log_level: str = "info"


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole command line.

    Attributes:
        watch_namespaces: the namespaces served; empty means all.
        rollout_delay: seconds for which a new leader leaves pods of another revision alone.
    """

    options: Options
    namespace: str
    identity: str
    watch_namespaces: tuple[str, ...] = ()
    kubeconfig: Path | None = None
    context: str | None = None
    http_host: str = "0.0.0.0"  # noqa: S104 - probes and Prometheus come from outside the pod
    http_port: int = names.OPERATOR_HTTP_PORT
    log_format: str = "json"
    log_level: str = "info"
    workers: int = 16
    resync_seconds: float = 600.0
    object_metrics: bool = True
    max_unavailable: MaxUnavailable = field(default_factory=MaxUnavailable)
    rollout_delay: float = 30.0
    lease: LeaseTimes = field(default_factory=LeaseTimes)


def _own_namespace() -> str | None:
    return _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.is_file() else None


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _claim_key(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except OSError as error:
        raise SystemExit(f"--claim-key-file: {error}") from error
    if len(key) < 16:
        raise SystemExit(f"--claim-key-file: {path} holds {len(key)} bytes, at least 16 are needed")
    return key


def parse(arguments: Sequence[str], *, version: str) -> Settings:
    """Read the command line; every option may also come from the environment, as WHATSAPP_OPERATOR_<OPTION>.

    Raises:
        SystemExit: an argument is missing or wrong; the message says which.
    """

    def environment(option: str, default: str | None = None) -> str | None:
        return os.environ.get(f"WHATSAPP_OPERATOR_{option.upper().replace('-', '_')}", default)

    parser = argparse.ArgumentParser(prog="whatsapp-operator", description="Operator for WhatsAppSessions.")

    def option(name: str, default: str | None, explanation: str, choices: Sequence[str] | None = None) -> None:
        parser.add_argument(f"--{name}", default=environment(name, default), help=explanation, choices=choices)

    option("session-image", None, "image of the session pods")
    option("namespace", _own_namespace(), "the operator's own namespace, for its lease and the phone claims")
    option("identity", os.environ.get("POD_NAME") or f"{os.uname().nodename}-{os.getpid()}", "name in the lease")
    option("claim-key-file", None, "file whose bytes key the names of phone claims")
    option("claim-scope", ClaimScope.TENANT, "a phone is claimed once within this", choices=list(ClaimScope))
    option("watch-namespaces", "", "namespaces to serve, separated by commas; empty for all")
    option("kubeconfig", os.environ.get("KUBECONFIG"), "kubeconfig file; without it the pod's service account")
    option("context", None, "context of the kubeconfig")
    option("http-host", "0.0.0.0", "address of /healthz, /readyz and /metrics")  # noqa: S104
    option("http-port", str(names.OPERATOR_HTTP_PORT), "port of the same")
    option("log-format", "json", "form of the log", choices=("json", "console"))
    option("log-level", "info", "least level of the log", choices=("debug", "info", "warning", "error"))
    option("session-log-level", "info", "the same of the session pods", choices=("debug", "info", "warning", "error"))
    option("workers", "16", "sessions reconciled at the same time")
    option("resync-seconds", "600", "period of the comparison with the API server that finds missed events")
    option("max-unavailable", "5", "sessions that a rollout takes down at the same time: a number or percentage")
    option("rollout-delay-seconds", "30", "for so long a new leader leaves pods of another revision alone")
    option("object-metrics", "true", "one gauge per condition of each session", choices=("true", "false"))
    option("lease-seconds", "9", "a leader not heard of for so long is replaced")
    option("allow-images", "", "values allowed for spec.template.image, separated by commas")
    option("allow-priority-classes", "", "values allowed for spec.template.priorityClassName")
    option("allow-toleration-keys", "", "keys allowed in spec.template.tolerations")
    found = parser.parse_args(arguments)

    for needed in ("session_image", "namespace", "claim_key_file"):
        if not getattr(found, needed):
            parser.error(f"--{needed.replace('_', '-')} is needed")
    try:
        duration = float(found.lease_seconds)
        port, workers, resync = int(found.http_port), int(found.workers), float(found.resync_seconds)
        max_unavailable, delay = MaxUnavailable.parse(found.max_unavailable), float(found.rollout_delay_seconds)
    except ValueError as error:
        parser.error(str(error))
    if workers < 1 or duration < 2 or resync <= 0:
        parser.error("--workers must be at least 1, --lease-seconds at least 2, --resync-seconds above 0")
    if not delay >= 0:
        parser.error("--rollout-delay-seconds must be at least 0")
    return Settings(
        options=Options(
            session_image=found.session_image,
            version=version,
            claim_key=_claim_key(Path(found.claim_key_file)),
            claim_scope=ClaimScope(found.claim_scope),
            allow=AllowLists(
                images=frozenset(_names(found.allow_images)),
                priority_classes=frozenset(_names(found.allow_priority_classes)),
                toleration_keys=frozenset(_names(found.allow_toleration_keys)),
            ),
            session_log_level=found.session_log_level,
        ),
        namespace=found.namespace,
        identity=found.identity,
        watch_namespaces=_names(found.watch_namespaces),
        kubeconfig=Path(found.kubeconfig) if found.kubeconfig else None,
        context=found.context,
        http_host=found.http_host,
        http_port=port,
        log_format=found.log_format,
        log_level=found.log_level,
        workers=workers,
        resync_seconds=resync,
        object_metrics=found.object_metrics == "true",
        max_unavailable=max_unavailable,
        rollout_delay=delay,
        lease=LeaseTimes(duration=duration, deadline=duration * 2 / 3, retry=duration / 6),
    )
