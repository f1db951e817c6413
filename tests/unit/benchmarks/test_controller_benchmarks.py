"""The pure parts of `make bench`: what it replays, counts and prints."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.controller import audit, life, profile, report
from tests.benchmarks.controller.audit import OPERATOR, Kind
from tests.benchmarks.controller.life import Recording, Write
from tests.benchmarks.controller.pods import Pod
from tests.benchmarks.controller.scenarios import per_session
from tests.benchmarks.controller.usage import Moment
from whatsapp_operator.api import names
from whatsapp_operator.api.models import SessionReport
from whatsapp_operator.session import report as real_report
from whatsapp_operator.session.state import State

STATUS = Kind("operator", "patch", names.PLURAL, "status")
CREATE_POD = Kind("operator", "create", "pods")
REPORT = Kind("pod", "patch", names.PLURAL, "status")


def recording(*kinds: Kind) -> Recording:
    return Recording(tuple(Write(kind, "", str(number), "", {}) for number, kind in enumerate(kinds)))


@pytest.mark.parametrize("mean", [0.0, 0.3, 1.0, 2.5, 3.0, 4.25])
def test_many_scaled_lives_have_as_many_writes_as_the_operator_made(mean: float) -> None:
    lives = [recording(STATUS, REPORT, STATUS, STATUS).scaled({STATUS: mean}, number) for number in range(100)]
    made = Counter(write.kind for one in lives for write in one.writes)
    assert made[STATUS] == round(mean * 100)
    assert made[REPORT] == 100


def test_a_scaled_life_keeps_the_last_writes_and_creates_nothing_twice() -> None:
    found = recording(STATUS, CREATE_POD, STATUS).scaled({STATUS: 1.0, CREATE_POD: 2.0}, 0)
    assert [write.path for write in found.writes] == ["1", "2"]


def entry(
    user: str, verb: str, resource: str, name: str, body: dict[str, Any], subresource: str = ""
) -> dict[str, Any]:
    about = {"resource": resource, "namespace": audit.RECORDED_NAMESPACE, "name": name, "subresource": subresource}
    uri = f"/namespaces/{audit.RECORDED_NAMESPACE}/{resource}/{name}"
    return {
        "verb": verb,
        "user": {"username": user},
        "objectRef": about,
        "requestURI": uri,
        "requestObject": body,
        "responseStatus": {"code": 200},
    }


def test_a_recorded_life_fits_any_other_session() -> None:
    labels = {names.LABEL_SESSION_UID: "uid-of-it"}
    account = f"system:serviceaccount:{audit.RECORDED_NAMESPACE}:{names.SESSION_SERVICE_ACCOUNT}"
    spec = {"phone": "+15550000007", "tenant": "tenant-7"}
    log = [
        entry("admin", "create", names.PLURAL, "session-7", {"metadata": {"name": "session-7"}, "spec": spec}),
        entry(OPERATOR, "create", "pods", "wa-session-7", {"metadata": {"name": "wa-session-7", "labels": labels}}),
        entry("kubelet", "patch", "pods", "wa-session-7", {"status": {}}, "status"),
        entry(account, "patch", names.PLURAL, "session-7", {"status": {"session": {"podUID": "pod-uid"}}}, "status"),
        entry(OPERATOR, "patch", names.PLURAL, "session-7", {"metadata": {"resourceVersion": "41"}}, "status"),
    ]
    [found] = life.record(log)
    known = life.names_of("bench", 12) | {"<uid>": "u", "<pod>": "p", "<version>": "99"}
    bodies = [json.loads(life.filled(write.body, known)) for write in found.writes]
    assert [write.kind.actor for write in found.writes] == ["other", "operator", "pod", "operator"]
    assert bodies[0]["spec"] == {"phone": "+15550000012", "tenant": "tenant-1"}
    assert bodies[1]["metadata"] == {"name": "wa-session-12", "labels": {names.LABEL_SESSION_UID: "u"}}
    assert bodies[2]["status"]["session"]["podUID"] == "p"
    assert bodies[3]["metadata"]["resourceVersion"] == "99"
    assert life.filled(found.writes[3].path, known) == f"/namespaces/bench/{names.PLURAL}/session-12"
    pod = {key: life.filled(value, known) for key, value in found.writes[2].headers.items()}
    assert pod["Impersonate-User"] == f"system:serviceaccount:bench:{names.SESSION_SERVICE_ACCOUNT}"


@pytest.mark.parametrize("machine", ["ShowingQR", "Authenticating", "Connected", "Unlinked"])
def test_the_stand_in_reports_what_a_pod_does(machine: str) -> None:
    document = json.dumps({"phone": None})
    found = Pod("n", "s", uid="u", document=document, machine=machine, attempt="a" if machine == "ShowingQR" else None)
    told = found.report("Connected")
    SessionReport.model_validate(told, strict=False)
    real = real_report.build(State(), pod_uid="u", boot_id="b")
    assert told.keys() == real.keys() | {"reportedAt"}
    for part in ("credentials", "connection", "pairing"):
        assert told[part].keys() == real[part].keys()


def test_writes_are_told_by_who_made_them() -> None:
    kinds = Counter(
        {
            STATUS: 6,
            REPORT: 4,
            Kind("operator", "create", "events"): 2,
            Kind("operator", "create", "serviceaccounts"): 1,
        }
    )
    assert per_session(kinds, 2) == {"operator": 3.0, "events": 1.0, "pod": 2.0}


def test_what_no_process_of_ours_has_used_others_have() -> None:
    used = Moment({"operator": 5.0, "etcd": 2.0}, 20.0).since(Moment({"operator": 1.0}, 10.0))
    assert used == {"operator": 4.0, "etcd": 2.0, "others": 4.0}


STACKS = {
    "run (asyncio/runners.py:1);work (whatsapp_operator/controller/queue.py:9);dumps (json/__init__.py:3)": 3,
    "run (asyncio/runners.py:1);work (whatsapp_operator/controller/queue.py:12)": 1,
    "run (asyncio/runners.py:1)": 4,
}


def test_a_profile_tells_whose_code_it_is_and_what_is_behind_a_function() -> None:
    waiting = {"run (asyncio/runners.py:1);EpollSelector.select (selectors.py:468)": 7}
    assert profile.working(STACKS | waiting) == STACKS
    assert profile.by_package(STACKS) == [("asyncio", 0.5), ("json", 0.375), ("whatsapp_operator", 0.125)]
    assert profile.by_function(STACKS) == [("controller.queue.work", 0.5)]


def test_a_page_says_what_is_held_and_what_is_missed(tmp_path: Path) -> None:
    machine = {"date": "2026-11-21 10:00", "cores": 2, "cpu": "x", "minutes": 20.0}
    few = {"sessions": 500, "ratio": 1.2}
    many = {"sessions": 1000, "ratio": 1.2}
    page_of_metrics = {"sessions": 5000, "seconds": 1.5, "bytes": 2_000_000}
    results = {"alone": {"median_ms": 39.9}, "converge 500": few, "converge 1000": many, "metrics": page_of_metrics}
    text = report.page({"machine": machine, "results": results})
    verdicts = [line.split(" | ")[-1].strip(" |") for line in text.splitlines() if line.startswith("| ")][2:]
    assert verdicts == ["held", "held, to be held with 1,000", "held", "**missed**", "held"]
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.insert(page, text)
    assert "old" not in page.read_text()
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith(f"{report.END}\nafter\n")
    page.write_text("nothing")
    with pytest.raises(ValueError, match="marks"):
        report.insert(page, text)
