"""The operator's metrics, in a registry of its own; no label ever holds a phone number."""

from collections import Counter as Tally
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from whatsapp_operator.api.models import AttemptResult, PairingAttempt
from whatsapp_operator.api.reasons import ConditionType, PairingMethod, Phase, Reason, RelinkOutcome
from whatsapp_operator.controller.cache import Cache
from whatsapp_operator.controller.conditions import reason_of
from whatsapp_operator.controller.status import Counts

_PAIRING_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 160, 320)
_RECONCILE_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)

# Whoever may write a status may write anything into it.
_CONDITIONS: Final = frozenset(ConditionType)
_PHASES: Final = frozenset(Phase)
UNKNOWN: Final = "Unknown"

# When each counter began, as a series beside it, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Step(StrEnum):
    """How far an attempt came; each includes those before it."""

    SHOWN = "Shown"
    SCANNED = "Scanned"
    PAIRED = "Paired"
    CONNECTED = "Connected"


# How an attempt that failed, or a connection that was lost, may have ended. Their counters begin with 0 at the start:
# to Prometheus, a counter that is not there before its first increase has not increased.
FAILURES: Final = (
    Reason.EXPIRED,
    Reason.NOT_PAIRED,
    Reason.PASSKEY_REQUIRED,
    Reason.PHONE_MISMATCH,
    Reason.PHONE_CLAIM_CONFLICT,
    Reason.LOGGED_OUT,
    Reason.MAIN_DEVICE_GONE,
    Reason.CREDENTIALS_CORRUPT,
)
LOSSES: Final = (
    Reason.RECONNECTING,
    Reason.KEEP_ALIVE_TIMEOUT,
    Reason.CONNECT_FAILURE,
    Reason.PROXY_FAILED,
    Reason.STREAM_REPLACED,
    Reason.LOGGED_OUT,
    Reason.MAIN_DEVICE_GONE,
    Reason.TEMPORARY_BAN,
    Reason.CLIENT_OUTDATED,
)
# Of an attempt in which the phone answered, but nothing was paired.
_REFUSED: Final = frozenset({Reason.NOT_PAIRED, Reason.PASSKEY_REQUIRED})


class _Sessions(Collector):
    """Gauges that are read from the cache when they are asked for."""

    def __init__(self, cache: Cache, *, per_object: bool) -> None:
        self._cache = cache
        self._per_object = per_object

    def collect(self) -> Iterable[Metric]:
        phases: Tally[str] = Tally()
        reasons: Tally[str] = Tally()
        condition = GaugeMetricFamily(
            "whatsapp_session_condition",
            "1 for the present status of each condition of a session.",
            labels=["namespace", "name", "type", "status"],
        )
        info = GaugeMetricFamily(
            "whatsapp_session_info",
            "1 for each session, with its tenant, its phase and the reason of its condition Ready.",
            labels=["namespace", "name", "tenant", "phase", "reason"],
        )
        for key, view in self._cache.sessions.items():
            phase = view.phase or Phase.PENDING
            phase, reason = phase if phase in _PHASES else UNKNOWN, reason_of(view.reason) or UNKNOWN
            phases[phase] += 1
            reasons[reason] += 1
            if not self._per_object:
                continue
            info.add_metric([key.namespace, key.name, view.tenant, phase, reason], 1)
            for kind, status in view.conditions:
                if kind in _CONDITIONS:
                    condition.add_metric([key.namespace, key.name, kind, status], 1)
        sessions = GaugeMetricFamily("whatsapp_sessions", "Sessions by phase.", labels=["phase"])
        for phase in Phase:
            sessions.add_metric([phase], phases.get(phase, 0))
        yield sessions
        by_reason = GaugeMetricFamily(
            "whatsapp_sessions_by_reason", "Sessions by the reason of their condition Ready.", labels=["reason"]
        )
        for reason in (*Reason, UNKNOWN):
            by_reason.add_metric([reason], reasons.get(reason, 0))
        yield by_reason
        if self._per_object:
            yield info
            yield condition


class Metrics:
    """All metrics of one operator process."""

    def __init__(self, cache: Cache, *, per_object: bool) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        registry.register(_Sessions(cache, per_object=per_object))
        self._attempts = Counter(
            "whatsapp_pairing_attempts", "Finished pairing attempts.", ["method", "result", "reason"], registry=registry
        )
        self._steps = Counter(
            "whatsapp_pairing_steps",
            "Finished pairing attempts that came at least so far: Shown, Scanned, Paired, Connected.",
            ["method", "step"],
            registry=registry,
        )
        self._to_qr = self._histogram("whatsapp_pairing_time_to_qr_seconds", "Request to the first QR or code.")
        self._to_scan = self._histogram("whatsapp_pairing_time_to_scan_seconds", "First QR or code to the scan.")
        self._to_connected = self._histogram(
            "whatsapp_pairing_scan_to_connected_seconds", "Scan to the open connection."
        )
        self._disconnects = Counter("whatsapp_session_disconnects", "Connections lost.", ["reason"], registry=registry)
        self._relinks = Counter("whatsapp_relinks", "forceRelink requests done.", ["outcome"], registry=registry)
        self.reconciles = Counter(
            "whatsapp_operator_reconcile", "Reconciliations by result.", ["result"], registry=registry
        )
        self.reconcile_seconds = Histogram(
            "whatsapp_operator_reconcile_duration_seconds",
            "Duration of a reconciliation.",
            buckets=_RECONCILE_BUCKETS,
            registry=registry,
        )
        self.queue_depth = Gauge("whatsapp_operator_queue_depth", "Sessions that wait for a worker.", registry=registry)
        self.queue_seconds = Histogram(
            "whatsapp_operator_queue_latency_seconds",
            "Time for which a session has waited for a worker.",
            buckets=_RECONCILE_BUCKETS,
            registry=registry,
        )
        self._requests = Counter(
            "whatsapp_operator_api_requests",
            "Requests to the API server; code 0: no answer.",
            ["verb", "code"],
            registry=registry,
        )
        self.watch_restarts = Counter(
            "whatsapp_operator_watch_restarts", "Watches that had to be opened again.", ["resource"], registry=registry
        )
        self.rollout_sessions = Gauge(
            "whatsapp_operator_rollout_sessions",
            "Sessions that run, by whether their pod is of the present revision.",
            ["state"],
            registry=registry,
        )
        self.leader = Gauge("whatsapp_operator_leader", "1 while this replica leads.", registry=registry)
        for method in PairingMethod:
            self._attempts.labels(method, AttemptResult.SUCCEEDED, Reason.PAIRED)
            for reason in FAILURES:
                self._attempts.labels(method, AttemptResult.FAILED, reason)
            for step in Step:
                self._steps.labels(method, step)
        for reason in LOSSES:
            self._disconnects.labels(reason)
        for outcome in RelinkOutcome:
            self._relinks.labels(outcome)

    def request(self, verb: str, code: int) -> None:
        """Count a request; code 0 means that there was no answer."""
        self._requests.labels(verb, str(code)).inc()

    def count(self, counts: Counts) -> None:
        """Add what the write of a status has made countable."""
        for attempt in counts.attempts:
            self._attempt(attempt)
        if counts.disconnects:
            self._disconnects.labels(reason_of(counts.disconnect_reason) or UNKNOWN).inc(counts.disconnects)
        if counts.relink is not None:
            self._relinks.labels(counts.relink).inc()

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)

    def _attempt(self, attempt: PairingAttempt) -> None:
        # The reason comes from a pod: one that is not in the API must not make a new series.
        reason, method = reason_of(attempt.reason) or UNKNOWN, attempt.method or UNKNOWN
        self._attempts.labels(method, attempt.result or UNKNOWN, reason).inc()
        for step, came_so_far in (
            (Step.SHOWN, True),
            (Step.SCANNED, attempt.seconds_to_scan is not None or reason in _REFUSED),
            (Step.PAIRED, attempt.seconds_to_scan is not None),
            (Step.CONNECTED, attempt.seconds_to_connected is not None),
        ):
            if came_so_far:
                self._steps.labels(method, step).inc()
        for histogram, seconds in (
            (self._to_qr, attempt.seconds_to_qr),
            (self._to_scan, attempt.seconds_to_scan),
            (self._to_connected, attempt.seconds_to_connected),
        ):
            if seconds is not None:
                histogram.observe(seconds)

    def _histogram(self, name: str, explanation: str) -> Histogram:
        return Histogram(name, explanation, buckets=_PAIRING_BUCKETS, registry=self.registry)
