"""`kubectl wa status`."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from rich.text import Text

from whatsapp_operator.api.reasons import ConditionType, Reason
from whatsapp_operator.cli.cluster import Cluster
from whatsapp_operator.cli.output import Format, Output, either, phase, status
from whatsapp_operator.cli.reading import Condition, Session, command_of
from whatsapp_operator.cli.words import NOTHING, ago, count, plain, since

_LABEL: Final = 14
_INDENT: Final = "  "


async def show_one(cluster: Cluster, output: Output, name: str, form: Format | None) -> None:
    session = Session(await cluster.session(name))
    if form in (Format.JSON, Format.YAML):
        output.document(document(session), form)
        return
    write(output, session, await cluster.now(), wide=form is Format.WIDE)


async def show_all(cluster: Cluster, output: Output, *, everywhere: bool, form: Format | None) -> None:
    """How many sessions are in which phase, and those that are not Ready, with what to do."""
    found = [Session(item) for item in (await cluster.sessions(everywhere=everywhere))[0]]
    if form in (Format.JSON, Format.YAML):
        output.document({"sessions": [document(session) for session in found]}, form)
        return
    where = "in the cluster" if everywhere else f"in namespace {cluster.namespace}"
    output.line(summary(found, where))
    waiting = [session for session in found if not session.is_true(ConditionType.READY)]
    if waiting:
        output.line()
        now = await cluster.now()
        header = (*(["NAMESPACE"] if everywhere else []), "NAME", "PHASE", "REASON", "SINCE", "WHAT TO DO")
        output.table(header, [_attention(session, now, everywhere) for session in waiting], last_wraps=True)


def summary(found: Sequence[Session], where: str) -> Text:
    if not found:
        return Text(f"No sessions {where}.")
    line = Text(f"{count(len(found), 'session')} {where}: ")
    counted = Counter(session.phase for session in found).most_common()
    for index, (name, number) in enumerate(counted):
        line.append(", " if index else "").append(f"{number} ").append_text(phase(name))
    return line


def _attention(session: Session, now: datetime, everywhere: bool) -> list[str | Text]:
    ready = session.condition(ConditionType.READY)
    return [
        *([session.namespace] if everywhere else []),
        session.name,
        phase(session.phase),
        either(ready.reason),
        since(ready.since, now),
        either(session.remedy),
    ]


def write(output: Output, session: Session, now: datetime, *, wide: bool = False) -> None:
    """All that is known of one session."""
    head = (plain(session.name), "bold"), "  ", phase(session.phase), f"  (namespace {session.namespace})"
    output.line(Text.assemble(*head))
    output.line()
    for label, value in facts(session, now, wide=wide):
        output.line(Text.assemble(_INDENT, (f"{label:<{_LABEL}}", "dim"), plain(value)))
    if session.conditions:
        output.line()
        rows: list[list[str | Text]] = [
            [found.type, status(found.status, found.type), found.reason, since(found.since, now)]
            for found in session.conditions
        ]
        output.table(("CONDITION", "STATUS", "REASON", "SINCE"), rows)
    for found in told(session, everything=wide):
        output.line()
        output.line(Text(plain(found.reason), "bold"))
        output.paragraph(found.message, len(_INDENT))
        if found.remedy:
            output.paragraph(f"What to do: {found.remedy}", len(_INDENT))
            if command := command_of(found.reason, session.name, session.namespace):
                output.line(f"{_INDENT}{command}", whole=True)
    if history := session.part("session", "pairing").get("history"):
        output.line()
        header = ("ATTEMPT", "METHOD", "RESULT", "REASON", "SHOWN", "SCANNED", "CONNECTED", "ENDED")
        output.table(header, _history(history, now))


def told(session: Session, *, everything: bool) -> list[Condition]:
    """The conditions whose messages are worth reading, one of each reason, what a person must act on first."""
    found: dict[str, Condition] = {}
    for condition in sorted(session.conditions, key=lambda condition: condition.type != ConditionType.STALLED):
        abnormal = condition.is_true == (condition.type in (ConditionType.STALLED, ConditionType.RECONCILING))
        shown = condition.type == ConditionType.QR_READY and condition.is_true
        if everything or shown or (abnormal and condition.reason != Reason.NOT_NEEDED):
            found.setdefault(condition.reason, condition)
    return list(found.values())


def facts(session: Session, now: datetime, *, wide: bool = False) -> Iterator[tuple[str, str]]:
    """Label and text, in a fixed order."""
    spec, state = session.spec, session.status
    yield "tenant", either(spec.get("tenant")) + (", primary" if state.get("primary") else "")
    declared, linked = spec.get("phone"), state.get("phone")
    linked_text = "linked" if linked and linked == declared else f"linked as {linked}" if linked else "not linked"
    yield "phone", f"{declared}, {linked_text}" if declared else f"any, {linked_text}"
    yield "connection", _connection(session, now)
    credentials = session.part("session", "credentials")
    yield "credentials", _credentials(credentials, now)
    pairing = session.part("pairing")
    totals = f"{pairing.get('succeeded') or 0} succeeded, {pairing.get('failed') or 0} failed"
    yield "pairing", f"{session.method}, {totals}" + _window(session, now)
    yield "pod", _pod(session, wide=wide)
    if relink := session.part("relink"):
        done = relink.get("outcome")
        yield (
            "relink",
            f"{done} {ago(relink.get('completedAt'), now)}"
            if done
            else (
                f"asked for {ago(relink.get('requestedAt'), now)}, not done yet"
                if relink.get("requestedAt")
                else NOTHING
            ),
        )
    if rollout := session.part("rollout"):
        late = ", overdue" if rollout.get("overdue") else ""
        yield "rollout", f"its pod is being replaced since {ago(rollout.get('startedAt'), now)}{late}"
    if session.suspended:
        yield "suspended", "as spec.suspend asks for"
    if session.paused:
        yield "paused", "the operator leaves this session alone"
    if not session.observed:
        yield "changed", "the operator has not looked at the last change of the spec yet"
    if session.deleting:
        yield "deleting", f"since {ago(session.raw['metadata'].get('deletionTimestamp'), now)}"
    if session.keeper:
        yield "kept by", f"{session.keeper}, from Git"


def _connection(session: Session, now: datetime) -> str:
    found = session.part("connection")
    lost = found.get("disconnects") or 0
    parts = [f"open for {since(found['since'], now)}" if found.get("since") else "not open"]
    if not found.get("since") and found.get("lastConnectedAt"):
        parts.append(f"last opened {ago(found['lastConnectedAt'], now)}")
    parts.append(f"lost {count(lost, 'time')}" + (f" (last: {found['lastReason']})" if found.get("lastReason") else ""))
    if found.get("nextRetryAt"):
        parts.append(f"next try {ago(found['nextRetryAt'], now)}")
    return ", ".join(parts)


def _credentials(found: dict[str, Any], now: datetime) -> str:
    if "present" not in found or found["present"] is None:
        return "not known yet"
    if not found["present"]:
        return "none"
    used = f", last used {ago(found.get('lastUsedAt'), now)}" if found.get("lastUsedAt") else ""
    kind = "valid" if found.get("valid") else "not valid"
    return f"{kind}, registered {ago(found.get('registeredAt'), now)}{used}"


def _window(session: Session, now: datetime) -> str:
    pairing = session.part("pairing")
    if not pairing.get("attempt"):
        return ""
    attempts = (session.spec.get("pairing") or {}).get("attempts") or 3
    until = f", ends {ago(pairing.get('expiresAt'), now)}" if pairing.get("expiresAt") else ""
    return f"; window {pairing['attempt']} of {attempts}{until}"


def _pod(session: Session, *, wide: bool) -> str:
    pod = session.part("pod")
    if not pod.get("name"):
        return "none"
    node = f" on {pod['node']}" if pod.get("node") else ""
    image = f", {pod['image']}" if wide and pod.get("image") else ""
    return f"{pod['name']}{node}, {count(pod.get('restarts') or 0, 'restart')}{image}"


def _history(found: Sequence[dict[str, Any]], now: datetime) -> list[list[str | Text]]:
    def seconds(attempt: dict[str, Any], key: str) -> str:
        return f"{attempt[key]:.1f}s" if attempt.get(key) is not None else NOTHING

    return [
        [
            str(attempt.get("seq") or NOTHING),
            either(attempt.get("method")),
            Text(either(attempt.get("result")), "green" if attempt.get("result") == "Succeeded" else "red"),
            either(attempt.get("reason")),
            seconds(attempt, "secondsToQR"),
            seconds(attempt, "secondsToScan"),
            seconds(attempt, "secondsToConnected"),
            ago(attempt.get("finishedAt"), now),
        ]
        for attempt in reversed(found)
    ]


def document(session: Session) -> dict[str, Any]:
    """The same for programs; fields are added in later versions, never removed or renamed."""
    status_of = session.status
    return {
        "namespace": session.namespace,
        "name": session.name,
        "tenant": session.spec.get("tenant"),
        "phase": session.phase,
        "ready": session.is_true(ConditionType.READY),
        "connected": session.is_true(ConditionType.CONNECTED),
        "stalled": session.is_true(ConditionType.STALLED),
        "reason": session.condition(ConditionType.READY).reason,
        "remedy": session.remedy,
        "declaredPhone": session.spec.get("phone"),
        "linkedPhone": status_of.get("phone"),
        "primary": bool(status_of.get("primary")),
        "suspended": session.suspended,
        "paused": session.paused,
        "observed": session.observed,
        "conditions": [
            {
                "type": found.type,
                "status": found.status,
                "reason": found.reason,
                "message": found.message,
                "remedy": found.remedy,
                "lastTransitionTime": found.since,
            }
            for found in session.conditions
        ],
        "credentials": session.part("session", "credentials"),
        "connection": session.part("connection"),
        "pairing": session.part("pairing"),
        "history": session.part("session", "pairing").get("history") or [],
        "pod": session.part("pod"),
        "relink": session.part("relink"),
        "rollout": session.part("rollout"),
    }
