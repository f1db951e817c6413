"""The dashboard of Grafana: rows of sessions, pairing, the operator and its session pods."""

import itertools
import json
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as units
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from charts.observability import rules
from whatsapp_operator.api.reasons import Phase, Reason
from whatsapp_operator.controller.metrics import Step

UID: Final = "whatsapp-operator"

DATASOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
# Of the operator's own series, and of those of sessions.
_OPERATOR: Final = 'namespace=~"$operator"'
_SESSIONS: Final = 'namespace=~"$namespace"'

GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, GREY = (
    "#56A64B", "#F2CC0C", "#FF780A", "#E02F44", "#3274D9", "#8F3BB8", "#8E8E8E",
)  # fmt: skip
PHASES: Final = {
    Phase.CONNECTED: GREEN,
    Phase.WAITING_FOR_SCAN: BLUE,
    Phase.AUTHENTICATING: "#8AB8FF",
    Phase.STARTING: "#C0D8FF",
    Phase.PENDING: YELLOW,
    Phase.DISCONNECTED: ORANGE,
    Phase.STALLED: RED,
    Phase.SUSPENDED: GREY,
    Phase.EXPIRED: "#B0B0B0",
    Phase.DELETING: PURPLE,
}

AnyPanel = bargauge.Panel | heatmap.Panel | stat.Panel | table.Panel | timeseries.Panel
P = TypeVar("P", bargauge.Panel, heatmap.Panel, stat.Panel, table.Panel, timeseries.Panel)


def _series(expr: str, legend: str = "") -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").range()


def _now(expr: str, legend: str = "") -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").instant()


def _rows(expr: str) -> prometheus.Dataquery:
    return _now(expr).format(PromQueryFormat.TABLE)


def _panel(panel: P, title: str, description: str, size: tuple[int, int], queries: Sequence[prometheus.Dataquery]) -> P:
    """Of `size` (width of 24, height)."""
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        panel.with_target(query.ref_id(letter))
    return panel.title(title).description(description).datasource(DATASOURCE).span(size[0]).height(size[1])


def _color(name: str, color: str) -> tuple[str, list[models.DynamicConfigValue]]:
    return name, [models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color})]


def _thresholds(*steps: tuple[float | None, str]) -> builders.ThresholdsConfig:
    found = [models.Threshold(value=value, color=color) for value, color in steps]
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(found)


def _stat(
    title: str,
    description: str,
    queries: Sequence[prometheus.Dataquery],
    *,
    width: int = 4,
    unit: str = "none",
    thresholds: builders.ThresholdsConfig | None = None,
) -> stat.Panel:
    panel = _panel(stat.Panel(), title, description, (width, 4), queries)
    panel.unit(unit).thresholds(thresholds or _thresholds((None, GREEN)))
    panel.color_mode(units.BigValueColorMode.VALUE).graph_mode(units.BigValueGraphMode.NONE)
    return panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def _lines(
    title: str,
    description: str,
    queries: Sequence[prometheus.Dataquery],
    *,
    unit: str = "short",
    size: tuple[int, int] = (12, 8),
) -> timeseries.Panel:
    panel = _panel(timeseries.Panel(), title, description, size, queries)
    legend = common.VizLegendOptions().show_legend(True).placement(units.LegendPlacement.BOTTOM)
    panel.unit(unit).min(0).fill_opacity(8).line_width(2).legend(legend.display_mode(units.LegendDisplayMode.LIST))
    return panel.tooltip(common.VizTooltipOptions().mode(units.TooltipDisplayMode.MULTI))


def _stacked(panel: timeseries.Panel) -> timeseries.Panel:
    return panel.stacking(common.StackingConfig().mode(units.StackingMode.NORMAL)).fill_opacity(60).line_width(1)


def _bars(panel: timeseries.Panel) -> timeseries.Panel:
    return _stacked(panel).draw_style(units.GraphDrawStyle.BARS)


def _gauges(
    title: str, description: str, queries: Sequence[prometheus.Dataquery], size: tuple[int, int]
) -> bargauge.Panel:
    panel = _panel(bargauge.Panel(), title, description, size, queries)
    panel.unit("short").decimals(0).min(0).orientation(units.VizOrientation.HORIZONTAL)
    panel.display_mode(units.BarGaugeDisplayMode.BASIC).thresholds(_thresholds((None, BLUE)))
    return panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def _merged(panel: table.Panel, columns: dict[str, str]) -> table.Panel:
    """One row for what has the same labels; `columns` are those to show, with their names."""
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    options = {
        "excludeByName": {"Time": True},
        "indexByName": {name: number for number, name in enumerate(columns)},
        "renameByName": columns,
    }
    return panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=options))


def _by_phase(*phases: Phase) -> str:
    return f'sum({rules.BY_PHASE}{{{_OPERATOR}, phase=~"{"|".join(phases)}"}})'


def _of_tenant(matcher: str = "") -> str:
    """Sessions by tenant; while two leaders take turns, each session still counts once."""
    selector = f"{_SESSIONS}, {matcher}" if matcher else _SESSIONS
    return f"count by (namespace, tenant) (max by (namespace, name, tenant) (whatsapp_session_info{{{selector}}}))"


def _quantile(share: float, metric: str) -> str:
    buckets = f"sum by (le) (rate({metric}_bucket{{{_OPERATOR}}}[$__rate_interval]))"
    return f"histogram_quantile({share}, {buckets})"


def _sessions() -> list[AnyPanel]:
    lost = (Phase.DISCONNECTED, Phase.PENDING)
    needs = "Needs the gauges of single sessions."
    by_phase = _stacked(
        _lines(
            "Sessions by phase",
            "As the leader knows them.",
            [_series(f"sum by (phase) ({rules.BY_PHASE}{{{_OPERATOR}}})", "{{phase}}")],
        )
    )
    for phase, color in PHASES.items():
        by_phase.override_by_name(*_color(phase, color))
    tenants = _panel(
        table.Panel(),
        "Tenants",
        f"Sessions of each tenant, now. {needs}",
        (12, 8),
        [
            _rows(_of_tenant()),
            _rows(_of_tenant(f'phase="{Phase.CONNECTED}"')),
            _rows(_of_tenant('phase=~"WaitingForScan|Starting|Authenticating"')),
            _rows(_of_tenant('phase=~"Disconnected|Pending|Stalled"')),
        ],
    )
    attention = _panel(
        table.Panel(),
        "Sessions that are not connected",
        f"Each with the reason of its condition Ready. {needs}",
        (12, 8),
        [
            _rows(
                "max by (namespace, name, tenant, phase, reason)"
                f' (whatsapp_session_info{{{_SESSIONS}, phase!~"{Phase.CONNECTED}|{Phase.SUSPENDED}"}})'
            )
        ],
    )
    columns = {"namespace": "Namespace", "name": "Session", "tenant": "Tenant", "phase": "Phase", "reason": "Reason"}
    return [
        _stat("Connected", "Sessions with an open connection.", [_now(_by_phase(Phase.CONNECTED))]),
        _stat(
            "Waiting for a scan",
            "Sessions that show a QR or code.",
            [_now(_by_phase(Phase.WAITING_FOR_SCAN))],
            thresholds=_thresholds((None, BLUE)),
        ),
        _stat(
            "Without a connection",
            "Sessions that should be connected, and whose connection or pod is not there.",
            [_now(_by_phase(*lost))],
            thresholds=_thresholds((None, GREEN), (1, ORANGE)),
        ),
        _stat(
            "Waiting for a person",
            "Stalled: the message of the condition says what to do.",
            [_now(_by_phase(Phase.STALLED))],
            thresholds=_thresholds((None, GREEN), (1, RED)),
        ),
        _stat(
            "At rest",
            "Suspended as asked for, or expired.",
            [_now(_by_phase(Phase.SUSPENDED, Phase.EXPIRED))],
            thresholds=_thresholds((None, GREY)),
        ),
        _stat(
            "Connections lost, 1 h",
            "Each is opened again by itself.",
            [_now(f"sum({rules.DISCONNECTS}{{{_OPERATOR}}})")],
            thresholds=_thresholds((None, BLUE)),
        ).decimals(0),
        by_phase,
        _gauges(
            "Why sessions are not ready",
            "Reasons of the condition Ready, now; each is explained in the troubleshooting guide.",
            [
                _now(
                    f"sum by (reason) ({rules.BY_REASON}"
                    f'{{{_OPERATOR}, reason!~"{Reason.CONNECTED}|{Reason.SUSPENDED}"}}) > 0',
                    "{{reason}}",
                )
            ],
            (6, 8),
        ),
        _bars(
            _lines(
                "Connections lost, by reason",
                "Counted by the operator.",
                [
                    _series(
                        "sum by (reason)"
                        f" (increase(whatsapp_session_disconnects_total{{{_OPERATOR}}}[$__rate_interval])) > 0",
                        "{{reason}}",
                    )
                ],
                size=(6, 8),
            )
        ),
        _merged(
            tenants,
            {
                "namespace": "Namespace",
                "tenant": "Tenant",
                "Value #A": "Sessions",
                "Value #B": "Connected",
                "Value #C": "Pairing",
                "Value #D": "Not connected",
            },
        ),
        _merged(attention, columns).with_override(
            models.MatcherConfig(id_val="byName", options="Value"),
            [models.DynamicConfigValue("custom.hidden", True)],
        ),
    ]


def _pairing() -> list[AnyPanel]:
    ratio = _thresholds((None, RED), (0.5, ORANGE), (0.8, GREEN))
    attempts = f"whatsapp_pairing_attempts_total{{{_OPERATOR}"
    not_scanned = f'reason="{Reason.EXPIRED}"'
    funnel = _gauges(
        "Funnel of a day",
        "How far the pairing attempts of the last 24 hours came. Shown and not scanned: nobody was there.",
        [
            _now(f'sum({rules.STEPS_24H}{{{_OPERATOR}, step="{step}"}})', legend)
            for step, legend in (
                (Step.SHOWN, "QR or code shown"),
                (Step.SCANNED, "Scanned"),
                (Step.PAIRED, "Paired"),
                (Step.CONNECTED, "Connected"),
            )
        ],
        (8, 8),
    )
    results = _bars(
        _lines(
            "Attempts by outcome",
            "Finished attempts. One counts as succeeded when its connection has lasted for half a minute.",
            [
                _series(f'sum(increase({attempts}, result="Succeeded"}}[$__rate_interval]))', "Succeeded"),
                _series(f'sum(increase({attempts}, result="Failed", reason!="Expired"}}[$__rate_interval]))', "Failed"),
                _series(f"sum(increase({attempts}, {not_scanned}}}[$__rate_interval]))", "Nobody scanned"),
            ],
            size=(8, 8),
        )
    )
    for name, color in (("Succeeded", GREEN), ("Failed", RED), ("Nobody scanned", GREY)):
        results.override_by_name(*_color(name, color))
    buckets = f"sum by (le) (increase(whatsapp_pairing_time_to_scan_seconds_bucket{{{_OPERATOR}}}[$__rate_interval]))"
    scans = _panel(
        heatmap.Panel(),
        "Time to scan",
        "From the first QR or code to the scan.",
        (12, 8),
        [_series(buckets, "{{le}}").format(PromQueryFormat.HEATMAP)],
    )
    scans.calculate(False).y_axis(heatmap.YAxisConfig().unit("s"))
    scans.color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
    return [
        _stat(
            "Success, last hour",
            "Of the attempts in which somebody scanned, by method.",
            [_now(f"max by (method) ({rules.SUCCESS_1H}{{{_OPERATOR}}})", "{{method}}")],
            width=6,
            unit="percentunit",
            thresholds=ratio,
        ),
        _stat(
            "Success, last day",
            "Of the attempts in which somebody scanned, by method.",
            [_now(f"max by (method) ({rules.SUCCESS_24H}{{{_OPERATOR}}})", "{{method}}")],
            width=6,
            unit="percentunit",
            thresholds=ratio,
        ),
        _stat(
            "Time to scan, p90",
            "Of the last hour. A window is open for 160 seconds.",
            [_now(f"max({rules.TIME_TO_SCAN}{{{_OPERATOR}}})")],
            width=6,
            unit="s",
            thresholds=_thresholds((None, GREEN), (120, ORANGE)),
        ),
        _stat(
            "Relinks, last day",
            "forceRelink requests that are done, by outcome.",
            [
                _now(
                    f"sum by (outcome) (increase(whatsapp_relinks_total{{{_OPERATOR}}}[24h]))",
                    "{{outcome}}",
                )
            ],
            width=6,
            unit="short",
            thresholds=_thresholds((None, BLUE)),
        ).decimals(0),
        funnel,
        results,
        _bars(
            _lines(
                "Failed attempts by reason",
                "Windows in which nobody scanned are Expired.",
                [
                    _series(
                        f'sum by (reason) (increase({attempts}, result="Failed"}}[$__rate_interval])) > 0',
                        "{{reason}}",
                    )
                ],
                size=(8, 8),
            )
        ),
        scans,
        _lines(
            "Steps of a pairing, p90",
            "Of the attempts that finished meanwhile.",
            [
                _series(_quantile(0.9, "whatsapp_pairing_time_to_qr_seconds"), "request to QR"),
                _series(_quantile(0.9, "whatsapp_pairing_time_to_scan_seconds"), "QR to scan"),
                _series(_quantile(0.9, "whatsapp_pairing_scan_to_connected_seconds"), "scan to connected"),
            ],
            unit="s",
        ),
    ]


def _operator() -> list[AnyPanel]:
    leader = _stat(
        "Leader",
        "The replica that acts; the others stand by.",
        [_now(f"max by (pod) (whatsapp_operator_leader{{{_OPERATOR}}}) == 1", "{{pod}}")],
        width=8,
    )
    requests = f"whatsapp_operator_api_requests_total{{{_OPERATOR}}}"
    rollout = _stacked(
        _lines(
            "Rollout of session pods",
            "Sessions that run, by whether their pod is of the present revision.",
            [_series(f"max by (state) (whatsapp_operator_rollout_sessions{{{_OPERATOR}}})", "{{state}}")],
            size=(8, 7),
        )
    )
    for state, color in (("updated", GREEN), ("outdated", GREY), ("in_progress", BLUE), ("overdue", RED)):
        rollout.override_by_name(*_color(state, color))
    return [
        leader.text_mode(units.BigValueTextMode.NAME),
        _stat(
            "Replicas",
            "Of the operator, as scraped.",
            [_now(f"count(whatsapp_operator_leader{{{_OPERATOR}}})")],
            thresholds=_thresholds((None, RED), (1, ORANGE), (2, GREEN)),
        ),
        _stat(
            "Queue",
            "Sessions that wait for a worker.",
            [_now(f"sum(whatsapp_operator_queue_depth{{{_OPERATOR}}})")],
            thresholds=_thresholds((None, GREEN), (100, ORANGE)),
        ),
        _stat(
            "Wait in the queue, p99",
            "Over five minutes.",
            [_now(f"max({rules.QUEUE_LATENCY}{{{_OPERATOR}}})")],
            unit="s",
            thresholds=_thresholds((None, GREEN), (1, ORANGE), (5, RED)),
        ),
        _stat(
            "Requests that fail",
            "No answer, no valid token, too many, or the API server's own fault.",
            [_now(f"max({rules.API_ERRORS}{{{_OPERATOR}}})")],
            unit="percentunit",
            thresholds=_thresholds((None, GREEN), (0.01, ORANGE), (0.05, RED)),
        ),
        _lines(
            "Reconciliations by result",
            "conflict: somebody wrote in between; it is done again at once.",
            [
                _series(
                    f"sum by (result) (rate(whatsapp_operator_reconcile_total{{{_OPERATOR}}}[$__rate_interval]))",
                    "{{result}}",
                )
            ],
            unit="ops",
            size=(8, 7),
        ),
        _lines(
            "Duration and wait, p99",
            "Of a reconciliation, and of the wait for a worker before it.",
            [
                _series(f"max({rules.RECONCILE_DURATION}{{{_OPERATOR}}})", "reconciliation"),
                _series(f"max({rules.QUEUE_LATENCY}{{{_OPERATOR}}})", "wait"),
            ],
            unit="s",
            size=(8, 7),
        ),
        rollout,
        _lines(
            "Requests to the API server, by code",
            "0: no answer; 403 and 409 belong to the normal work. Renewals of the lease are not among them.",
            [_series(f"sum by (code) (rate({requests}[$__rate_interval]))", "{{code}}")],
            unit="reqps",
            size=(12, 7),
        ),
        _lines(
            "Requests to the API server, by verb",
            "As in RBAC.",
            [_series(f"sum by (verb) (rate({requests}[$__rate_interval]))", "{{verb}}")],
            unit="reqps",
            size=(12, 7),
        ),
    ]


def _pods() -> list[AnyPanel]:
    memory = f"whatsapp_session_resident_memory_bytes{{{_SESSIONS}}}"
    return [
        _lines(
            "Memory of a session pod",
            "Supervisor and worker together.",
            [
                _series(f"quantile(0.5, sum by (namespace, pod) ({memory}))", "median"),
                _series(f"max(sum by (namespace, pod) ({memory}))", "largest"),
            ],
            unit="bytes",
            size=(6, 7),
        ),
        _lines(
            "Round trip of keepalives",
            "Of the last one that was answered.",
            [
                _series(f"quantile(0.5, whatsapp_session_keepalive_latency_seconds{{{_SESSIONS}}})", "median"),
                _series(f"max(whatsapp_session_keepalive_latency_seconds{{{_SESSIONS}}})", "slowest"),
            ],
            unit="s",
            size=(6, 7),
        ),
        _lines(
            "Logins and ends of workers",
            "A session that logs in again and again is flapping.",
            [
                _series(f"sum(increase(whatsapp_session_connects_total{{{_SESSIONS}}}[$__rate_interval]))", "logins"),
                _series(
                    f"sum(increase(whatsapp_session_worker_exits_total{{{_SESSIONS}}}[$__rate_interval]))",
                    "workers that ended",
                ),
            ],
            size=(6, 7),
        ),
        _lines(
            "Messages",
            "Text messages, by direction.",
            [
                _series(
                    f"sum by (direction) (rate(whatsapp_session_messages_total{{{_SESSIONS}}}[$__rate_interval]))",
                    "{{direction}}",
                )
            ],
            unit="ops",
            size=(6, 7),
        ),
    ]


ROWS: Final = (
    ("Sessions", _sessions),
    ("Pairing", _pairing),
    ("Operator", _operator),
    ("Session pods (PodMonitor)", _pods),
)


def _variable(name: str, label: str, query: str) -> cog.Builder[models.VariableModel]:
    variable = builders.QueryVariable(name).label(label).datasource(DATASOURCE).query(query)
    variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    everything = models.VariableOption(selected=True, text="All", value="$__all")
    return variable.include_all(True).all_value(".*").multi(True).current(everything)


def build() -> models.Dashboard:
    dashboard = builders.Dashboard("WhatsApp operator").uid(UID).tags(["whatsapp", "kubernetes"]).readonly()
    dashboard.description("Made by charts/observability/dashboard.py of the WhatsApp operator.")
    dashboard.time("now-6h", "now").refresh("1m").timezone("browser")
    dashboard.tooltip(models.DashboardCursorSync.CROSSHAIR)
    dashboard.with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    operators = "label_values(whatsapp_operator_leader, namespace)"
    sessions = 'label_values({__name__=~"whatsapp_session_(info|connected)"}, namespace)'
    dashboard.with_variable(_variable("operator", "Namespace of the operator", operators))
    dashboard.with_variable(_variable("namespace", "Namespaces of sessions", sessions))
    numbers = itertools.count(1)
    for title, panels in ROWS:
        dashboard.with_row(builders.Row(title).id(next(numbers)))
        for panel in panels():
            dashboard.with_panel(panel.id(next(numbers)))
    return dashboard.build()


def render() -> str:
    """The JSON that Grafana imports."""
    return json.dumps(build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def queries(dashboard: dict[str, Any]) -> list[tuple[str, str]]:
    """Title of the panel and expression of each query of a dashboard's JSON."""
    return [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", ())]
