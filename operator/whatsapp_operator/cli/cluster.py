"""The API server as the kubeconfig of the person names it."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import pydantic_core
import yaml
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException

from whatsapp_operator.cli.exits import CliError, Exit
from whatsapp_operator.cli.proxies import proxy_for
from whatsapp_operator.kube.client import (
    REQUEST_TIMEOUT,
    SESSIONS,
    Client,
    Object,
    Resource,
    keep_token_fresh,
    load_configuration,
)
from whatsapp_operator.kube.errors import KubeError, UnreachableError, from_response

FIELD_MANAGER: Final = "kubectl-wa"
DEFAULT_KUBECONFIG: Final = "~/.kube/config"
# Seconds.
_GOODBYE: Final = 1.0
REVIEWS: Final = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which cluster, as whom, and which namespace: None where the person has not said so."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None


def kubeconfig_of(choice: Choice, environment: Mapping[str, str] = os.environ) -> str:
    """The kubeconfig file, or a list of them to be merged, as kubectl finds it.

    Raises:
        CliError: none of the files is there.
    """
    found = choice.kubeconfig or environment.get("KUBECONFIG") or DEFAULT_KUBECONFIG
    parts = [choice.kubeconfig] if choice.kubeconfig else [part for part in found.split(os.pathsep) if part]
    if not any(Path(part).expanduser().is_file() for part in parts):
        raise CliError(f"there is no kubeconfig at {found}", "Name one by --kubeconfig or $KUBECONFIG.")
    return found


class Cluster:
    """Requests as the person, in one namespace unless another is named."""

    def __init__(self, configuration: Configuration, namespace: str) -> None:
        self.namespace = namespace
        self.client = Client(configuration, field_manager=FIELD_MANAGER)
        self._server_name = configuration.tls_server_name
        self._http: aiohttp.ClientSession | None = None
        self._ahead: timedelta | None = None

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
        await self.client.close()

    async def session(self, name: str) -> Object:
        return await self.client.get(SESSIONS, self.namespace, name)

    async def sessions(self, *, everywhere: bool = False, label_selector: str = "") -> tuple[list[Object], str]:
        """All of them by name, and the version they were read at."""
        return await self.listed(SESSIONS, None if everywhere else self.namespace, label_selector=label_selector)

    async def listed(
        self, resource: Resource, namespace: str | None, *, label_selector: str = ""
    ) -> tuple[list[Object], str]:
        found: list[Object] = []
        version = ""
        async for page in self.client.pages(resource, namespace, label_selector=label_selector):
            found.extend(page.items)
            version = page.resource_version
        return found, version

    async def may(
        self, verb: str, resource: Resource, namespace: str, *, name: str = "", subresource: str = ""
    ) -> bool:
        """Whether the person has the right; an empty namespace is the whole cluster."""
        attributes = {
            "verb": verb,
            "group": resource.group,
            "resource": resource.plural,
            "subresource": subresource,
            "namespace": namespace,
            "name": name,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }
        answer = await self.client.create(REVIEWS, None, body)
        return bool(answer["status"].get("allowed"))

    async def now(self) -> datetime:
        """The time by the API server's clock, as the person's own may be wrong; asked for once."""
        if self._ahead is None:
            try:
                async with self._open("/version", {}, REQUEST_TIMEOUT) as answer:
                    theirs = parsedate_to_datetime(answer.headers["Date"])
                # The header tells whole seconds, so a difference of that size means nothing.
                ahead = theirs - datetime.now(UTC)
                self._ahead = ahead if abs(ahead) > timedelta(seconds=2) else timedelta(0)
            except (KubeError, KeyError, ValueError):
                self._ahead = timedelta(0)
        return datetime.now(UTC) + self._ahead

    async def json(self, path: str) -> Any:
        """What is served below a path that is no resource's."""
        return pydantic_core.from_json(await self.text(path))

    async def text(self, path: str, **query: str) -> str:
        async with self._open(path, query, REQUEST_TIMEOUT) as answer:
            return (await answer.read()).decode(errors="replace")

    async def lines(self, path: str, **query: str) -> AsyncIterator[str]:
        """Line by line, for as long as the server sends any."""
        async with self._open(path, query, None) as answer:
            async for line in answer.content:
                yield line.decode(errors="replace").rstrip("\n")

    @asynccontextmanager
    async def _open(
        self, path: str, query: Mapping[str, str], seconds: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._http is None:
            self._http = self.client.open_session()
        url = f"{self.client.server}{path}" + (f"?{urlencode(query)}" if query else "")
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=REQUEST_TIMEOUT)
        try:
            async with self._http.get(url, timeout=timeout, server_hostname=self._server_name) as answer:
                if answer.status >= 400:
                    raise from_response(answer.status, _status(await answer.read()), None)
                yield answer
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise UnreachableError(f"GET {path}: {type(error).__name__}: {error}".rstrip(": ")) from error


def _status(raw: bytes) -> Any:
    try:
        return pydantic_core.from_json(raw)
    except ValueError:
        # Kubelets and pods behind the API server's proxy answer in plain text.
        return {"message": raw.decode(errors="replace").strip()[:300]}


@asynccontextmanager
async def connected(choice: Choice) -> AsyncIterator[Cluster]:
    """The cluster that was chosen.

    Raises:
        CliError: the kubeconfig is missing or cannot be used.
    """
    path = kubeconfig_of(choice)
    try:
        configuration = await load_configuration(Path(path), choice.context)
        context: Any = vars(configuration)["kubeconfig_loader"].current_context
        own = context["context"].get("namespace")
    except (ConfigException, OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        # The text of a YAML error quotes the file, tokens included.
        about = str(error) if isinstance(error, (ConfigException, OSError)) else type(error).__name__
        raise CliError(
            f"the kubeconfig {path} cannot be used: {about}",
            "kubectl config get-contexts lists what there is to choose from by --context.",
            code=Exit.USAGE if choice.context else Exit.ERROR,
        ) from None
    configuration.proxy = configuration.proxy or proxy_for(str(configuration.host), os.environ)
    cluster = Cluster(configuration, choice.namespace or own or "default")
    refresher = asyncio.create_task(keep_token_fresh(configuration))
    try:
        yield cluster
    finally:
        refresher.cancel()
        await asyncio.gather(refresher, return_exceptions=True)
        # A server that does not say goodbye is not waited for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE):
                await cluster.close()
