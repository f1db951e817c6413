"""`kubectl wa doctor`: the links between a person's wish and a connected session, one after the other."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final

from rich.text import Text

from whatsapp_operator import __version__
from whatsapp_operator.api import names
from whatsapp_operator.api.crd import schema_of
from whatsapp_operator.api.models import WhatsAppSessionSpec, WhatsAppSessionStatus
from whatsapp_operator.api.reasons import ConditionType, Reason
from whatsapp_operator.cli.cluster import Cluster
from whatsapp_operator.cli.output import Format, Output
from whatsapp_operator.cli.reading import Session, command_of
from whatsapp_operator.cli.refusals import missing_right
from whatsapp_operator.cli.words import age, ago, count, parse_time, plain
from whatsapp_operator.kube.client import LEASES, PERSISTENT_VOLUME_CLAIMS, PODS, SECRETS, SESSIONS, Object, Resource
from whatsapp_operator.kube.errors import ForbiddenError, KubeError, NotFoundError

LEAST_VERSION: Final = (1, 32)
OPERATOR_NAMESPACE: Final = "whatsapp-operator-system"
# Of its Deployment and its pods, whatever the release is called.
OPERATOR: Final = f"{names.LABEL_APP_PART_OF}=whatsapp-operator,{names.LABEL_APP_COMPONENT}=controller"
# A pod reports a change within a second; it says nothing for as long as nothing changes.
_LEASE_GRACE: Final = timedelta(seconds=5)
# So long a pod may take to start, once it was made or has moved, before that is a fault.
_START_GRACE: Final = timedelta(seconds=60)
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments")
EVERY_POLICY: Final = Resource("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies")
BINDINGS: Final = Resource("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings")
STORAGE_CLASSES: Final = Resource("storage.k8s.io", "v1", "storageclasses")
VOLUMES: Final = Resource("", "v1", "persistentvolumes")
_DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"


class Result(StrEnum):
    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"
    # The right to look is missing.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """One link: what was looked at, what was found, and what to do about it."""

    name: str
    result: Result
    found: str
    remedy: str = ""
    command: str = ""


def first_broken(checks: list[Check]) -> Check | None:
    """The link at fault: what comes after it follows from it."""
    return next((check for check in checks if check.result is Result.BROKEN), None)


_STYLES: Final = {Result.OK: "green", Result.WARNING: "yellow", Result.BROKEN: "bold red", Result.UNKNOWN: "dim"}


def show(output: Output, checks: list[Check], form: Format | None) -> None:
    broken = first_broken(checks)
    if form in (Format.JSON, Format.YAML):
        output.document(document(checks), form)
        return
    rows: list[list[str | Text]] = [
        [check.name, Text(check.result, _STYLES[check.result]), check.found] for check in checks
    ]
    output.table(("LINK", "STATE", "FOUND"), rows, last_wraps=True)
    for check in checks:
        if (check.remedy or check.command) and check.result is not Result.OK:
            output.line()
            output.line(Text.assemble((check.name, _STYLES[check.result]), f": {plain(check.remedy)}".rstrip()))
            if check.command:
                output.line(f"  {check.command}", whole=True)
    output.line()
    if broken is None:
        unknown = [check.name for check in checks if check.result is Result.UNKNOWN]
        output.line("No link is broken." + (f" Not looked at: {', '.join(unknown)}." if unknown else ""))
    else:
        output.line(Text.assemble("The broken link: ", (broken.name, "bold red"), "."))


def document(checks: list[Check]) -> dict[str, Any]:
    broken = first_broken(checks)
    return {
        "broken": broken.name if broken is not None else None,
        "checks": [
            {
                "name": check.name,
                "result": str(check.result),
                "found": check.found,
                "remedy": check.remedy,
                "command": check.command,
            }
            for check in checks
        ],
    }


class Doctor:
    def __init__(self, cluster: Cluster, operator_namespace: str) -> None:
        self._cluster = cluster
        self._operator_namespace = operator_namespace

    async def cluster(self, session: str | None = None) -> list[Check]:
        """What every session needs; your rights are those on the session, if one is named."""
        checks = [await self._guarded("API server", self._server)]
        if checks[0].result is Result.BROKEN:
            return checks
        for name, look in (
            ("definition", self._definition),
            ("your rights", lambda: self._rights(session)),
            ("admission policies", self._policies),
            ("operator", self._operator),
            ("leader", self._leader),
            ("storage class", self._storage_class),
        ):
            checks.append(await self._guarded(name, look))
        return checks

    async def session(self, name: str) -> list[Check]:
        """The chain of one session."""
        namespace = self._cluster.namespace
        try:
            session = Session(await self._cluster.session(name))
        except NotFoundError:
            command = f"kubectl wa link {name} -n {namespace} --tenant TENANT"
            found = f"there is no {name} in namespace {namespace}"
            return [Check("session", Result.BROKEN, found, "Make it:", command)]
        except KubeError as error:
            return [_not_seen("session", error)]
        now = await self._cluster.now()
        checks = [accepted(session), claimed(session)]
        volume = await self._owned("volume", PERSISTENT_VOLUME_CLAIMS, session)
        if not isinstance(volume, Check):
            volume = await self._guarded("volume", partial(self._volume, session, volume))
        checks.append(volume)
        secret = await self._owned("secret", SECRETS, session)
        checks.append(secret if isinstance(secret, Check) else Check("secret", Result.OK, f"{_named(secret)} is there"))
        pod = await self._owned("pod", PODS, session)
        checks.append(pod if isinstance(pod, Check) else pod_runs(session, pod, now))
        checks.append(reported(session, None if isinstance(pod, Check) else pod, now))
        return [*checks, *conditions(session)]

    async def _guarded(self, name: str, look: Callable[[], Awaitable[Check]]) -> Check:
        try:
            return await look()
        except KubeError as error:
            return _not_seen(name, error)

    async def _owned(self, link: str, resource: Resource, session: Session) -> Object | Check:
        """The object that belongs to the session, or what is wrong with it."""
        owned = names.owned_name(session.name)
        try:
            body = await self._cluster.client.get(resource, session.namespace, owned)
        except NotFoundError:
            return absent(link, session, await self._cluster.now())
        except KubeError as error:
            return _not_seen(link, error)
        uid = (body["metadata"].get("labels") or {}).get(names.LABEL_SESSION_UID)
        if uid != session.uid:
            kind = resource.plural.removesuffix("s")
            command = f"kubectl delete {kind} {owned} -n {session.namespace}"
            found = f"{owned} exists and belongs to something else"
            return Check(link, Result.BROKEN, found, "Delete it if it is not needed:", command)
        return body

    async def _volume(self, session: Session, claim: Object) -> Check:
        state, spec = claim.get("status") or {}, claim.get("spec") or {}
        phase = state.get("phase", "Pending")
        if phase == "Bound":
            size = (state.get("capacity") or {}).get("storage", "?")
            modes = ", ".join(state.get("accessModes") or ())
            where = f"{_named(claim)} is bound to {spec.get('volumeName')}, {size}, {modes}"
            try:
                volume = await self._cluster.client.get(VOLUMES, None, str(spec.get("volumeName")))
            except ForbiddenError:
                return Check("volume", Result.OK, where)
            except NotFoundError:
                return Check("volume", Result.BROKEN, f"{where}, which is gone", "Restore the volume from a backup.")
            bad = (volume.get("status") or {}).get("phase") == "Failed"
            return Check("volume", Result.BROKEN if bad else Result.OK, where)
        asked = spec.get("storageClassName")
        if phase == "Lost":
            return Check("volume", Result.BROKEN, f"{_named(claim)} has lost its volume", "Restore it from a backup.")
        ready = session.condition(ConditionType.POD_READY)
        command = f"kubectl describe pvc {_named(claim)} -n {session.namespace}"
        if asked is None:
            return Check(
                "volume",
                Result.BROKEN,
                f"{_named(claim)} waits: it names no storage class and the cluster had no default",
                "Set spec.storage.storageClassName, or mark a StorageClass as the default.",
            )
        try:
            found = await self._cluster.client.get(STORAGE_CLASSES, None, asked)
            binds_late = found.get("volumeBindingMode") == "WaitForFirstConsumer"
        except NotFoundError:
            return Check(
                "volume",
                Result.BROKEN,
                f"{_named(claim)} waits for the storage class {asked}, which does not exist",
                "Set spec.storage.storageClassName to one that kubectl get storageclass lists.",
            )
        except KubeError:
            binds_late = False
        broken = ready.reason == Reason.VOLUME_PENDING and not binds_late
        waits = "a pod to be scheduled" if binds_late else "its provisioner"
        result = Result.BROKEN if broken else Result.WARNING
        return Check("volume", result, f"{_named(claim)} waits for {waits} ({asked})", "Its events tell more:", command)

    async def _server(self) -> Check:
        found = await self._cluster.json("/version")
        text = str(found.get("gitVersion"))
        digits = [int("".join(filter(str.isdigit, str(found.get(part)))) or 0) for part in ("major", "minor")]
        least = ".".join(map(str, LEAST_VERSION))
        if tuple(digits) < LEAST_VERSION:
            return Check("API server", Result.BROKEN, f"Kubernetes {text}", f"At least {least} is needed: upgrade.")
        return Check("API server", Result.OK, f"Kubernetes {text}, {least} or newer is needed")

    async def _definition(self) -> Check:
        # Discovery is open to everybody who is known; the definition itself is not.
        try:
            group = await self._cluster.json(f"/apis/{names.GROUP}")
        except NotFoundError:
            remedy = "Install the operator; its chart brings the definition."
            return Check("definition", Result.BROKEN, "WhatsAppSession is not defined in this cluster", remedy)
        served = [found["version"] for found in group.get("versions") or ()]
        if names.VERSION not in served:
            remedy = "Use the plugin of the operator's version."
            return Check(
                "definition", Result.BROKEN, f"serves {', '.join(served)}, the plugin knows {names.VERSION}", remedy
            )
        try:
            published = await self._cluster.json(f"/openapi/v3/apis/{names.API_VERSION}")
        except KubeError:
            return Check("definition", Result.OK, f"{names.VERSION} is served")
        lacking = sorted(fields_known() - fields_of(published))
        if lacking:
            some = ", ".join(lacking[:3]) + (" ..." if len(lacking) > 3 else "")
            remedy = (
                "Apply the definition of the operator's version; Helm does not upgrade it where crds.install=false."
            )
            return Check("definition", Result.WARNING, f"is older than the plugin: it lacks {some}", remedy)
        return Check("definition", Result.OK, f"{names.VERSION} is served, with every field that the plugin knows")

    async def _rights(self, session: str | None) -> Check:
        namespace = self._cluster.namespace
        named = {"secrets": names.owned_name(session), "pods": names.owned_name(session)} if session else {}
        if session:
            named[SESSIONS.plural] = session
        needs: tuple[tuple[str, str, Resource, str], ...] = (
            ("list, status", "list", SESSIONS, ""),
            ("qr, code, link", "get", SECRETS, ""),
            ("link of a new session", "create", SESSIONS, ""),
            ("relink, suspend, resume", "patch", SESSIONS, ""),
            ("logs", "get", PODS, "log"),
        )
        lacking = []
        for commands, verb, resource, subresource in needs:
            name = "" if verb in ("list", "create") else named.get(resource.plural, "")
            if not await self._cluster.may(verb, resource, namespace, name=name, subresource=subresource):
                kind = f"{resource.plural}/{subresource}" if subresource else resource.plural
                lacking.append(f"{verb} {kind} (for {commands})")
        if not lacking:
            return Check("your rights", Result.OK, f"every command may be used in namespace {namespace}")
        remedy = "Ask an administrator for what you need; the plugin's page in the documentation has a Role."
        result = Result.BROKEN if "list, status" in lacking[0] else Result.WARNING
        return Check("your rights", result, f"in namespace {namespace} you lack {'; '.join(lacking)}", remedy)

    async def _policies(self) -> Check:
        found = {item["metadata"]["name"] for item in (await self._cluster.listed(EVERY_POLICY, None))[0]}
        bound = {
            item["spec"]["policyName"]
            for item in (await self._cluster.listed(BINDINGS, None))[0]
            if "Deny" in (item["spec"].get("validationActions") or ())
        }
        lacking = [policy for policy in names.ADMISSION_POLICIES if policy not in found or policy not in bound]
        if lacking:
            remedy = "Install them with the chart (admissionPolicies.install); the operator does not run without them."
            return Check("admission policies", Result.BROKEN, f"not in force: {', '.join(lacking)}", remedy)
        return Check("admission policies", Result.OK, f"all {len(names.ADMISSION_POLICIES)} are bound and deny")

    async def _operator(self) -> Check:
        namespace = self._operator_namespace
        found, _ = await self._cluster.listed(DEPLOYMENTS, namespace, label_selector=OPERATOR)
        if not found:
            remedy = "Install the operator, or name its namespace by --operator-namespace."
            return Check("operator", Result.BROKEN, f"there is no Deployment of it in namespace {namespace}", remedy)
        return operator_runs(found[0])

    async def _leader(self) -> Check:
        try:
            lease = await self._cluster.client.get(LEASES, self._operator_namespace, names.LEADER_LEASE)
        except NotFoundError:
            return Check("leader", Result.BROKEN, "no operator has ever led", *_operator_log(self._operator_namespace))
        return leads(lease, await self._cluster.now(), self._operator_namespace)

    async def _storage_class(self) -> Check:
        found, _ = await self._cluster.listed(STORAGE_CLASSES, None)
        return storage(found)


def _not_seen(name: str, error: KubeError) -> Check:
    lacking = missing_right(error) if isinstance(error, ForbiddenError) else None
    if lacking is not None:
        return Check(name, Result.UNKNOWN, f"you lack the right to {lacking[0]}")
    return Check(name, Result.BROKEN, error.message)


def _operator_log(namespace: str) -> tuple[str, str]:
    """Remedy and command."""
    return "Its log tells why, or the events of its pods:", f"kubectl logs -n {namespace} -l {OPERATOR} --prefix"


def _named(found: Object) -> str:
    return str(found["metadata"]["name"])


def accepted(session: Session) -> Check:
    """Whether the operator works on the object as it is."""
    if session.paused:
        command = f"kubectl annotate was {session.name} -n {session.namespace} {names.ANNOTATION_PAUSED}-"
        found = f"the annotation {names.ANNOTATION_PAUSED} holds it back"
        return Check("session", Result.BROKEN, found, "Take it away:", command)
    if session.deleting:
        return Check("session", Result.WARNING, "it is being deleted")
    if session.untouched:
        remedy = "See the links operator and leader; or the operator does not serve this namespace (watchNamespaces)."
        return Check("session", Result.BROKEN, "no operator has looked at it", remedy)
    if not session.observed:
        remedy = "See the links operator and leader."
        return Check("session", Result.WARNING, "no operator has looked at its last change", remedy)
    return Check("session", Result.OK, f"the operator has looked at it, phase {session.phase}")


def claimed(session: Session) -> Check:
    """The phone's claim, as its condition tells it: the Lease is for the operator's eyes."""
    found = session.condition(ConditionType.PHONE_CLAIMED)
    if found.is_true:
        return Check("phone claim", Result.OK, found.reason)
    if found.reason in (Reason.HELD_BY_OTHER, Reason.PHONE_CLAIM_CONFLICT, Reason.INVALID_SPEC):
        return Check("phone claim", Result.BROKEN, f"{found.reason}: {found.message}", found.remedy)
    return Check("phone claim", Result.WARNING, f"{found.reason or 'not told yet'}: {found.message}".rstrip(": "))


def _starting(session: Session, now: datetime) -> Result:
    """What it is that something of the pod is missing: in its first seconds nothing but a matter of time."""
    why = session.condition(ConditionType.POD_READY)
    since = parse_time(why.since)
    young = since is not None and now - since < _START_GRACE
    return Result.WARNING if young and why.reason == Reason.POD_PENDING else Result.BROKEN


def absent(link: str, session: Session, now: datetime) -> Check:
    """A volume, Secret or pod that is not there."""
    owned = names.owned_name(session.name)
    # One that was made suspended has needed none of them yet.
    if session.suspended and (link == "pod" or not session.status.get("authPaired")):
        return Check(link, Result.OK, "none, as spec.suspend asks for")
    why = session.condition(ConditionType.POD_READY)
    found = f"there is no {owned}"
    if session.deleting:
        return Check(link, Result.WARNING, f"{found}: the session is being deleted")
    result = _starting(session, now)
    if why.reason and not why.is_true:
        return Check(link, result, f"{found}: {why.reason}: {why.message}", why.remedy)
    return Check(link, result, found, "The operator makes it; see the links operator and leader.")


def pod_runs(session: Session, pod: Object, now: datetime) -> Check:
    state = pod.get("status") or {}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in state.get("conditions") or ())
    container: dict[str, Any] = next(iter(state.get("containerStatuses") or ()), {})
    restarts = int(container.get("restartCount") or 0)
    node = (pod.get("spec") or {}).get("nodeName")
    where = f"{_named(pod)} is {state.get('phase', 'Pending')}" + (f" on {node}" if node else "")
    told = f"{where}, {count(restarts, 'restart')}, {age(now - _created(pod, now))} old"
    if ready:
        return Check("pod", Result.OK, told)
    why = session.condition(ConditionType.POD_READY)
    waiting = ((container.get("state") or {}).get("waiting") or {}).get("reason")
    about = f" ({waiting})" if waiting else ""
    command = command_of(why.reason, session.name, session.namespace)
    tail = "" if why.is_true else f": {why.reason}: {why.message}"
    describe = f"kubectl describe pod {_named(pod)} -n {session.namespace}"
    result = _starting(session, now)
    return Check("pod", result, f"{where}{about}{tail}", why.remedy, command or describe)


def _created(found: Object, now: datetime) -> datetime:
    return parse_time(found["metadata"].get("creationTimestamp")) or now


def reported(session: Session, pod: Object | None, now: datetime) -> Check:
    """The pod's own word, and whether it is that of the pod that is there."""
    report = session.part("session")
    unheard = (
        "Its log tells whether it reaches the API server:",
        f"kubectl wa logs {session.name} -n {session.namespace}",
    )
    if session.suspended:
        return Check("report", Result.OK, "none is due while the session is suspended")
    if not report.get("podUID"):
        return Check("report", _starting(session, now), "the session pod has not reported", *unheard)
    if pod is not None and report["podUID"] != pod["metadata"].get("uid"):
        return Check("report", _starting(session, now), "the last report is of an earlier pod", *unheard)
    return Check("report", Result.OK, f"{report.get('machine')}, {ago(report.get('reportedAt'), now)}")


def conditions(session: Session) -> Iterator[Check]:
    """What the session says of itself, as the last link."""
    stalled, ready = session.condition(ConditionType.STALLED), session.condition(ConditionType.READY)
    connected = session.condition(ConditionType.CONNECTED)
    if stalled.is_true:
        command = command_of(stalled.reason, session.name, session.namespace) or ""
        found = f"Stalled: {stalled.reason}: {stalled.message}"
        yield Check("conditions", Result.BROKEN, found, stalled.remedy, command)
    elif ready.is_true:
        yield Check("conditions", Result.OK, f"Ready: {ready.reason}")
    else:
        command = command_of(ready.reason, session.name, session.namespace) or ""
        found = f"not Ready: {ready.reason}: {ready.message}"
        fails = connected.status == "False" and connected.reason == ready.reason and ready.remedy != ""
        yield Check("conditions", Result.BROKEN if fails else Result.WARNING, found, ready.remedy, command)


def operator_runs(deployment: Object) -> Check:
    state, spec = deployment.get("status") or {}, deployment["spec"]
    wanted, ready = int(spec.get("replicas", 1)), int(state.get("readyReplicas") or 0)
    image = spec["template"]["spec"]["containers"][0]["image"]
    theirs = (deployment["metadata"].get("labels") or {}).get(names.LABEL_APP_VERSION)
    found = f"{ready} of {wanted} replicas ready, {image}"
    namespace = deployment["metadata"]["namespace"]
    if not ready:
        return Check("operator", Result.BROKEN, found, *_operator_log(namespace))
    if theirs and theirs != __version__:
        return Check("operator", Result.WARNING, f"{found}, version {theirs}; the plugin is {__version__}")
    return Check("operator", Result.OK if ready >= wanted else Result.WARNING, found)


def leads(lease: Object, now: datetime, namespace: str) -> Check:
    spec = lease.get("spec") or {}
    holder, renewed = spec.get("holderIdentity"), parse_time(spec.get("renewTime"))
    duration = timedelta(seconds=int(spec.get("leaseDurationSeconds") or 0)) + _LEASE_GRACE
    if not holder or renewed is None:
        return Check("leader", Result.BROKEN, "no operator leads", *_operator_log(namespace))
    if now - renewed > duration:
        found = f"{holder} was last heard of {age(now - renewed)} ago"
        return Check("leader", Result.BROKEN, found, *_operator_log(namespace))
    return Check("leader", Result.OK, f"{holder}, renewed {age(now - renewed)} ago")


def storage(classes: list[Object]) -> Check:
    """Whether sessions that name no class get a volume that one pod at a time can mount."""
    default = [item for item in classes if (item["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"]
    every = ", ".join(_named(item) for item in classes)
    if not classes:
        remedy = "Install a CSI driver and a StorageClass."
        return Check("storage class", Result.BROKEN, "there is none, so no volume is provisioned", remedy)
    if not default:
        remedy = "Mark one as the default, or set spec.storage.storageClassName in each session."
        return Check("storage class", Result.WARNING, f"none is the default; there are {every}", remedy)
    # Of several the newest counts.
    chosen = max(default, key=lambda item: str(item["metadata"].get("creationTimestamp", "")))
    provisioner = str(chosen.get("provisioner"))
    found = f"{_named(chosen)} ({provisioner}) is the default"
    if provisioner == "kubernetes.io/no-provisioner":
        remedy = "It provisions nothing: make a volume for each session by hand, or choose another class."
        return Check("storage class", Result.WARNING, found, remedy)
    if provisioner.startswith("kubernetes.io/"):
        remedy = (
            "In-tree provisioners do not all know ReadWriteOncePod: if a volume stays pending, set"
            " spec.storage.accessMode to ReadWriteOnce, or use a CSI driver."
        )
        return Check("storage class", Result.WARNING, found, remedy)
    grows = "volumes can grow" if chosen.get("allowVolumeExpansion") else "volumes cannot grow"
    return Check("storage class", Result.OK, f"{found}, {grows}")


def fields_known() -> set[str]:
    known = set(_paths(schema_of(WhatsAppSessionSpec), "spec"))
    return known | set(_paths(schema_of(WhatsAppSessionStatus), "status"))


def fields_of(published: Any) -> set[str]:
    for schema in ((published.get("components") or {}).get("schemas") or {}).values():
        kinds = schema.get("x-kubernetes-group-version-kind") or ()
        if any(kind.get("kind") == names.KIND for kind in kinds):
            properties = schema.get("properties") or {}
            return {path for part in ("spec", "status") for path in _paths(properties.get(part) or {}, part)}
    return set()


def _paths(schema: dict[str, Any], prefix: str) -> Iterator[str]:
    """Of every field of a structural schema."""
    for name, part in (schema.get("properties") or {}).items():
        yield f"{prefix}.{name}"
        yield from _paths(part.get("items") or part, f"{prefix}.{name}")
