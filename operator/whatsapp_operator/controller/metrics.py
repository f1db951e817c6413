"""The operator's metrics, in a registry of its own; no label ever holds a phone number."""

from collections import Counter as Tally
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from whatsapp_operator.api.models import PairingAttempt
from whatsapp_operator.api.reasons import ConditionType, Phase
from whatsapp_operator.controller.cache import Cache
from whatsapp_operator.controller.conditions import reason_of
from whatsapp_operator.controller.status import Counts

_PAIRING_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 160, 320)
_RECONCILE_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)

_CONDITIONS: Final = frozenset(ConditionType)


class _Sessions(Collector):
    """Gauges that are read from the cache when they are asked for."""

    def __init__(self, cache: Cache, *, per_object: bool) -> None:
        self._cache = cache
        self._per_object = per_object

    def collect(self) -> Iterable[Metric]:
        phases: Tally[str] = Tally()
        condition = GaugeMetricFamily(
            "whatsapp_session_condition",
            "1 for the present status of each condition.",
            labels=["namespace", "name", "type", "status"],
        )
        for key, view in self._cache.sessions.items():
            phases[view.phase or Phase.PENDING] += 1
            if not self._per_object:
                continue
            for kind, status in view.conditions:
                if kind in _CONDITIONS:
                    condition.add_metric([key.namespace, key.name, kind, status], 1)
        sessions = GaugeMetricFamily("whatsapp_sessions", "Sessions by phase.", labels=["phase"])
        for phase in Phase:
            sessions.add_metric([phase], phases.get(phase, 0))
        yield sessions
        if self._per_object:
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
        self.queue_depth = Gauge("whatsapp_operator_queue_depth", "Sessions waiting.", registry=registry)
        self.queue_seconds = Histogram(
            "whatsapp_operator_queue_latency_seconds",
            "Time a session has waited.",
            buckets=_RECONCILE_BUCKETS,
            registry=registry,
        )
        self._requests = Counter(
            "whatsapp_operator_api_requests", "Requests to the API server.", ["verb", "code"], registry=registry
        )
        self.watch_restarts = Counter(
            "whatsapp_operator_watch_restarts", "Watches opened again.", ["resource"], registry=registry
        )
        self.rollout_sessions = Gauge(
            "whatsapp_operator_rollout_sessions",
            "Sessions that run, by whether their pod is of the present revision.",
            ["state"],
            registry=registry,
        )
        self.leader = Gauge("whatsapp_operator_leader", "1 while this replica leads.", registry=registry)

    def request(self, verb: str, code: int) -> None:
        """Count a request; code 0 means that there was no answer."""
        self._requests.labels(verb, str(code)).inc()

    def count(self, counts: Counts) -> None:
        """Add what the write of a status has made countable."""
        for attempt in counts.attempts:
            self._attempt(attempt)
        if counts.disconnects:
            self._disconnects.labels(reason_of(counts.disconnect_reason) or "Unknown").inc(counts.disconnects)
        if counts.relink is not None:
            self._relinks.labels(counts.relink).inc()

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)

    def _attempt(self, attempt: PairingAttempt) -> None:
        # The reason comes from a pod: one that is not in the API must not make a new series.
        reason = reason_of(attempt.reason) or "Unknown"
        self._attempts.labels(attempt.method or "Unknown", attempt.result or "Unknown", reason).inc()
        for histogram, seconds in (
            (self._to_qr, attempt.seconds_to_qr),
            (self._to_scan, attempt.seconds_to_scan),
            (self._to_connected, attempt.seconds_to_connected),
        ):
            if seconds is not None:
                histogram.observe(seconds)

    def _histogram(self, name: str, explanation: str) -> Histogram:
        return Histogram(name, explanation, buckets=_PAIRING_BUCKETS, registry=self.registry)
