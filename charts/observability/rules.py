"""Recording rules and alerts, each with what it means and what to do; and their YAML, the spec of a PrometheusRule.

What every rule has to bear:

- Of two replicas only the leader knows sessions; the other one shows zeros, and no series of single sessions. So gauges
  are taken by `max`, counters by `sum` over what each process has counted.
- When another replica takes over, gauges fall to zero or are gone for up to a minute, and counters begin anew in
  another series. So no rule keeps the labels of a process (`pod`, `instance`), and what an alert waits for looks back
  over gaps.
- A session that is in one alert is in no other one for the same reason: the alerts of sessions go by phase.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from textwrap import dedent
from typing import Any, Final

import yaml

from whatsapp_operator.api.reasons import Phase, Reason
from whatsapp_operator.controller.metrics import Step
from whatsapp_operator.controller.rollout import State

# The chart puts the address of the page in its place.
RUNBOOKS_URL: Final = "RUNBOOKS_URL"


class Needs(StrEnum):
    """What has to be scraped for a rule."""

    OPERATOR = "the operator's metrics"
    SESSIONS = "the operator's metrics, with the gauges of single sessions (`metrics.perSession`)"
    PODS = "the metrics of the session pods (PodMonitor)"


class Severity(StrEnum):
    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Recording:
    """A series that is computed and kept under the name `record`."""

    record: str
    expr: str
    meaning: str
    needs: Needs = Needs.OPERATOR

    def dump(self) -> dict[str, Any]:
        return {"record": self.record, "expr": self.expr}


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert; its runbook is the section of that name in docs/runbooks.md.

    Attributes:
        wait: for how long the expression must hold; empty: at once.
        summary: a template of Prometheus, one line.
    """

    name: str
    expr: str
    wait: str
    severity: Severity
    summary: str
    meaning: str
    needs: Needs = Needs.OPERATOR

    @property
    def anchor(self) -> str:
        """Of its sections on the pages."""
        return self.name.lower()

    def dump(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expr,
            **({"for": self.wait} if self.wait else {}),
            "labels": {"severity": self.severity.value},
            "annotations": {
                "summary": self.summary,
                "description": self.meaning,
                "runbook_url": f"{RUNBOOKS_URL}#{self.anchor}",
            },
        }


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    rules: tuple[Recording | Alert, ...]

    def dump(self) -> dict[str, Any]:
        return {"name": self.name, "rules": [rule.dump() for rule in self.rules]}


def _expr(text: str) -> str:
    return dedent(text).strip()


def _one_of(*values: StrEnum) -> str:
    return "|".join(values)


# What is counted as an attempt: a window in which nobody has scanned says nothing about how well pairing works.
_TRIED: Final = f'whatsapp_pairing_attempts_total{{reason!="{Reason.EXPIRED}"}}'
SUCCESS_1H: Final = "namespace_method:whatsapp_pairing_success:ratio_increase1h"
SUCCESS_24H: Final = "namespace_method:whatsapp_pairing_success:ratio_increase24h"
TRIED_1H: Final = "namespace_method_result:whatsapp_pairing_attempts:increase1h"
TRIED_24H: Final = "namespace_method_result:whatsapp_pairing_attempts:increase24h"
STEPS_24H: Final = "namespace_step:whatsapp_pairing_steps:increase24h"
TIME_TO_SCAN: Final = "namespace:whatsapp_pairing_time_to_scan_seconds:p90_1h"
BY_PHASE: Final = "namespace_phase:whatsapp_sessions:max"
BY_REASON: Final = "namespace_reason:whatsapp_sessions_by_reason:max"
DOWN: Final = "namespace:whatsapp_sessions_down:ratio"
DISCONNECTS: Final = "namespace_reason:whatsapp_session_disconnects:increase1h"
QUEUE_LATENCY: Final = "namespace:whatsapp_operator_queue_latency_seconds:p99_5m"
RECONCILE_DURATION: Final = "namespace:whatsapp_operator_reconcile_duration_seconds:p99_5m"
API_ERRORS: Final = "namespace:whatsapp_operator_api_errors:ratio_rate5m"

# Phases of sessions that have no connection and should have one, without and with those that wait for a person; and
# the phases of a pairing.
_LOST: Final = (Phase.PENDING, Phase.DISCONNECTED)
_DOWN: Final = (*_LOST, Phase.STALLED)
_PAIRING: Final = (Phase.STARTING, Phase.WAITING_FOR_SCAN, Phase.AUTHENTICATING)

# No answer, no valid token, too many requests, the server's own fault. 404 and 409 belong to the normal work, and so
# does 403: in a namespace that is being deleted nothing can be created, and each leader asks for refusals at its start.
_REQUESTS: Final = "whatsapp_operator_api_requests_total"
_ERRORS: Final = f'{_REQUESTS}{{code=~"0|401|429|5.."}}'


def _success(record: str, tried: str, period: str) -> Recording:
    return Recording(
        record,
        _expr(
            f"""
            sum by (namespace, method) ({tried}{{result="Succeeded"}})
              / (sum by (namespace, method) ({tried}) > 0)
            """
        ),
        f"Share of the pairing attempts of the last {period} that succeeded, by method; nothing where there was none."
        " Windows in which nobody scanned do not count.",
    )


def _tried(record: str, period: str, window: str) -> Recording:
    return Recording(
        record,
        f"sum by (namespace, method, result) (increase({_TRIED}[{window}]))",
        f"Pairing attempts of the last {period}, by method and result, without windows in which nobody scanned.",
    )


def _p99(record: str, metric: str, meaning: str) -> Recording:
    return Recording(
        record,
        f"histogram_quantile(0.99, sum by (namespace, le) (rate({metric}_bucket[5m]))) >= 0",
        meaning,
    )


def _held(selector: str) -> str:
    """Sessions in a state now, or when last heard of within five minutes: a change of leaders is no change of state."""
    return _expr(
        f"""
        max by (namespace, name, tenant) (last_over_time(whatsapp_session_info{{{selector}}}[5m]))
          unless on (namespace, name) (whatsapp_session_info unless whatsapp_session_info{{{selector}}})
        """
    )


GROUPS: Final = (
    Group(
        "whatsapp-operator.pairing",
        (
            _tried(TRIED_1H, "hour", "1h"),
            _tried(TRIED_24H, "day", "24h"),
            _success(SUCCESS_1H, TRIED_1H, "hour"),
            _success(SUCCESS_24H, TRIED_24H, "day"),
            Recording(
                STEPS_24H,
                "sum by (namespace, step) (increase(whatsapp_pairing_steps_total[24h]))",
                f"How far the pairing attempts of the last day came: {', '.join(Step)}.",
            ),
            Recording(
                TIME_TO_SCAN,
                "histogram_quantile(0.9, sum by (namespace, le)"
                " (increase(whatsapp_pairing_time_to_scan_seconds_bucket[1h]))) >= 0",
                "Time from the first QR or code to the scan that 90 % of the attempts of the last hour stayed below.",
            ),
            Alert(
                "WhatsAppPairingFailing",
                _expr(
                    f"""
                    {SUCCESS_1H} < 0.5
                      and on (namespace, method) sum by (namespace, method) ({TRIED_1H}) >= 5
                    """
                ),
                "10m",
                Severity.WARNING,
                "Only {{ $value | humanizePercentage }} of the pairing attempts by {{ $labels.method }} succeed.",
                "Of at least five scans within the hour, by one phone or several, fewer than half linked a device.",
            ),
            Alert(
                "WhatsAppPairingDegraded",
                _expr(
                    f"""
                    {SUCCESS_24H} < 0.8
                      and on (namespace, method) sum by (namespace, method) ({TRIED_24H}) >= 20
                    """
                ),
                "1h",
                Severity.INFO,
                "Only {{ $value | humanizePercentage }} of a day's pairing attempts by {{ $labels.method }} succeed.",
                "Of at least twenty scans within a day, by one phone or several, more than one in five linked no"
                " device.",
            ),
            Alert(
                "WhatsAppPairingScanSlow",
                _expr(
                    f"""
                    {TIME_TO_SCAN} > 120
                      and on (namespace) sum by (namespace)
                        (increase(whatsapp_pairing_time_to_scan_seconds_count[1h])) >= 10
                    """
                ),
                "15m",
                Severity.INFO,
                "One in ten people needs more than {{ $value | humanizeDuration }} to scan.",
                "A window is open for 160 seconds. Who needs longer sees the QR run out and has to begin anew.",
            ),
        ),
    ),
    Group(
        "whatsapp-operator.sessions",
        (
            Recording(
                BY_PHASE,
                "max by (namespace, phase) (whatsapp_sessions)",
                "Sessions by phase, as the leader knows them.",
            ),
            Recording(
                BY_REASON,
                "max by (namespace, reason) (whatsapp_sessions_by_reason)",
                "Sessions by the reason of their condition Ready, as the leader knows them.",
            ),
            Recording(
                DOWN,
                _expr(
                    f"""
                    sum by (namespace) ({BY_PHASE}{{phase=~"{_one_of(*_DOWN)}"}})
                      / (sum by (namespace) ({BY_PHASE}{{phase=~"{_one_of(*_DOWN, Phase.CONNECTED)}"}}) > 0)
                    """
                ),
                "Share of the sessions that should be connected and are not. Those that are being paired, rest or are"
                " being deleted do not count.",
            ),
            Recording(
                DISCONNECTS,
                "sum by (namespace, reason) (increase(whatsapp_session_disconnects_total[1h]))",
                "Connections lost within the last hour, by reason.",
            ),
            Alert(
                "WhatsAppSessionNotConnected",
                _held(f'phase=~"{_one_of(*_LOST)}", reason!="{Reason.TEMPORARY_BAN}"'),
                "15m",
                Severity.WARNING,
                "Session {{ $labels.namespace }}/{{ $labels.name }} of tenant {{ $labels.tenant }} is not connected.",
                "The session has no connection, or not even a pod, and no person was asked to do something about it.",
                Needs.SESSIONS,
            ),
            Alert(
                "WhatsAppSessionStalled",
                _held(f'phase="{Phase.STALLED}", reason!~"{_one_of(Reason.CLIENT_OUTDATED, Reason.CRASH_LOOPING)}"'),
                "5m",
                Severity.WARNING,
                "Session {{ $labels.namespace }}/{{ $labels.name }} of tenant {{ $labels.tenant }} waits for a person.",
                "The session cannot go on by itself: its condition Stalled says what a person has to do.",
                Needs.SESSIONS,
            ),
            Alert(
                "WhatsAppSessionCrashLooping",
                # Told only while the kubelet backs off, five minutes at most; while the container runs the session is
                # in another phase, so that neither lasts.
                _expr(
                    f"""
                    sum_over_time((
                      max by (namespace, name, tenant) (whatsapp_session_info{{reason="{Reason.CRASH_LOOPING}"}})
                    )[30m:1m]) >= 10
                      and on (namespace, name) last_over_time(whatsapp_session_info[5m])
                    """
                ),
                "",
                Severity.WARNING,
                "The container of session {{ $labels.namespace }}/{{ $labels.name }} of tenant {{ $labels.tenant }}"
                " ends again and again.",
                "The session's container was not started again for ten of the last thirty minutes, because it keeps"
                " ending. Between two attempts the session may even be connected.",
                Needs.SESSIONS,
            ),
            Alert(
                "WhatsAppSessionStuckInPairing",
                _held(f'phase=~"{_one_of(*_PAIRING)}"'),
                "30m",
                Severity.WARNING,
                "Session {{ $labels.namespace }}/{{ $labels.name }} of tenant {{ $labels.tenant }} is not paired after"
                " half an hour.",
                "A pairing has been going on for half an hour. The windows of one round take eight minutes by default.",
                Needs.SESSIONS,
            ),
            Alert(
                "WhatsAppSessionFlapping",
                # The first login of a process is mostly older than its first sample, so that nothing has increased.
                _expr(
                    """
                    sum by (namespace, pod) (
                      label_replace(increase(whatsapp_session_connects_total[1h]), "login", "later", "", "")
                        or
                      label_replace(
                        (min_over_time(whatsapp_session_connects_total[1h])
                          unless whatsapp_session_connects_total offset 1h) > bool 0,
                        "login", "first", "", ""
                      )
                    ) > 6
                    """
                ),
                "",
                Severity.WARNING,
                'Pod {{ $labels.namespace }}/{{ $labels.pod }} logs in {{ $value | printf "%.0f" }} times an hour.',
                "The connection is lost again and again. Messages are late, and WhatsApp may take it for abuse.",
                Needs.PODS,
            ),
            Alert(
                "WhatsAppSessionsDown",
                _expr(
                    f"""
                    max_over_time({DOWN}[5m]) > 0.2
                      and on (namespace) sum by (namespace)
                        (max_over_time({BY_PHASE}{{phase=~"{_one_of(*_DOWN)}"}}[5m])) >= 5
                    """
                ),
                "10m",
                Severity.CRITICAL,
                "{{ $value | humanizePercentage }} of the sessions are not connected.",
                "More than one session in five, and at least five, should be connected and are not: a common cause.",
            ),
            Alert(
                "WhatsAppSessionsBanned",
                "max by (namespace) (max_over_time(whatsapp_sessions_by_reason"
                f'{{reason="{Reason.TEMPORARY_BAN}"}}[5m])) > 0',
                "",
                Severity.CRITICAL,
                "{{ $value }} sessions are banned by WhatsApp for a time.",
                "WhatsApp has banned accounts for a time. They keep their credentials and log in when it is over.",
            ),
            Alert(
                "WhatsAppClientOutdated",
                "max by (namespace) (max_over_time(whatsapp_sessions_by_reason"
                f'{{reason="{Reason.CLIENT_OUTDATED}"}}[5m])) > 0',
                "5m",
                Severity.CRITICAL,
                "{{ $value }} sessions are refused because their client is outdated.",
                "WhatsApp refuses this version of the client. All other sessions follow at their next login.",
            ),
        ),
    ),
    Group(
        "whatsapp-operator.operator",
        (
            _p99(
                QUEUE_LATENCY,
                "whatsapp_operator_queue_latency_seconds",
                "Time that 99 % of the sessions waited for a worker, over five minutes.",
            ),
            _p99(
                RECONCILE_DURATION,
                "whatsapp_operator_reconcile_duration_seconds",
                "Time that 99 % of the reconciliations took, over five minutes.",
            ),
            Recording(
                API_ERRORS,
                _expr(
                    f"""
                    (sum by (namespace) (rate({_ERRORS}[5m])) or 0 * sum by (namespace) (rate({_REQUESTS}[5m])))
                      / (sum by (namespace) (rate({_REQUESTS}[5m])) > 0)
                    """
                ),
                "Share of the operator's requests to the API server that got no answer, 401, 429 or 5xx.",
            ),
            Alert(
                "WhatsAppOperatorDown",
                "absent(whatsapp_operator_leader)",
                "5m",
                Severity.CRITICAL,
                "No replica of the operator is scraped.",
                "No operator answers, or Prometheus does not find it. Sessions stay connected meanwhile; nothing is"
                " started, repaired, paired or unlinked. Of several operators behind one Prometheus: none.",
            ),
            Alert(
                "WhatsAppOperatorNotLeading",
                "max by (namespace) (whatsapp_operator_leader) == 0",
                "3m",
                Severity.CRITICAL,
                "No replica of the operator in {{ $labels.namespace }} leads.",
                "Replicas run, but none has the lease, so none acts. A take-over takes 15 seconds at most.",
            ),
            Alert(
                "WhatsAppOperatorQueueSlow",
                f"{QUEUE_LATENCY} > 5",
                "10m",
                Severity.WARNING,
                "In {{ $labels.namespace }} sessions wait {{ $value | humanizeDuration }} for the operator.",
                "Changes are acted on late: the operator has more to do than it gets done.",
            ),
            Alert(
                "WhatsAppOperatorApiErrors",
                _expr(
                    f"""
                    {API_ERRORS} > 0.05
                      and on (namespace) sum by (namespace) (increase({_ERRORS}[10m])) >= 10
                    """
                ),
                "10m",
                Severity.WARNING,
                "{{ $value | humanizePercentage }} of the requests of the operator in {{ $labels.namespace }} fail.",
                "The API server refuses or does not answer the operator's requests. It tries again, later and later.",
            ),
            Alert(
                "WhatsAppRolloutStopped",
                "max by (namespace) (max_over_time(whatsapp_operator_rollout_sessions"
                f'{{state="{State.OVERDUE}"}}[5m])) > 0',
                "5m",
                Severity.WARNING,
                "{{ $value }} sessions did not come back from the rollout.",
                "Sessions that were given a new pod have not been what they were for more than five minutes. When all"
                " places are held by such sessions, nothing more is replaced.",
            ),
        ),
    ),
)


def recordings() -> Iterator[Recording]:
    return (rule for group in GROUPS for rule in group.rules if isinstance(rule, Recording))


def alerts() -> Iterator[Alert]:
    return (rule for group in GROUPS for rule in group.rules if isinstance(rule, Alert))


class _Dumper(yaml.SafeDumper):
    """Text of several lines as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def render() -> str:
    """The groups as YAML; templates of Prometheus in it are not those of Helm."""
    groups = {"groups": [group.dump() for group in GROUPS]}
    body = yaml.dump(groups, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
    return f"# Generated by `make docs` from charts/observability/rules.py; edit that.\n{body}"
