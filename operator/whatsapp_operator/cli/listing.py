"""`kubectl wa list`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from rich.text import Text

from whatsapp_operator.api.names import API_VERSION, GROUP, KIND
from whatsapp_operator.api.reasons import ConditionType
from whatsapp_operator.cli.cluster import Cluster
from whatsapp_operator.cli.output import Format, Output, aligned, either, phase, status, stripped
from whatsapp_operator.cli.reading import Session
from whatsapp_operator.cli.refusals import PASSING
from whatsapp_operator.cli.words import plain, since
from whatsapp_operator.kube.client import SESSIONS, Object
from whatsapp_operator.kube.errors import GoneError, UnreachableError

WATCH_SECONDS: Final = 240
# Seconds before a watch that has failed is opened again.
PAUSE: Final = 1.0
_SHORT: Final = ("NAME", "TENANT", "PHONE", "PHASE", "REASON", "AGE")
_WIDE: Final = ("LINKED", "PRIMARY", "QR", "PAIRED", "CONNECTED", "SINCE", "NODE", "RESTARTS", "MESSAGE")
_TOLD: Final = (ConditionType.QR_READY, ConditionType.AUTH_PAIRED, ConditionType.CONNECTED)
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is listed, and how."""

    everywhere: bool = False
    selector: str = ""
    form: Format | None = None

    @property
    def wide(self) -> bool:
        return self.form is Format.WIDE

    @property
    def header(self) -> tuple[str, ...]:
        return (("NAMESPACE",) if self.everywhere else ()) + _SHORT + (_WIDE if self.wide else ())

    def row(self, item: Object, now: datetime) -> list[str | Text]:
        session = Session(item)
        ready = session.condition(ConditionType.READY)
        cells: list[str | Text] = [session.namespace] if self.everywhere else []
        cells += [
            session.name,
            either(session.spec.get("tenant")),
            either(session.spec.get("phone")),
            phase(session.phase),
            either(ready.reason),
            since(item["metadata"].get("creationTimestamp"), now),
        ]
        if self.wide:
            pod = session.part("pod")
            cells += [
                either(session.status.get("phone")),
                "true" if session.status.get("primary") else "false",
                *(status(session.condition(kind).status) for kind in _TOLD),
                since(session.part("connection").get("since"), now),
                either(pod.get("node")),
                str(pod.get("restarts") or 0),
                either(ready.message),
            ]
        return cells


async def show(cluster: Cluster, output: Output, wanted: Wanted, *, watch: bool) -> None:
    """All sessions, and with `watch` a row for each change that shows, until interrupted."""
    found, version = await cluster.sessions(everywhere=wanted.everywhere, label_selector=wanted.selector)
    now = await cluster.now()
    if wanted.form in (Format.JSON, Format.YAML):
        # kubectl's own form of several objects.
        output.document({"apiVersion": "v1", "kind": "List", "items": [_whole(item) for item in found]}, wanted.form)
    elif wanted.form is Format.NAME:
        for item in found:
            output.line(_name(item))
    elif found or watch:
        output.table(wanted.header, [wanted.row(item, now) for item in found])
    else:
        output.say(f"No sessions in {'any namespace' if wanted.everywhere else f'namespace {cluster.namespace}'}.")
    if watch:
        await _Follower(cluster, output, wanted, found).follow(version)


class _Follower:
    def __init__(self, cluster: Cluster, output: Output, wanted: Wanted, found: Sequence[Object]) -> None:
        self._cluster = cluster
        self._output = output
        self._wanted = wanted
        self._widths = [len(title) for title in wanted.header]
        self._known: dict[str, Object] = {item["metadata"]["uid"]: item for item in found}
        for item in found:
            self._told(item)

    async def follow(self, version: str | None) -> None:
        wanted = self._wanted
        namespace = None if wanted.everywhere else self._cluster.namespace
        told = ""
        while True:
            try:
                if version is None:
                    version = await self._compare()
                async for event in self._cluster.client.watch(
                    SESSIONS, namespace, version=version, seconds=WATCH_SECONDS, label_selector=wanted.selector
                ):
                    told = ""
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        await self._tell(event["object"], deleted=event["type"] == "DELETED")
            except GoneError:
                version = None
            except PASSING as error:
                # One that was open breaks now and then; what does not open is told.
                if error.message != told and not (isinstance(error, UnreachableError) and error.code):
                    told = error.message
                    self._output.say(f"The API server does not answer, trying again: {plain(error.message)}")
                await asyncio.sleep(PAUSE)

    async def _compare(self) -> str:
        """Tell what has changed and what is gone since; the version that is as of now."""
        found, version = await self._cluster.sessions(
            everywhere=self._wanted.everywhere, label_selector=self._wanted.selector
        )
        there = {item["metadata"]["uid"] for item in found}
        for item in [item for uid, item in self._known.items() if uid not in there]:
            await self._tell(item, deleted=True)
        for item in found:
            await self._tell(item)
        return version

    def _told(self, item: Object) -> list[str]:
        """What is in the row of an object, without how long ago things were; the columns widen for it."""
        cells = [str(cell) for cell in self._wanted.row(item, _EPOCH)]
        self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, cells, strict=True)]
        return cells

    async def _tell(self, item: Object, *, deleted: bool = False) -> None:
        uid, told = item["metadata"]["uid"], self._told(item)
        before = self._known.pop(uid, None)
        if not deleted:
            self._known[uid] = item
            if before is not None and self._told(before) == told:
                return
        if self._wanted.form in (Format.JSON, Format.YAML):
            if self._wanted.form is Format.YAML:
                self._output.line("---")
            self._output.document(_whole(item), self._wanted.form)
        elif self._wanted.form is Format.NAME:
            self._output.line(_name(item))
        else:
            cells = self._wanted.row(item, await self._cluster.now())
            if deleted:
                cells[self._wanted.header.index("PHASE")] = Text("Deleted", "dim")
            row = [cell if isinstance(cell, Text) else Text(cell) for cell in cells]
            self._output.line(aligned(row, self._widths), whole=True)


def _whole(item: Object) -> Object:
    # The items of a list lack both.
    return {"apiVersion": API_VERSION, "kind": KIND, **stripped(item)}


def _name(item: Object) -> str:
    return f"{KIND.lower()}.{GROUP}/{item['metadata']['name']}"
