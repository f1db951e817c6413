"""/healthz, /readyz and /metrics."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from whatsapp_operator.controller.metrics import Metrics


@asynccontextmanager
async def serve(host: str, port: int, *, ready: Callable[[], str | None], metrics: Metrics) -> AsyncIterator[int]:
    """Serve until left; gives the port, which is chosen by the system for port 0.

    Args:
        host: address to listen at.
        port: port to listen at.
        ready: returns why the process is not ready, None if it is.
        metrics: what /metrics shows.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        why_not = ready()
        return web.Response(text="ok\n") if why_not is None else web.Response(text=f"{why_not}\n", status=503)

    async def show_metrics(_: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=metrics.render(), headers=headers)

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", show_metrics)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
