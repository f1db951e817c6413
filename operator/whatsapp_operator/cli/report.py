"""`kubectl wa report`: what somebody else needs to find a fault, and nothing that is a secret, as a tar."""

import io
import json
import platform
import re
import tarfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final

from whatsapp_operator import __version__
from whatsapp_operator.api import names
from whatsapp_operator.cli import doctor, redact
from whatsapp_operator.cli.cluster import Cluster
from whatsapp_operator.cli.doctor import DEPLOYMENTS, OPERATOR, Doctor
from whatsapp_operator.cli.refusals import explain
from whatsapp_operator.cli.words import count
from whatsapp_operator.kube.client import EVENTS, PERSISTENT_VOLUME_CLAIMS, PODS, SESSIONS, Object
from whatsapp_operator.kube.errors import KubeError, NotFoundError

# The newest; `limitBytes` would keep the oldest. The kubelet bounds the bytes: it begins a new file at 10Mi.
LOG_LINES: Final = 10_000
_LABEL: Final = re.compile(r'[{,](\w+)="([^"]*)"')
_ABOUT: Final = """\
Made by kubectl wa report {version} at {now} of {what}.

versions.yaml          Kubernetes, operator, plugin
doctor.json            what kubectl wa doctor found
operator/              Deployment, and of each replica the log and the metrics
sessions/<name>/       the WhatsAppSession, its pod, volume claim and events; the log of the pod (before: of
                       the container that ended before) and its metrics
not-collected.txt      what could not be read, and why

The Secrets were not read. Masked as <kind>: phone numbers, addresses of accounts and devices (JIDs), names of
accounts, QR texts, pairing codes, keys, tokens, user and password in URLs. Look at it before you give it away:
names of sessions, tenants, namespaces, nodes and images are in it.
"""


@dataclass(slots=True)
class Bundle:
    """Files by name, and what could not be collected."""

    files: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    async def add(self, name: str, read: Callable[[], Awaitable[str]]) -> None:
        """The file as `read` gives it, redacted already."""
        try:
            self.files[name] = await read()
        except KubeError as error:
            self.miss(name, error)

    def miss(self, name: str, error: KubeError) -> None:
        why = "it is not there" if isinstance(error, NotFoundError) else redact.text(explain(error).message)
        self.missing.append(f"{name}: {why}")

    def pack(self, folder: str, now: datetime) -> bytes:
        """A tar, compressed; every file in one folder."""
        files = {**self.files}
        if self.missing:
            files["not-collected.txt"] = "\n".join(self.missing) + "\n"
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, text in sorted(files.items()):
                content = text.encode()
                about = tarfile.TarInfo(f"{folder}/{name}")
                about.size, about.mtime, about.mode = len(content), int(now.timestamp()), 0o600
                tar.addfile(about, io.BytesIO(content))
        return buffer.getvalue()


async def collect(cluster: Cluster, wanted: Sequence[str], operator_namespace: str) -> Bundle:
    """The named sessions of the namespace, all of them if none is named.

    Raises:
        KubeError: none of the sessions can be read.
    """
    bundle, now = Bundle(), await cluster.now()
    if wanted:
        sessions = await _named(bundle, cluster, wanted)
    else:
        sessions, _ = await cluster.sessions()
    what = ", ".join(wanted) or "all sessions"
    bundle.files["README.txt"] = _ABOUT.format(
        version=__version__, now=f"{now:%Y-%m-%d %H:%M:%SZ}", what=f"{what} in namespace {cluster.namespace}"
    )
    physician = Doctor(cluster, operator_namespace)
    found = {"cluster": doctor.document(await physician.cluster()), "sessions": {}}
    for session in sessions:
        name = session["metadata"]["name"]
        found["sessions"][name] = doctor.document(await physician.session(name))
        await _session(bundle, cluster, session)
    bundle.files["doctor.json"] = redact.text(json.dumps(found, indent=2))
    keys = {f"{cluster.namespace}/{session['metadata']['name']}" for session in sessions}
    await _operator(bundle, cluster, operator_namespace, keys)
    return bundle


async def _named(bundle: Bundle, cluster: Cluster, wanted: Sequence[str]) -> list[Object]:
    found: list[Object] = []
    failed: list[KubeError] = []
    for name in wanted:
        try:
            found.append(await cluster.session(name))
        except KubeError as error:
            failed.append(error)
            bundle.miss(f"sessions/{name}", error)
    if failed and not found:
        raise failed[0]
    return found


async def _session(bundle: Bundle, cluster: Cluster, session: Object) -> None:
    name = session["metadata"]["name"]
    folder, owned, client = f"sessions/{name}", names.owned_name(name), cluster.client
    bundle.files[f"{folder}/session.yaml"] = redact.document(session)
    await bundle.add(f"{folder}/pod.yaml", lambda: _object(client.get(PODS, cluster.namespace, owned)))
    await bundle.add(
        f"{folder}/claim.yaml", lambda: _object(client.get(PERSISTENT_VOLUME_CLAIMS, cluster.namespace, owned))
    )
    await bundle.add(f"{folder}/events.yaml", lambda: _events(cluster, {name, owned}))
    path = PODS.path(cluster.namespace, owned)
    container = names.SESSION_CONTAINER
    await bundle.add(f"{folder}/session.log", lambda: _log(cluster, path, container=container))
    await bundle.add(f"{folder}/session-before.log", lambda: _log(cluster, path, container=container, previous="true"))
    proxied = PODS.path(cluster.namespace, f"{owned}:{names.SESSION_HTTP_PORT}", "proxy/metrics")
    await bundle.add(f"{folder}/session.prom", lambda: _metrics(cluster, proxied))


async def _operator(bundle: Bundle, cluster: Cluster, namespace: str, keys: set[str]) -> None:
    deployments: list[Object] = []
    pods: list[Object] = []

    async def read_deployments() -> str:
        nonlocal deployments
        deployments, _ = await cluster.listed(DEPLOYMENTS, namespace, label_selector=OPERATOR)
        return redact.document(deployments)

    async def read_pods() -> str:
        nonlocal pods
        pods, _ = await cluster.listed(PODS, namespace, label_selector=OPERATOR)
        return redact.document(pods)

    await bundle.add("operator/deployment.yaml", read_deployments)
    await bundle.add("operator/pods.yaml", read_pods)
    await bundle.add("versions.yaml", lambda: _versions(cluster, deployments))
    for pod in pods:
        name = pod["metadata"]["name"]
        path = PODS.path(namespace, name)
        await bundle.add(f"operator/{name}.log", partial(_operator_log, bundle, cluster, name, path, keys))
        proxied = PODS.path(namespace, f"{name}:{names.OPERATOR_HTTP_PORT}", "proxy/metrics")
        await bundle.add(f"operator/{name}.prom", partial(_metrics, cluster, proxied, keys))


async def _object(read: Awaitable[Object]) -> str:
    return redact.document(await read)


async def _events(cluster: Cluster, about: set[str]) -> str:
    found, _ = await cluster.listed(EVENTS, cluster.namespace)
    ours = [event for event in found if (event.get("regarding") or {}).get("name") in about]
    return redact.document(ours)


async def _log(cluster: Cluster, path: str, **query: str) -> str:
    return redact.text(await cluster.text(f"{path}/log", tailLines=str(LOG_LINES), timestamps="true", **query))


async def _operator_log(bundle: Bundle, cluster: Cluster, name: str, path: str, keys: set[str]) -> str:
    """Without the lines that are, or may be, about other sessions."""
    lines = (await cluster.text(f"{path}/log", tailLines=str(LOG_LINES))).splitlines()
    about = [_about(line) for line in lines]
    if silent := about.count(None):
        # As of the form for a console, or of a trace from before the log was set up.
        bundle.missing.append(
            f"operator/{name}.log: {count(silent, 'line')} without fields, which may be about other sessions"
        )
    return redact.text("\n".join(line for line, key in zip(lines, about, strict=True) if key in ("", *keys)))


def _about(line: str) -> str | None:
    """The session that a line of the operator's log is about, empty for none; None where the line does not say."""
    try:
        entry: Any = json.loads(line)
    except ValueError:
        return None
    return str(entry.get("session") or "") if isinstance(entry, dict) else None


async def _metrics(cluster: Cluster, path: str, keys: set[str] | None = None) -> str:
    """Of the operator without the series of other sessions."""
    lines = redact.metrics(await cluster.text(path)).split("\n")
    if keys is not None:
        lines = [line for line in lines if _series_concerns(line, keys)]
    return "\n".join(lines)


def _series_concerns(line: str, keys: set[str]) -> bool:
    labels = dict(_LABEL.findall(line)) if not line.startswith("#") else {}
    return not {"namespace", "name"} <= labels.keys() or f"{labels['namespace']}/{labels['name']}" in keys


async def _versions(cluster: Cluster, deployments: Sequence[Object]) -> str:
    server = await cluster.json("/version")
    images = [
        container["image"]
        for deployment in deployments
        for container in deployment["spec"]["template"]["spec"]["containers"]
    ]
    found = {
        "kubernetes": server.get("gitVersion"),
        "platform": server.get("platform"),
        "operator": images,
        "plugin": __version__,
        "python": platform.python_version(),
        "definition": f"{SESSIONS.group}/{SESSIONS.version}",
    }
    return redact.document(found)
