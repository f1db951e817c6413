"""An audit says that packages are clean only if a database said so."""

import json
import socket
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from images import audit

SAFE = {"anyio": "4.16.0"}


def record(name: str, **affected: Any) -> dict[str, Any]:
    package = {"name": name, "ecosystem": "PyPI"}
    return {"id": f"TEST-{name}", "schema_version": "1.6.0", "affected": [{"package": package, **affected}]}


def fixed_in(version: str) -> dict[str, Any]:
    return {"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": version}]}]}


CANARY = record(audit.CANARY[0], versions=[audit.CANARY[1]])


def ask(database: Path, records: list[dict[str, Any]], packages: Mapping[str, str]) -> int:
    for entry in records:
        (database / f"{entry['id']}.json").write_text(json.dumps(entry))
    with audit.serve(database) as url:
        return audit.audit(packages, {"the folder": ("-s", "osv", "--osv-url", url)})


def test_what_no_record_names_is_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(tmp_path, [CANARY, record("anyio", **fixed_in("4.16.0"))], SAFE) == audit.CLEAN
    assert "None of 1 locked packages" in capsys.readouterr().out


def test_what_a_record_names_fails_with_the_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(tmp_path, [CANARY, record("anyio", **fixed_in("4.17"))], SAFE) == audit.VULNERABLE
    assert "anyio 4.16.0: TEST-anyio, fixed in 4.17" in capsys.readouterr().out


def test_a_service_that_knows_nothing_has_not_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(tmp_path, [record("other", **fixed_in("2"))], SAFE) == audit.UNANSWERED
    said = capsys.readouterr()
    assert "NOT AUDITED" in said.err
    assert "None of" not in said.out


def test_a_service_that_is_away_has_not_answered(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening: every connection is refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1/query"
        assert audit.main(["--osv-url", url]) == audit.UNANSWERED
    assert "NOT AUDITED" in capsys.readouterr().err


def test_a_folder_without_records_has_not_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["--database", str(tmp_path)]) == audit.UNANSWERED
    assert "holds no OSV records" in capsys.readouterr().err


def test_records_are_read_from_osvs_export_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as export:
        export.writestr("TEST-1.json", json.dumps(record("Some.Package", versions=["1"])))
        export.writestr(
            "TEST-2.json", json.dumps({"id": "GO-1", "affected": [{"package": {"ecosystem": "Go", "name": "x"}}]})
        )
    assert list(audit.read_records(tmp_path)) == ["some-package"]


def test_packages_that_the_database_does_not_know_of_are_not_called_clean() -> None:
    entries = [
        {"name": "pycrypto", "version": "2.6.1", "vulns": [{"id": "X", "fix_versions": []}]},
        {"name": "anyio", "skip_reason": "Dependency not found on PyPI"},
    ]
    answer = audit.read_answer(json.dumps({"dependencies": entries}), "")
    assert answer.unanswered == "it knows nothing of 1 packages, such as anyio"


@pytest.mark.parametrize(
    ("version", "expected"), [("0.9", False), ("1.0", True), ("1.4", True), ("1.5", False), ("2.1", True), ("3", False)]
)
def test_ranges_open_and_close(version: str, expected: bool) -> None:
    events = [{"introduced": "1.0"}, {"fixed": "1.5"}, {"introduced": "2.0"}, {"last_affected": "2.9"}]
    assert audit.affects(record("p", ranges=[{"type": "ECOSYSTEM", "events": events}]), "p", version) is expected


def test_every_lock_file_is_asked_about() -> None:
    assert {"kopf", "neonize", "doubleratchet", "typer"} <= audit.locked().keys()
