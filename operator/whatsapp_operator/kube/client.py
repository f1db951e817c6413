"""Requests to the API server: typed verbs and errors, raw objects."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

import aiohttp
import pydantic_core
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.incluster_config import load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config, refresh_token

from whatsapp_operator.api import names
from whatsapp_operator.kube.errors import KubeError, UnreachableError, from_response

Object: TypeAlias = dict[str, Any]

REQUEST_TIMEOUT: Final = 15.0
LIST_TIMEOUT: Final = 60.0
# Small, as the pages in memory, not the objects that are kept, make the peak of a start.
LIST_CHUNK: Final = 250
WATCH_CONNECT: Final = 15.0
# The API server sends a bookmark about every minute, once there was anything to be told of the kind.
WATCH_SILENCE: Final = 75.0


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the API server serves it; group is empty for the core group."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of the collection or, with a name, of one object."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if namespace else ""
        tail = "/".join(part for part in (self.plural, name, subresource) if part)
        return f"{root}{scope}/{tail}"


EVENTS: Final = Resource("events.k8s.io", "v1", "events")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases")
NAMESPACES: Final = Resource("", "v1", "namespaces")
PERSISTENT_VOLUME_CLAIMS: Final = Resource("", "v1", "persistentvolumeclaims")
PODS: Final = Resource("", "v1", "pods")
ROLE_BINDINGS: Final = Resource("rbac.authorization.k8s.io", "v1", "rolebindings")
SECRETS: Final = Resource("", "v1", "secrets")
SERVICE_ACCOUNTS: Final = Resource("", "v1", "serviceaccounts")
SESSIONS: Final = Resource(names.GROUP, names.VERSION, names.PLURAL)


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the objects of a kind, and the resourceVersion they were read at, the same for all pages of a list."""

    items: list[Object]
    resource_version: str


async def load_configuration(kubeconfig: Path | None, context: str | None = None) -> Configuration:
    """How to reach the API server and as whom.

    A kubeconfig that is named wins; else the pod's service account, whose token is read again every minute. Tokens of a
    kubeconfig that has an exec plugin are refreshed by `keep_token_fresh`.

    Raises:
        kubernetes.aio.config.ConfigException: neither is there, or it cannot be used.
    """
    configuration = Configuration()
    if kubeconfig is None:
        load_incluster_config(client_configuration=configuration)
    else:
        loader = await load_kube_config(
            config_file=str(kubeconfig), context=context, client_configuration=configuration, persist_config=False
        )
        configuration.kubeconfig_loader = loader
    return configuration


async def keep_token_fresh(configuration: Configuration) -> None:
    """Refresh the token of an exec plugin for as long as this runs; returns at once where there is none."""
    loader = getattr(configuration, "kubeconfig_loader", None)
    if loader is not None:
        await refresh_token(loader, client_configuration=configuration)


class Client:
    """The verbs of the API server.

    Every call has a time-out and raises a `KubeError` of the kind that fits. Each instance has a connection pool of its
    own, so a process needs one, plus one for its lease.

    Args:
        configuration: from `load_configuration`.
        before_write: called before each request that changes something; raises to refuse it.
        on_request: called with the verb (as in RBAC) and the HTTP status, 0 if there was none.
        field_manager: who writes, as managedFields and the audit log tell it.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        before_write: Callable[[], None] | None = None,
        on_request: Callable[[str, int], None] | None = None,
        field_manager: str = names.FIELD_MANAGER_OPERATOR,
    ) -> None:
        self._configuration = configuration
        self._api = ApiClient(configuration)
        self._http: aiohttp.ClientSession | None = None
        self._before_write = before_write
        self._on_request = on_request
        self._field_manager = field_manager

    @property
    def server(self) -> str:
        """Base URL of the API server."""
        return str(self._configuration.host)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
        await self._api.close()

    def open_session(
        self,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
        middlewares: Sequence[aiohttp.ClientMiddlewareType] = (),
    ) -> aiohttp.ClientSession:
        """An HTTP session with this client's trust and identity, for a library that speaks to the API server itself."""

        async def authenticate(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            request.headers.update(await self._auth_headers())
            return await handler(request)

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._api.rest_client.ssl_context),
            middlewares=(*middlewares, authenticate),
            trace_configs=list(trace_configs),
            proxy=self._configuration.proxy,
            read_bufsize=2**21,
        )

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        return await self._request("get", "GET", resource.path(namespace, name))

    async def pages(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str = ""
    ) -> AsyncGenerator[Page, None]:
        """All objects, page by page, at least one; without a namespace those of all namespaces.

        Raises:
            GoneError: a page was asked for too late; begin anew.
        """
        query: dict[str, str] = {"limit": str(LIST_CHUNK)}
        if label_selector:
            query["labelSelector"] = label_selector
        while True:
            page = await self._request("list", "GET", resource.path(namespace), query=query, seconds=LIST_TIMEOUT)
            metadata = page["metadata"]
            yield Page(page.get("items") or [], metadata["resourceVersion"])
            if not metadata.get("continue"):
                return
            query["continue"] = metadata["continue"]

    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        version: str,
        seconds: int,
        label_selector: str = "",
        on_open: Callable[[], object] = lambda: None,
    ) -> AsyncGenerator[Object, None]:
        """Events after that version, bookmarks included, until the server ends the watch, which it is asked to do after
        so many seconds, or until it was silent for so long that it may be dead.

        Raises:
            GoneError: the version is too old.
            KubeError: the watch could not be opened, broke, or the server sent an error.
        """
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version}
        query["timeoutSeconds"] = str(seconds)
        if label_selector:
            query["labelSelector"] = label_selector
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=WATCH_CONNECT, sock_read=WATCH_SILENCE)
        async with self._send("watch", "GET", resource.path(namespace), query=query, timeout=timeout) as response:
            if response.status >= 400:
                raise _refusal(response, _decode(await response.read()))
            on_open()
            rest = b""
            while True:
                try:
                    part = await response.content.readany()
                except TimeoutError:
                    return
                if not part:
                    return
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    event = _decode(line)
                    if not isinstance(event, dict):
                        raise KubeError("the watch has sent what is not a JSON object")
                    if event["type"] == "ERROR":
                        raise from_response(int(event["object"].get("code") or 500), event["object"], None)
                    yield event

    async def create(self, resource: Resource, namespace: str | None, body: Object, *, dry_run: bool = False) -> Object:
        """With `dry_run` nothing is kept; it is counted under a verb of its own."""
        query = {"fieldManager": self._field_manager, **({"dryRun": "All"} if dry_run else {})}
        verb = "dry-run" if dry_run else "create"
        return await self._request(verb, "POST", resource.path(namespace), query=query, body=body)

    async def apply(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, subresource: str | None = None
    ) -> Object:
        """Server-side apply, forced; the body's metadata.resourceVersion, if any, is a precondition."""
        query = {"fieldManager": self._field_manager, "force": "true"}
        path = resource.path(namespace, name, subresource)
        content_type = "application/apply-patch+yaml"
        return await self._request("patch", "PATCH", path, query=query, body=body, content_type=content_type)

    async def merge_patch(
        self, resource: Resource, namespace: str | None, name: str, patch: Object, *, subresource: str | None = None
    ) -> Object:
        """JSON merge patch; metadata.resourceVersion and metadata.uid in it are preconditions."""
        query = {"fieldManager": self._field_manager}
        path = resource.path(namespace, name, subresource)
        content_type = "application/merge-patch+json"
        return await self._request("patch", "PATCH", path, query=query, body=patch, content_type=content_type)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Object:
        """Delete, gracefully where the kind knows that; the preconditions that are given must hold.

        Returns:
            The object as it now is, still there if its deletion takes time, or a Status.
        """
        preconditions = {
            key: value for key, value in (("uid", uid), ("resourceVersion", resource_version)) if value is not None
        }
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if preconditions:
            body["preconditions"] = preconditions
        return await self._request("delete", "DELETE", resource.path(namespace, name), body=body)

    async def _auth_headers(self) -> dict[str, str]:
        settings = await self._configuration.auth_settings()
        token = settings.get("BearerToken", {}).get("value")
        return {"Authorization": str(token)} if token else {}

    async def _request(
        self,
        verb: str,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        seconds: float = REQUEST_TIMEOUT,
    ) -> Object:
        if method != "GET" and self._before_write is not None:
            self._before_write()
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with self._send(
            verb, method, path, query=query, body=body, content_type=content_type, timeout=timeout
        ) as response:
            decoded = _decode(await response.read())
        if response.status >= 400:
            raise _refusal(response, decoded)
        if not isinstance(decoded, dict):
            raise KubeError(f"{method} {path}: the answer is not a JSON object", code=response.status)
        return decoded

    @asynccontextmanager
    async def _send(
        self,
        verb: str,
        method: str,
        path: str,
        *,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
        query: dict[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, of whatever status; what goes wrong on the way or while it is read is an UnreachableError."""
        if self._http is None:
            # Not that of the library, which reads the proxy's environment and ~/.netrc at each request.
            connector = aiohttp.TCPConnector(limit=0, ssl=self._api.rest_client.ssl_context)
            self._http = aiohttp.ClientSession(connector=connector, read_bufsize=2**18)
        url = f"{self._configuration.host}{path}"
        if query:
            url = f"{url}?{urlencode(query)}"
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": self._field_manager}
        headers.update(await self._auth_headers())
        code = 0
        try:
            async with self._http.request(
                method,
                url,
                headers=headers,
                data=None if body is None else pydantic_core.to_json(body),
                timeout=timeout,
                proxy=self._configuration.proxy,
                server_hostname=self._configuration.tls_server_name,
            ) as response:
                code = response.status
                self._count(verb, code)
                yield response
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise UnreachableError(
                f"{method} {path}: {type(error).__name__}: {error}".rstrip(": "), code=code
            ) from error
        finally:
            if not code:
                self._count(verb, code)

    def _count(self, verb: str, code: int) -> None:
        if self._on_request is not None:
            self._on_request(verb, code)


def _decode(raw: bytes) -> Any:
    """None for what is not JSON."""
    try:
        return pydantic_core.from_json(raw)
    except ValueError:
        return None


def _refusal(response: aiohttp.ClientResponse, decoded: Any) -> KubeError:
    return from_response(response.status, decoded, response.headers.get("Retry-After"))
