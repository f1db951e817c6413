"""Command line: `python -m whatsapp_simulator --state DIR [--proxy-port P] [--control-port C] [--host H]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
from pathlib import Path

from aiohttp import web

from whatsapp_simulator.binary.tokens import read_dictionary
from whatsapp_simulator.control import Control
from whatsapp_simulator.proxy import Proxy
from whatsapp_simulator.server import DEFAULT_REFS, Server
from whatsapp_simulator.store import Store, replace

logger = logging.getLogger("whatsapp_simulator")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="whatsapp_simulator", description="A WhatsApp server and phones for tests.")
    parser.add_argument("--state", type=Path, required=True, help="directory for what survives a restart")
    parser.add_argument("--proxy-port", type=int, default=0, help="port of the CONNECT proxy; 0 takes a free one")
    parser.add_argument("--control-port", type=int, default=0, help="port of the control API; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--refs", type=int, default=DEFAULT_REFS, help="how many QR codes a client may show")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    arguments = parser.parse_args()
    if arguments.refs < 1:
        parser.error("--refs must be at least 1")
    return arguments


async def _serve(arguments: argparse.Namespace, store: Store, server: Server) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    chat = web.AppRunner(server.application(), access_log=None, handle_signals=False)
    control = web.AppRunner(Control(server).application(), access_log=None, handle_signals=False, shutdown_timeout=1)
    await chat.setup()
    await control.setup()
    if chat.server is None:
        raise RuntimeError("the web server was not set up")
    proxy = Proxy(server.faults, server.tls.server_context(), chat.server)
    try:
        proxy_port = await proxy.start(arguments.host, arguments.proxy_port)
        site = web.TCPSite(control, arguments.host, arguments.control_port)
        await site.start()
        control_port = control.addresses[0][1]
        server.write_trust(arguments.state)
        ports = {"proxy": proxy_port, "control": control_port}
        replace(arguments.state / "ports.json", json.dumps(ports))
        print(f"ready: proxy {arguments.host}:{proxy_port}, control {arguments.host}:{control_port}", flush=True)
        await stop.wait()
    finally:
        await proxy.stop()
        await server.shutdown()
        await control.cleanup()
        await chat.cleanup()


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    arguments.state.mkdir(parents=True, exist_ok=True)
    store = Store(arguments.state / "state.db")
    try:
        server = Server(store, read_dictionary(), refs=arguments.refs)
        asyncio.run(_serve(arguments, store, server))
    finally:
        store.close()


if __name__ == "__main__":
    main()
