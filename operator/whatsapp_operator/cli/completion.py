"""Names for the shell to complete with: asked of the cluster, briefly, and silently none where it does not answer."""

import asyncio
import contextlib
import io
import os
import shlex
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import typer

from whatsapp_operator.cli.cluster import Choice, Cluster, connected
from whatsapp_operator.cli.exits import CliError
from whatsapp_operator.kube.client import NAMESPACES, SESSIONS
from whatsapp_operator.kube.errors import KubeError

# Seconds that a person waits for after the tabulator.
PATIENCE: Final = 3.0
# kubectl's own: no file names.
_NO_FILES: Final = ":4"


def complete_session(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Sessions of the namespace, each with its phase."""

    async def names(cluster: Cluster) -> list[tuple[str, str]]:
        found, _ = await cluster.listed(SESSIONS, cluster.namespace)
        return [(item["metadata"]["name"], (item.get("status") or {}).get("phase") or "Pending") for item in found]

    return [(name, phase) for name, phase in _asked(_choice(ctx), names) if name.startswith(incomplete)]


def complete_namespace(ctx: typer.Context, incomplete: str) -> list[str]:
    async def names(cluster: Cluster) -> list[tuple[str, str]]:
        found, _ = await cluster.listed(NAMESPACES, None)
        return [(item["metadata"]["name"], "") for item in found]

    return [name for name, _ in _asked(_choice(ctx), names) if name.startswith(incomplete)]


def _choice(ctx: typer.Context) -> Choice:
    """As far as the line has been typed: options of the command before those of the whole program."""
    told = {**ctx.find_root().params, **{key: value for key, value in ctx.params.items() if value}}
    return Choice(told.get("kubeconfig"), told.get("context"), told.get("namespace"))


def _asked(choice: Choice, names: Callable[[Cluster], Awaitable[list[tuple[str, str]]]]) -> list[tuple[str, str]]:
    async def ask() -> list[tuple[str, str]]:
        async with asyncio.timeout(PATIENCE), connected(choice) as cluster:
            return await names(cluster)

    try:
        return asyncio.run(ask())
    except (CliError, KubeError, TimeoutError, OSError):
        return []


def for_kubectl(app: typer.Typer, arguments: Sequence[str]) -> str:
    """What kubectl wants of `kubectl_complete-wa`: a completion and its description a line, then a directive.

    The last argument is the word that is being typed.
    """
    *before, incomplete = arguments or [""]
    line = shlex.join(["kubectl-wa", *before]) + " " + (shlex.quote(incomplete) if incomplete else "")
    # Fish takes the same form as kubectl: the completion, a tabulator, its description.
    told = io.StringIO()
    variables = {
        "_KUBECTL_WA_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    os.environ |= variables
    try:
        with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
            app(prog_name="kubectl-wa", args=[])
    finally:
        for variable in variables:
            del os.environ[variable]
    return "\n".join([*(entry for entry in told.getvalue().splitlines() if entry), _NO_FILES]) + "\n"
