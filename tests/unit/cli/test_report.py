"""What a report has of a log: its end, where the fault is."""

from datetime import UTC, datetime
from typing import Any

from whatsapp_operator.cli import report
from whatsapp_operator.cli.cluster import Cluster
from whatsapp_operator.kube.client import PODS, Resource
from whatsapp_operator.kube.errors import NotFoundError

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
# Ten megabytes, as much as a kubelet's file holds; the most of it in the oldest line, as that costs nothing.
LOG = [" " * 10_000_000, *(f"line {number}" for number in range(report.LOG_LINES)), "the fault"]


class Logs(Cluster):
    """A cluster of one session and one operator, of which nothing but the logs is there."""

    def __init__(self) -> None:
        self.namespace = "shop"
        self.client: Any = self

    async def get(self, *_: Any) -> Any:
        raise NotFoundError("it is not there")

    async def session(self, name: str) -> Any:
        return {"metadata": {"name": name, "namespace": "shop", "generation": 1}, "spec": {"tenant": "acme"}}

    async def listed(self, resource: Resource, namespace: str | None, *, label_selector: str = "") -> tuple[Any, str]:
        pods = [{"metadata": {"name": "operator-1"}}] if resource is PODS and label_selector else []
        return pods, "1"

    async def may(self, *_: Any, **__: Any) -> bool:
        return True

    async def now(self) -> datetime:
        return NOW

    async def text(self, path: str, **query: str) -> str:
        """As the kubelet does it: it goes back by lines from the end, and then on by bytes."""
        if not path.endswith("/log"):
            raise NotFoundError("it is not there")
        lines = LOG[-int(query["tailLines"]) :] if "tailLines" in query else LOG
        return "\n".join(lines)[: int(query["limitBytes"]) if "limitBytes" in query else None]


async def test_of_a_long_log_it_has_the_end() -> None:
    bundle = await report.collect(Logs(), ["support"], "system")
    for name in ("sessions/support/session.log", "sessions/support/session-before.log", "operator/operator-1.log"):
        assert bundle.files[name].endswith("the fault")
        assert len(bundle.files[name].splitlines()) <= report.LOG_LINES
