"""A real Prometheus inside the local cluster's network, that follows a whole run of the end-to-end tests.

python -m tests.observability.prometheus     starts it anew; it goes with the cluster
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from charts.observability import ROOT, RULES
from charts.render import render
from tests.cluster import binaries, context, processes
from tests.cluster.errors import ClusterError
from tests.cluster.namespace import Namespace
from tests.cluster.paths import ClusterPaths, cluster_paths
from tests.observability.scrape import scrape_configs
from tests.waiting import eventually

PORT: Final = 9090
# Often, for a run lasts minutes and a test cannot wait for half of one.
INTERVAL: Final = "2s"


@dataclass(frozen=True)
class Series:
    """Labels, and the values with their times (seconds since 1970)."""

    labels: Mapping[str, str]
    values: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Prometheus:
    """The HTTP API of one that runs."""

    url: str

    def call(self, path: str, **parameters: str) -> Any:
        """The data of an answer.

        Raises:
            ValueError: Prometheus refuses the request, and why.
        """
        request = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{parameters}: {error.read().decode()}") from None

    def now(self, expr: str) -> list[Series]:
        """An instant query; of a range selector, the raw samples."""
        found = self.call("query", query=expr)["result"]
        return [_series(one, one.get("values") or [one["value"]]) for one in found]

    def over(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """A range query."""
        found = self.call("query_range", query=expr, start=str(start), end=str(end), step=str(step))["result"]
        return [_series(one, one["values"]) for one in found]

    def is_ready(self) -> bool:
        try:
            return bool(self.call("targets", state="active")["activeTargets"])
        except (OSError, ValueError):
            # It is refused until all of it has started.
            return False


def _series(found: dict[str, Any], values: list[Any]) -> Series:
    return Series(found["metric"], tuple((float(at), float(value)) for at, value in values))


def monitors() -> list[dict[str, Any]]:
    """The ServiceMonitor and the PodMonitor of the chart."""
    rendered = render({"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}})
    return [found for found in rendered if found["kind"] in ("ServiceMonitor", "PodMonitor")]


def configuration(rules: str, kubeconfig: str) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [rules],
        "scrape_configs": scrape_configs(monitors(), kubeconfig),
    }


def _running(paths: ClusterPaths) -> list[int]:
    found = []
    for pid in processes.marked(paths.mark):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/comm").read_text() == "prometheus\n":
                found.append(pid)
    return found


def running() -> Prometheus | None:
    """The one in this checkout's cluster, if it runs."""
    if not context.target().own:
        return None
    paths = cluster_paths()
    return Prometheus(_url(paths)) if _running(paths) else None


def _url(paths: ClusterPaths) -> str:
    """The node's address is the one that the host reaches."""
    addresses = json.loads(Namespace(paths).run(["ip", "-json", "-4", "address", "show", "dev", "eth0"]))
    return f"http://{addresses[0]['addr_info'][0]['local']}:{PORT}"


def start() -> Prometheus:
    """Starts it with no data; one that runs is ended before.

    Raises:
        ClusterError: the cluster is not one of this checkout.
    """
    if not context.target().own:
        raise ClusterError("Prometheus runs in the cluster of this checkout only")
    paths = cluster_paths()
    for pid in _running(paths):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not _running(paths), "the former Prometheus is gone")
    data = paths.root / "prometheus"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    rules = data / "rules.yaml"
    shutil.copy(ROOT / RULES, rules)
    (data / "prometheus.yaml").write_text(yaml.safe_dump(configuration(str(rules), str(paths.kubeconfig))))
    program = binaries.ensure("prometheus") / "prometheus"
    command = [
        str(program),
        f"--config.file={data / 'prometheus.yaml'}",
        f"--storage.tsdb.path={data / 'data'}",
        f"--web.listen-address=0.0.0.0:{PORT}",
    ]
    process = Namespace(paths).start_process("prometheus", command)
    found = Prometheus(_url(paths))

    def ready() -> bool:
        if process.poll() is not None:
            raise ClusterError(f"Prometheus has ended:\n{processes.tail(paths.logs / 'prometheus.log')}")
        return found.is_ready()

    eventually(ready, "Prometheus has found what to scrape", seconds=120)
    return found


def main() -> int:
    try:
        print(start().url if context.target().own else "not on another cluster")  # noqa: T201
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
