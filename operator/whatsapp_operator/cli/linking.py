"""`kubectl wa link`: from nothing, or from a session that is not linked, to Connected, in front of a person."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from rich.console import ConsoleDimensions, Group
from rich.live import Live
from rich.text import Text

from whatsapp_operator.api import names
from whatsapp_operator.api.reasons import ConditionType, Phase, RelinkOutcome
from whatsapp_operator.cli import screen
from whatsapp_operator.cli.cluster import Cluster
from whatsapp_operator.cli.exits import CliError, Exit
from whatsapp_operator.cli.output import Output
from whatsapp_operator.cli.reading import Session, command_of
from whatsapp_operator.cli.refusals import PASSING
from whatsapp_operator.cli.shown import Shown, read
from whatsapp_operator.cli.wish import Wish
from whatsapp_operator.cli.words import parse_time, plain
from whatsapp_operator.kube.client import SECRETS, SESSIONS, Object
from whatsapp_operator.kube.errors import AlreadyExistsError, NotFoundError

# Seconds between two looks.
EVERY: Final = 0.5
# An operator that runs has looked at a new session long before.
_OPERATOR_PATIENCE: Final = timedelta(seconds=20)
# What was wrong before a relink may be told until the session pod has begun with it.
_RELINK_PATIENCE: Final = timedelta(seconds=30)


class Stage(Enum):
    WAIT = auto()
    SHOW = auto()
    DONE = auto()


@dataclass(frozen=True, slots=True)
class Sight:
    """Where a session stands, and that as a sentence."""

    stage: Stage
    text: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A relink that this process has asked for: the request that was on record before it."""

    before: str | None


def judge(session: Session, now: datetime, asked: Asked | None) -> Sight:
    """Where the session stands on its way to Connected.

    Raises:
        CliError: it gets no further by itself; says why and what to do.
    """
    if session.deleting:
        raise CliError(f"session {session.name} is being deleted", code=Exit.ERROR)
    _refuse_rest(session)
    relink, stalled = session.part("relink"), session.condition(ConditionType.STALLED)
    if not session.observed:
        return Sight(Stage.WAIT, "Waiting for the operator to look at the session.")
    pending = bool(relink.get("requestID")) and not relink.get("completedAt")
    if asked is not None and relink.get("requestID") == asked.before:
        return Sight(Stage.WAIT, "Waiting for the operator to look at the relink.")
    if pending:
        requested = parse_time(relink.get("requestedAt")) or now
        if not (stalled.is_true and now - requested > _RELINK_PATIENCE):
            return Sight(Stage.WAIT, "Logging the device out and asking for a fresh pairing.")
    if stalled.is_true:
        raise stuck(session)
    if asked is not None and relink.get("outcome") == RelinkOutcome.FAILED:
        raise CliError(f"the relink of {session.name} has failed: {session.condition(ConditionType.READY).message}")
    if session.connected:
        return Sight(Stage.DONE, "Connected.")
    if session.is_true(ConditionType.QR_READY):
        return Sight(Stage.SHOW, _why_again(session))
    if session.phase == Phase.AUTHENTICATING:
        return Sight(Stage.WAIT, "The phone has answered; logging in.")
    return Sight(Stage.WAIT, session.condition(ConditionType.READY).message or "Waiting for the operator.")


def stuck(session: Session) -> CliError:
    """Why a session waits for a person, as the end of a command."""
    stalled = session.condition(ConditionType.STALLED)
    return CliError(
        f"{session.name} waits for a person: {stalled.reason}: {stalled.message}",
        *([stalled.remedy] if stalled.remedy else []),
        *([f"  {command}"] if (command := command_of(stalled.reason, session.name, session.namespace)) else []),
        code=Exit.PERSON_MUST_ACT,
    )


def _refuse_rest(session: Session) -> None:
    where = f"{session.name} -n {session.namespace}"
    if session.paused:
        annotation = names.ANNOTATION_PAUSED
        raise CliError(
            f"the operator leaves session {session.name} alone: the annotation {annotation} is set",
            f"  kubectl annotate was {where} {annotation}-",
            code=Exit.PERSON_MUST_ACT,
        )
    if session.suspended:
        raise CliError(
            f"session {session.name} is suspended", f"  kubectl wa resume {where}", code=Exit.PERSON_MUST_ACT
        )


def _why_again(session: Session) -> str:
    """How the last attempt has failed, while the next one is shown."""
    last, pairing = session.part("pairing", "last"), session.part("pairing")
    if not last or last.get("result") == "Succeeded" or int(pairing.get("attempt") or 1) < 2:
        return ""
    return f"The attempt before this one failed: {last.get('message') or last.get('reason')}."


async def relink(cluster: Cluster, session: Session) -> Asked:
    """Ask for a fresh pairing by a token that was never used; the person's own write."""
    token = f"{await cluster.now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    await cluster.client.merge_patch(
        SESSIONS,
        cluster.namespace,
        session.name,
        {"metadata": {"annotations": {names.ANNOTATION_FORCE_RELINK: token}}},
    )
    return Asked(session.part("relink").get("requestID"))


async def prepare(cluster: Cluster, name: str, wish: Wish, *, sure: Callable[[str], bool]) -> Asked | None:
    """Make the session, or ask for a relink where only that helps, or leave it as it is.

    Args:
        cluster: where the session is.
        name: of the session.
        wish: what it is to be.
        sure: asks the person whether to log a linked device out.

    Raises:
        CliError: it exists and is another; it is linked and the person is not sure; it is suspended or paused.
    """
    try:
        session = Session(await cluster.session(name))
    except NotFoundError as error:
        if "could not find the requested resource" in error.message:
            raise
        try:
            await cluster.client.create(SESSIONS, cluster.namespace, wish.manifest(name, cluster.namespace))
            return None
        except AlreadyExistsError:
            session = Session(await cluster.session(name))
    wish.check(session)
    _refuse_rest(session)
    stalled = session.condition(ConditionType.STALLED)
    linked, curable = bool(session.status.get("authPaired")), "forceRelink" in stalled.remedy
    if session.deleting or not (session.connected or (stalled.is_true and curable)):
        return None
    if linked:
        state = "connected" if session.connected else f"linked, but not connected ({stalled.reason})"
        if not sure(
            f"{name} is {state}. To relink it logs the device {session.status.get('phone') or ''} out for good and"
            " pairs anew. Relink?"
        ):
            raise CliError("nothing was changed")
    return await relink(cluster, session)


class Follower:
    """Shows what a session shows, until it is Connected.

    Args:
        cluster: where the session is.
        output: a terminal, or else nothing but the steps is told: a QR is drawn on terminals only.
        seconds: after so many it is given up.
        light_background: see `qr.render`.
    """

    def __init__(self, cluster: Cluster, output: Output, *, seconds: float, light_background: bool) -> None:
        self._cluster = cluster
        self._output = output
        self._seconds = seconds
        self._light_background = light_background
        self._told = ""

    async def follow(self, name: str, asked: Asked | None) -> Session:
        """The session once it is Connected.

        Raises:
            CliError: it gets no further by itself, or the time is over.
        """
        if not self._output.is_terminal:
            return await self._until_connected(name, asked, self._tell)
        before: tuple[ConsoleDimensions, list[Text]] | None = None
        with Live(console=self._output.console, screen=True, auto_refresh=False, redirect_stdout=False) as live:

            def show(session: Session, sight: Sight, shown: Shown | None, now: datetime) -> None:
                view = screen.View(session, sight.text, shown, now)
                nonlocal before
                size = self._output.console.size
                lines = screen.compose(
                    view,
                    columns=size.width,
                    lines=size.height,
                    colours=self._output.has_colours,
                    light_background=self._light_background,
                )
                if before != (size, lines):
                    before = size, lines
                    live.update(Group(*lines), refresh=True)

            return await self._until_connected(name, asked, show)

    async def _until_connected(
        self, name: str, asked: Asked | None, show: Callable[[Session, Sight, Shown | None, datetime], None]
    ) -> Session:
        began = await self._cluster.now()
        session: Session | None = None
        sight = Sight(Stage.WAIT, "")
        while True:
            shown = None
            now = await self._cluster.now()
            try:
                session = Session(await self._cluster.session(name))
                sight = judge(session, now, asked)
                if sight.stage is Stage.DONE:
                    return session
                if sight.stage is Stage.SHOW and self._output.is_terminal:
                    shown = await look(self._cluster, name)
            except NotFoundError:
                raise CliError(f"session {name} is gone", code=Exit.NOT_FOUND) from None
            except PASSING as error:
                sight = Sight(Stage.WAIT, f"The API server does not answer, trying again: {error.message}")
            if session is not None:
                # A relink is an annotation, which does not count as a change of the spec.
                unseen = asked is not None and session.part("relink").get("requestID") == asked.before
                waits = (unseen or not session.observed) and now - began >= _OPERATOR_PATIENCE
                hint = _NO_OPERATOR if waits else ""
                show(session, Sight(sight.stage, f"{sight.text} {hint}".strip()), shown, now)
            if (now - began).total_seconds() > self._seconds:
                raise CliError(
                    f"not connected within {self._seconds:.0f} s: {sight.text or 'nobody has scanned'}",
                    f"The session goes on; kubectl wa link {name} -n {self._cluster.namespace} follows it again.",
                    code=Exit.TIMED_OUT,
                )
            # What has expired is not left on the screen until the next look.
            left = (shown.expires_at - await self._cluster.now()).total_seconds() if shown is not None else EVERY
            await asyncio.sleep(max(0.05, min(EVERY, left)))

    def _tell(self, session: Session, sight: Sight, shown: Shown | None, now: datetime) -> None:
        """A line for each step."""
        text = sight.text
        if sight.stage is Stage.SHOW:
            kind = "code" if session.condition(ConditionType.QR_READY).reason == "CodeAvailable" else "qr"
            text = (
                f"A {'pairing code' if kind == 'code' else 'QR'} waits; this is no terminal, so it is not shown here:"
                f" kubectl wa {kind} {session.name} -n {session.namespace}"
            )
        if text and text != self._told:
            self._told = text
            self._output.line(Text(plain(text)))


_NO_OPERATOR: Final = "Nobody has looked at it for a while: kubectl wa doctor tells whether the operator runs."


async def look(cluster: Cluster, name: str) -> Shown | None:
    """What the session's Secret shows now."""
    try:
        secret: Object = await cluster.client.get(SECRETS, cluster.namespace, names.owned_name(name))
    except NotFoundError:
        return None
    return read(secret, await cluster.now())
