"""Each alert fires when it should, and does not when it need not: by promtool, on the committed rules."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts.observability import ROOT, RULES, rules
from tests.cluster import binaries

OPERATOR = 'namespace="system"'
A, B = (f'{OPERATOR}, pod="operator-{name}"' for name in "ab")


@dataclass(frozen=True)
class Case:
    """What is scraped every minute, in promtool's notation, and what is told of it at a time.

    Attributes:
        labels: of the alert that fires, without its severity; None: it does not fire.
        summary: as it is told then.
    """

    alert: str
    name: str
    series: dict[str, str]
    at: str
    labels: dict[str, str] | None = None
    summary: str = ""


def outcomes(
    labels: str = A, *, succeeded: str, failed: str, unscanned: str = "0x60", method: str = "QRCode"
) -> dict[str, str]:
    """Cumulative numbers of pairing attempts."""
    found = {"Succeeded/Paired": succeeded, "Failed/NotPaired": failed, "Failed/Expired": unscanned}
    return {
        f'whatsapp_pairing_attempts_total{{{labels}, method="{method}", result="{result}", reason="{reason}"}}': values
        for (result, reason), values in ((outcome.split("/"), values) for outcome, values in found.items())
    }


def info(name: str, phase: str, reason: str, pod: str = "operator-a") -> str:
    labels = f'namespace="team", name="{name}", tenant="acme", phase="{phase}", reason="{reason}", pod="{pod}"'
    return f"whatsapp_session_info{{{labels}}}"


def connects(instance: str) -> str:
    return f'whatsapp_session_connects_total{{namespace="team", pod="wa-one", instance="{instance}"}}'


def phases(labels: str = A, **counts: str) -> dict[str, str]:
    """Of all phases that the rules look at; those that are not given are 0."""
    known = {"Pending": "0x60", "Disconnected": "0x60", "Stalled": "0x60", "Connected": "0x60", **counts}
    return {f'whatsapp_sessions{{{labels}, phase="{phase}"}}': values for phase, values in known.items()}


def reason(name: str, values: str, labels: str = A) -> dict[str, str]:
    return {f'whatsapp_sessions_by_reason{{{labels}, reason="{name}"}}': values}


def scans(quick: str, slow: str, labels: str = A) -> dict[str, str]:
    """Cumulative numbers of scans within 60 s, and within 160 s."""
    metric = "whatsapp_pairing_time_to_scan_seconds"
    buckets = {"60": quick, "120": quick, "160": slow, "+Inf": slow}
    found = {f'{metric}_bucket{{{labels}, le="{le}"}}': values for le, values in buckets.items()}
    return {**found, f"{metric}_count{{{labels}}}": slow}


def waits(quick: str, every: str, labels: str = A) -> dict[str, str]:
    """Cumulative numbers of waits in the queue of at most 0.01 s, and of at most 15 s."""
    metric = "whatsapp_operator_queue_latency_seconds_bucket"
    buckets = {"0.01": quick, "5": quick, "15": every, "+Inf": every}
    return {f'{metric}{{{labels}, le="{le}"}}': values for le, values in buckets.items()}


def requests(code: int, values: str, labels: str = A) -> dict[str, str]:
    return {f'whatsapp_operator_api_requests_total{{{labels}, verb="patch", code="{code}"}}': values}


def one_session(phase: str, why: str, summary: str, alert: str, *, at: str, too_early: str, other: str) -> list[Case]:
    """What the alerts of single sessions have in common; `other` is a phase of which the alert says nothing."""
    told = {"namespace": "team", "name": "one", "tenant": "acme"}
    return [
        Case(alert, "as long as that", {info("one", phase, why): "1x60"}, at, told, summary),
        Case(alert, "not as long yet", {info("one", phase, why): "1x60"}, too_early),
        Case(alert, "in another phase", {info("one", other, why): "1x60"}, at),
        Case(
            alert,
            "while another replica took over",
            # Scraped by nobody for two minutes.
            {info("one", phase, why): "1x4 stale", info("one", phase, why, "operator-b"): "_x7 1x60"},
            at,
            told,
            summary,
        ),
        Case(
            alert,
            "it was, and is not any more",
            {info("one", phase, why): "1x4 stale", info("one", other, why, "operator-b"): "_x6 1x60"},
            at,
        ),
        Case(alert, "it was deleted", {info("one", phase, why): "1x4 stale"}, at),
        Case(alert, "without the gauges of single sessions", phases(**{phase: "1x60"}), at),
    ]


CASES = (
    Case(
        "WhatsAppPairingFailing",
        "two of six, by QR",
        outcomes(succeeded="0 2x60", failed="0 4x60"),
        "20m",
        {"namespace": "system", "method": "QRCode"},
        "Only 33.33% of the pairing attempts by QRCode succeed.",
    ),
    Case(
        "WhatsAppPairingFailing",
        "all of them",
        outcomes(succeeded="0x60", failed="0 6x60"),
        "20m",
        {"namespace": "system", "method": "QRCode"},
        "Only 0% of the pairing attempts by QRCode succeed.",
    ),
    Case(
        "WhatsAppPairingFailing",
        "counted by two processes, one after the other",
        outcomes(succeeded="0 1x4 stale", failed="0 3x4 stale") | outcomes(B, succeeded="0x7 1x60", failed="0x7 3x60"),
        "20m",
        {"namespace": "system", "method": "QRCode"},
        "Only 25% of the pairing attempts by QRCode succeed.",
    ),
    Case(
        "WhatsAppPairingFailing",
        "nobody scanned",
        outcomes(succeeded="0 5x60", failed="0x60", unscanned="0 50x60"),
        "20m",
    ),
    Case(
        "WhatsAppPairingFailing",
        "too few to say",
        outcomes(succeeded="0x60", failed="0 3x60"),
        "20m",
    ),
    Case(
        "WhatsAppPairingFailing",
        "none at all",
        outcomes(succeeded="0x60", failed="0x60"),
        "20m",
    ),
    Case(
        "WhatsAppPairingFailing",
        "the process begins anew: 9 of 10 before and after",
        outcomes(succeeded="0 9x10 0 9x40", failed="0 1x10 0 1x40"),
        "50m",
    ),
    Case(
        "WhatsAppPairingDegraded",
        "28 of 40 in a day",
        outcomes(method="PairingCode", succeeded="0 28x1500", failed="0 12x1500"),
        "10h",
        {"namespace": "system", "method": "PairingCode"},
        "Only 70% of a day's pairing attempts by PairingCode succeed.",
    ),
    Case(
        "WhatsAppPairingDegraded",
        "36 of 40 in a day",
        outcomes(succeeded="0 36x1500", failed="0 4x1500"),
        "10h",
    ),
    Case(
        "WhatsAppPairingScanSlow",
        "half of them take more than two minutes",
        scans("0 10x60", "0 20x60"),
        "30m",
        {"namespace": "system"},
        "One in ten people needs more than 2m 32s to scan.",
    ),
    Case("WhatsAppPairingScanSlow", "19 of 20 take less than one", scans("0 19x60", "0 20x60"), "30m"),
    Case("WhatsAppPairingScanSlow", "too few to say", scans("0 1x60", "0 4x60"), "30m"),
    *one_session(
        "Disconnected",
        "ConnectFailure",
        "Session team/one of tenant acme is not connected.",
        "WhatsAppSessionNotConnected",
        at="20m",
        too_early="10m",
        other="Connected",
    ),
    Case(
        "WhatsAppSessionNotConnected",
        "its pod comes and goes",
        {
            info("one", "Disconnected", "ConnectFailure"): "1x5 stale _x5 1x60",
            info("one", "Pending", "PodPending"): "_x6 1x5 stale",
        },
        "25m",
        {"namespace": "team", "name": "one", "tenant": "acme"},
        "Session team/one of tenant acme is not connected.",
    ),
    Case("WhatsAppSessionNotConnected", "banned", {info("one", "Disconnected", "TemporaryBan"): "1x60"}, "20m"),
    *one_session(
        "Stalled",
        "AttemptsExhausted",
        "Session team/one of tenant acme waits for a person.",
        "WhatsAppSessionStalled",
        at="20m",
        too_early="3m",
        other="Suspended",
    ),
    Case(
        "WhatsAppSessionStalled",
        "its container ends and is backed off",
        {info("one", "Stalled", "CrashLooping"): "1x60"},
        "20m",
    ),
    # What the kubelet does: it backs off for longer and longer, and the container runs for a minute each time.
    *(
        Case(
            "WhatsAppSessionCrashLooping",
            f"each time as {phase}",
            {
                info("one", "Stalled", "CrashLooping"): " ".join(["1x3 stale"] * 12),
                info("one", phase, why): " ".join(["_x4 1 stale", *["_x3 1 stale"] * 11]),
            },
            "45m",
            {"namespace": "team", "name": "one", "tenant": "acme"},
            "The container of session team/one of tenant acme ends again and again.",
        )
        for phase, why in (
            ("Disconnected", "Connecting"),
            ("Pending", "PodPending"),
            ("Starting", "Connecting"),
            ("Connected", "Connected"),
        )
    ),
    Case(
        "WhatsAppSessionCrashLooping",
        "while another replica took over",
        {
            info("one", "Stalled", "CrashLooping"): "1x7 stale",
            info("one", "Stalled", "CrashLooping", "operator-b"): "_x10 1x60",
        },
        "20m",
        {"namespace": "team", "name": "one", "tenant": "acme"},
        "The container of session team/one of tenant acme ends again and again.",
    ),
    Case(
        "WhatsAppSessionCrashLooping",
        "it ended twice",
        {
            info("one", "Stalled", "CrashLooping"): "1x2 stale _x5 1x2 stale",
            info("one", "Connected", "Connected"): "_x3 1x4 stale _x3 1x60",
        },
        "20m",
    ),
    Case(
        "WhatsAppSessionCrashLooping",
        "it was mended",
        {info("one", "Stalled", "CrashLooping"): "1x15 stale", info("one", "Connected", "Connected"): "_x16 1x60"},
        "45m",
    ),
    Case(
        "WhatsAppSessionCrashLooping",
        "it was deleted",
        {info("one", "Stalled", "CrashLooping"): "1x15 stale"},
        "25m",
    ),
    Case("WhatsAppSessionCrashLooping", "another reason", {info("one", "Stalled", "AttemptsExhausted"): "1x60"}, "50m"),
    Case("WhatsAppSessionStalled", "outdated", {info("one", "Stalled", "ClientOutdated"): "1x60"}, "20m"),
    *one_session(
        "Starting",
        "RateLimited",
        "Session team/one of tenant acme is not paired after half an hour.",
        "WhatsAppSessionStuckInPairing",
        at="40m",
        too_early="20m",
        other="Expired",
    ),
    Case(
        "WhatsAppSessionStuckInPairing",
        "one window after the other",
        {
            info("one", "WaitingForScan", "WaitingForScan"): "1x20 stale _x5 1x60",
            info("one", "Authenticating", "Connecting"): "_x21 1x5 stale",
        },
        "45m",
        {"namespace": "team", "name": "one", "tenant": "acme"},
        "Session team/one of tenant acme is not paired after half an hour.",
    ),
    Case(
        "WhatsAppSessionFlapping",
        "ten logins",
        {'whatsapp_session_connects_total{namespace="team", pod="wa-one"}': "0+1x10 10x60"},
        "59m",
        {"namespace": "team", "pod": "wa-one"},
        "Pod team/wa-one logs in 10 times an hour.",
    ),
    Case(
        "WhatsAppSessionFlapping",
        "nine pods, one after the other, that had logged in before they were scraped",
        {connects(f"10.0.0.{n}:8080"): f"_x{5 * n} 1x4 stale" for n in range(1, 10)},
        "59m",
        {"namespace": "team", "pod": "wa-one"},
        "Pod team/wa-one logs in 9 times an hour.",
    ),
    Case(
        "WhatsAppSessionFlapping",
        "three pods, each of which lost its connection twice",
        {connects(f"10.0.0.{n}:8080"): f"_x{15 * n - 15} 1x4 2x4 3x5 stale" for n in range(1, 4)},
        "59m",
        {"namespace": "team", "pod": "wa-one"},
        "Pod team/wa-one logs in 9 times an hour.",
    ),
    Case(
        "WhatsAppSessionFlapping",
        "five pods that are seen from before their login",
        {connects(f"10.0.0.{n}:8080"): f"_x{5 * n} 0 1x3 stale" for n in range(1, 6)},
        "59m",
    ),
    Case("WhatsAppSessionFlapping", "many logins long ago", {connects("10.0.0.1:8080"): "50x180"}, "150m"),
    Case("WhatsAppSessionFlapping", "the first that is scraped of it", {connects("10.0.0.1:8080"): "50x180"}, "30m"),
    Case(
        "WhatsAppSessionFlapping",
        "ten logins in ten hours",
        {'whatsapp_session_connects_total{namespace="team", pod="wa-one"}': "1x60 2x60 3x60 4x60 5x60 6x60 7x60 8x60"},
        "470m",
    ),
    Case(
        "WhatsAppSessionsDown",
        "five of twenty",
        phases(Connected="15x60", Disconnected="3x60", Stalled="2x60") | phases(B),
        "20m",
        {"namespace": "system"},
        "25% of the sessions are not connected.",
    ),
    Case(
        "WhatsAppSessionsDown",
        "while another replica took over",
        phases(Connected="15x4 stale", Disconnected="5x4 stale", Pending="0x4 stale", Stalled="0x4 stale")
        | phases(B, Connected="0x7 15x60", Disconnected="0x7 5x60"),
        "20m",
        {"namespace": "system"},
        "25% of the sessions are not connected.",
    ),
    Case("WhatsAppSessionsDown", "five of fifty", phases(Connected="45x60", Disconnected="5x60"), "20m"),
    Case("WhatsAppSessionsDown", "one of two", phases(Connected="1x60", Disconnected="1x60"), "20m"),
    Case("WhatsAppSessionsDown", "no session", phases(), "20m"),
    Case(
        "WhatsAppSessionsBanned",
        "two",
        reason("TemporaryBan", "0 0 2x60") | reason("TemporaryBan", "0x60", B),
        "5m",
        {"namespace": "system"},
        "2 sessions are banned by WhatsApp for a time.",
    ),
    Case(
        "WhatsAppSessionsBanned",
        "while another replica takes over",
        reason("TemporaryBan", "2x4 stale") | reason("TemporaryBan", "0x60", B),
        "6m",
        {"namespace": "system"},
        "2 sessions are banned by WhatsApp for a time.",
    ),
    Case("WhatsAppSessionsBanned", "it is over", reason("TemporaryBan", "2x4 0x60"), "15m"),
    Case("WhatsAppSessionsBanned", "another reason", reason("ConnectFailure", "2x60"), "15m"),
    Case(
        "WhatsAppClientOutdated",
        "three",
        reason("ClientOutdated", "3x60"),
        "10m",
        {"namespace": "system"},
        "3 sessions are refused because their client is outdated.",
    ),
    Case("WhatsAppClientOutdated", "not as long yet", reason("ClientOutdated", "3x60"), "3m"),
    Case("WhatsAppClientOutdated", "none", reason("ClientOutdated", "0x60"), "10m"),
    Case(
        "WhatsAppOperatorDown",
        "nobody answers",
        {f"whatsapp_operator_leader{{{A}}}": "1x5 stale", f"whatsapp_operator_leader{{{B}}}": "0x5 stale"},
        "15m",
        {},
        "No replica of the operator is scraped.",
    ),
    Case("WhatsAppOperatorDown", "never there", {"up": "1x60"}, "15m", {}, "No replica of the operator is scraped."),
    Case(
        "WhatsAppOperatorDown",
        "one is left",
        {f"whatsapp_operator_leader{{{A}}}": "1x5 stale", f"whatsapp_operator_leader{{{B}}}": "0x60"},
        "15m",
    ),
    Case(
        "WhatsAppOperatorNotLeading",
        "two stand by",
        {f"whatsapp_operator_leader{{{A}}}": "1x5 0x60", f"whatsapp_operator_leader{{{B}}}": "0x60"},
        "15m",
        {"namespace": "system"},
        "No replica of the operator in system leads.",
    ),
    Case(
        "WhatsAppOperatorNotLeading",
        "one takes over",
        {f"whatsapp_operator_leader{{{A}}}": "1x5 0x60", f"whatsapp_operator_leader{{{B}}}": "0x6 1x60"},
        "15m",
    ),
    Case(
        "WhatsAppOperatorQueueSlow",
        "most wait for seconds",
        waits("0+1x60", "0+10x60") | waits("0x60", "0x60", B),
        "30m",
        {"namespace": "system"},
        "In system sessions wait 14.89s for the operator.",
    ),
    Case("WhatsAppOperatorQueueSlow", "none does", waits("0+10x60", "0+10x60"), "30m"),
    Case("WhatsAppOperatorQueueSlow", "there is nothing to do", waits("0x60", "0x60"), "30m"),
    Case("WhatsAppOperatorQueueSlow", "only after the start", waits("0 0+10x60", "300 300+10x60"), "30m"),
    Case(
        "WhatsAppOperatorApiErrors",
        "one in ten is throttled",
        requests(200, "0+27x60") | requests(429, "0+3x60") | requests(200, "0x60", B),
        "30m",
        {"namespace": "system"},
        "10% of the requests of the operator in system fail.",
    ),
    Case(
        "WhatsAppOperatorApiErrors",
        "nobody answers",
        requests(200, "50x60") | requests(0, "0+5x60"),
        "30m",
        {"namespace": "system"},
        "100% of the requests of the operator in system fail.",
    ),
    Case(
        "WhatsAppOperatorApiErrors",
        "what belongs to the work",
        requests(200, "0+20x60") | requests(404, "0+5x60") | requests(409, "0+5x60"),
        "30m",
    ),
    Case("WhatsAppOperatorApiErrors", "two of two", requests(200, "5x60") | requests(500, "0x20 2x60"), "30m"),
    Case(
        "WhatsAppRolloutStopped",
        "one is overdue",
        {
            f'whatsapp_operator_rollout_sessions{{{A}, state="overdue"}}': "0 1x60",
            f'whatsapp_operator_rollout_sessions{{{B}, state="overdue"}}': "0x60",
        },
        "15m",
        {"namespace": "system"},
        "1 sessions did not come back from the rollout.",
    ),
    Case(
        "WhatsAppRolloutStopped",
        "it goes on",
        {
            f'whatsapp_operator_rollout_sessions{{{A}, state="overdue"}}': "0x60",
            f'whatsapp_operator_rollout_sessions{{{A}, state="in_progress"}}': "5x60",
        },
        "15m",
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def promtool() -> Path:
    return binaries.ensure("prometheus", ["promtool"]) / "promtool"


def run(promtool: Path, *arguments: str) -> None:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def described(case: Case) -> dict[str, Any]:
    """The case as promtool reads it."""
    expected = []
    if case.labels is not None:
        [alert] = [alert.dump() for alert in rules.alerts() if alert.name == case.alert]
        annotations = {**alert["annotations"], "summary": case.summary}
        expected = [{"exp_labels": {**alert["labels"], **case.labels}, "exp_annotations": annotations}]
    return {
        "name": case.name,
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "alert_rule_test": [{"eval_time": case.at, "alertname": case.alert, "exp_alerts": expected}],
    }


@pytest.mark.parametrize("alert", [alert.name for alert in rules.alerts()])
def test_an_alert_fires_when_it_should(alert: str, promtool: Path, tmp_path: Path) -> None:
    cases = [case for case in CASES if case.alert == alert]
    assert any(case.labels is not None for case in cases), f"{alert} is never seen to fire"
    assert any(case.labels is None for case in cases), f"{alert} is never seen not to fire"
    test = {
        "rule_files": [str(ROOT / RULES)],
        "evaluation_interval": "1m",
        "fuzzy_compare": True,
        "tests": [described(case) for case in cases],
    }
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(test))
    run(promtool, "test", "rules", str(tmp_path / "cases.yaml"))


def test_the_rules_are_as_promtool_wants_them(promtool: Path) -> None:
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", str(ROOT / RULES))


def test_no_case_is_left_out() -> None:
    assert {case.alert for case in CASES} == {alert.name for alert in rules.alerts()}
