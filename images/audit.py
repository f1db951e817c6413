"""Asks a database of known vulnerabilities about every locked Python package, with pip-audit.

PyPI's own database is asked, then OSV's; or the one that is named: a service that speaks OSV's query API, or a folder
with OSV records (its export `PyPI/all.zip`, unpacked or as it is). No answer is not a good answer: a package that a
database does not know of, or a database that does not know what has been known for years, is said to be so.
"""

# ruff: noqa: T201

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from tests.cluster.paths import CHECKOUT

CLEAN, VULNERABLE, UNANSWERED = 0, 1, 3
# Abandoned with a hole (PYSEC-2017-94): a database that does not know of it has not answered.
CANARY = ("pycrypto", "2.6.1")
PUBLIC = {"PyPI": ("-s", "pypi"), "OSV": ("-s", "osv")}


@dataclass(frozen=True)
class Answer:
    """`vulnerable` has a line for each package; `unanswered` says why nothing, or not everything, was answered."""

    vulnerable: tuple[str, ...]
    unanswered: str | None


def locked_in(name: str, root: Path = CHECKOUT) -> dict[str, str]:
    """The version of every package in one file of requirements/."""
    text = (root / "requirements" / name).read_text()
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE))


def locked(root: Path = CHECKOUT) -> dict[str, str]:
    """The version of every package in requirements/."""
    found: dict[str, str] = {}
    for file in sorted((root / "requirements").glob("*.txt")):
        found |= locked_in(file.name, root)
    return found


def ask(packages: Mapping[str, str], service: Sequence[str]) -> Answer:
    """What pip-audit learns from a service, which its options name."""
    with tempfile.TemporaryDirectory(prefix="audit-") as directory:
        requirements = Path(directory) / "requirements.txt"
        requirements.write_text("".join(f"{name}=={version}\n" for name, version in [*packages.items(), CANARY]))
        command = [sys.executable, "-m", "pip_audit", "-r", str(requirements), "--no-deps", "--disable-pip"]
        command += ["-f", "json", "--progress-spinner", "off", *service]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    return read_answer(result.stdout, result.stderr)


def read_answer(output: str, errors: str) -> Answer:
    try:
        found = json.loads(output)["dependencies"]
    except (ValueError, KeyError):
        lines = errors.strip().splitlines() or ["pip-audit said nothing"]
        return Answer((), lines[-1])
    skipped = [entry["name"] for entry in found if "skip_reason" in entry]
    known = {entry["name"]: entry for entry in found if entry.get("vulns")}
    canary = known.pop(CANARY[0], None)
    lines = [
        f"{name} {entry['version']}: {vulnerability['id']}, "
        + (f"fixed in {', '.join(fixes)}" if (fixes := vulnerability["fix_versions"]) else "no fix known")
        for name, entry in sorted(known.items())
        for vulnerability in entry["vulns"]
    ]
    if skipped:
        return Answer(tuple(lines), f"it knows nothing of {len(skipped)} packages, such as {skipped[0]}")
    if not canary:
        return Answer(tuple(lines), f"it does not know that {CANARY[0]} {CANARY[1]} is vulnerable")
    return Answer(tuple(lines), None)


@contextmanager
def serve(database: Path) -> Iterator[str]:
    """The URL of a service on the loopback interface that answers OSV queries from a folder of records."""
    records = read_records(database)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name, version = canonicalize_name(query["package"]["name"]), query["version"]
            found = [record for record in records.get(name, ()) if affects(record, name, version)]
            body = json.dumps({"vulns": found} if found else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()


def read_records(database: Path) -> dict[str, list[dict[str, Any]]]:
    """The OSV records of PyPI in a folder, by canonical name of the package. Raises OSError if there are none."""
    texts = [file.read_bytes() for file in sorted(database.rglob("*.json"))]
    for archive in sorted(database.rglob("*.zip")):
        with zipfile.ZipFile(archive) as members:
            texts += [members.read(name) for name in members.namelist() if name.endswith(".json")]
    records: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in map(json.loads, texts):
        for name in {canonicalize_name(affected["package"]["name"]) for affected in _affected(record)}:
            records[name].append(record)
    if not records:
        raise OSError(f"{database} holds no OSV records of PyPI")
    return records


def _affected(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in record.get("affected", ()) if entry.get("package", {}).get("ecosystem") == "PyPI"]


def affects(record: Mapping[str, Any], name: str, version: str) -> bool:
    """Whether an OSV record names that version, in its list or in a range of versions."""
    for entry in _affected(record):
        if canonicalize_name(entry["package"]["name"]) != name:
            continue
        if version in entry.get("versions", ()):
            return True
        ranges = (found["events"] for found in entry.get("ranges", ()) if found["type"] == "ECOSYSTEM")
        if any(_in_range(events, Version(version)) for events in ranges):
            return True
    return False


def _in_range(events: Sequence[Mapping[str, str]], version: Version) -> bool:
    inside = False
    for event in events:
        for kind, text in event.items():
            try:
                bound = Version(text)
            except InvalidVersion:
                continue
            if kind == "introduced" and version >= bound:
                inside = True
            elif (kind == "fixed" and version >= bound) or (kind == "last_affected" and version > bound):
                inside = False
    return inside


def audit(packages: Mapping[str, str], services: Mapping[str, Sequence[str]]) -> int:
    """Asks one service after the other until one answers; prints what it says. Returns the exit code."""
    for name, options in services.items():
        answer = ask(packages, options)
        for line in answer.vulnerable:
            print(line)
        if answer.vulnerable:
            print(
                f"VULNERABLE, according to {name}: {len(answer.vulnerable)} known in {len(packages)} locked packages."
            )
            print("Remedy: raise the versions in pyproject.toml and run `make lock`.")
            return VULNERABLE
        if answer.unanswered is None:
            print(f"None of {len(packages)} locked packages has a vulnerability that {name} knows of.")
            return CLEAN
        print(f"{name} did not answer: {answer.unanswered}", file=sys.stderr)
    print(
        "NOT AUDITED: no database of vulnerabilities answered, so nothing is known. Remedy: run it where PyPI or"
        " api.osv.dev can be reached, or name a service (OSV_URL=) or a folder with OSV's records (OSV_DATABASE=).",
        file=sys.stderr,
    )
    return UNANSWERED


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m images.audit", description=__doc__)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--osv-url", help="a service that speaks OSV's query API")
    where.add_argument("--database", type=Path, help="a folder with OSV records")
    options = parser.parse_args(arguments)
    if options.osv_url:
        return audit(locked(), {options.osv_url: ("-s", "osv", "--osv-url", options.osv_url)})
    if options.database:
        try:
            with serve(options.database) as url:
                return audit(locked(), {str(options.database): ("-s", "osv", "--osv-url", url)})
        except OSError as error:
            print(f"NOT AUDITED: {error}", file=sys.stderr)
            return UNANSWERED
    return audit(locked(), PUBLIC)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
