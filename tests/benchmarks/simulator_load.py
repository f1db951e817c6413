"""How the simulator carries several hundred clients at once.

    python -m tests.benchmarks.simulator_load [--clients 300] [--messages 5]

Each client is linked by QR, logs in, uploads prekeys, writes to another phone and is written to, checking every
signature strictly. Printed are the times, and the simulator's memory and processor time. Exit code 0 only if every
client was linked, and every message came.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.integration.protocol_client import Credentials, Network, ProtocolClient
from tests.integration.simulator_process import SimulatorProcess
from whatsapp_simulator.binary.tokens import read_dictionary

FRIEND = "15550000000"
TICKS = os.sysconf("SC_CLK_TCK")
DIALS_AT_ONCE = 25
IDLE_SECONDS = 30.0


@dataclass(frozen=True)
class Usage:
    """A process's resident memory (MiB) and processor time so far (s)."""

    memory: float
    processor: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        status = Path(f"/proc/{pid}/status").read_text()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]
        return cls(int(resident) / 1024, (int(fields[11]) + int(fields[12])) / TICKS)


@dataclass(frozen=True)
class Control:
    """The control API without blocking the clients' event loop."""

    session: aiohttp.ClientSession
    url: str

    async def post(self, path: str, body: dict[str, Any]) -> None:
        async with self.session.post(self.url + path, json=body) as response:
            if response.status != 201:
                raise RuntimeError(f"{path}: {response.status} {await response.text()}")


async def _link(network: Network, control: Control, number: str) -> Credentials:
    await control.post("/phones", {"number": number})
    async with ProtocolClient(network, Credentials()) as client:
        refs = await client.refs()
        scan = asyncio.create_task(control.post(f"/phones/{number}/scan", {"qr": client.qr(refs[0])}))
        await client.finish_linking()
        await scan
        return client.credentials


async def _all(work: Callable[[int], Awaitable[Any]], count: int) -> list[Any]:
    """Do something for each client, a limited number at a time."""
    limit = asyncio.Semaphore(DIALS_AT_ONCE)

    async def one(index: int) -> Any:
        async with limit:
            return await work(index)

    return await asyncio.gather(*(one(index) for index in range(count)))


def _number(index: int) -> str:
    return f"1666{index:07d}"


async def _measure(simulator: SimulatorProcess, clients: int, messages: int, pre_keys: int) -> None:
    pid = simulator.pid
    print(f"simulator started          {Usage.of(pid).memory:7.1f} MiB")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, AsyncExitStack() as streams:
        control = Control(session, f"http://127.0.0.1:{simulator.ports['control']}")
        network = Network(
            session,
            simulator.proxy_url,
            ssl.create_default_context(cafile=str(simulator.state / "ca.crt")),
            bytes.fromhex(simulator.root),
            read_dictionary(),
        )
        await control.post("/phones", {"number": FRIEND})

        async def login(index: int) -> ProtocolClient:
            client = await streams.enter_async_context(
                ProtocolClient(network, await _link(network, control, _number(index)))
            )
            await client.login(pre_keys)
            return client

        started, before = time.monotonic(), Usage.of(pid)
        connected: list[ProtocolClient] = await _all(login, clients)
        _report(f"{clients} linked, logged in", started, before, Usage.of(pid))

        started, before = time.monotonic(), Usage.of(pid)
        latencies: list[float] = []

        async def talk(index: int) -> None:
            for count in range(messages):
                sent = time.monotonic()
                await connected[index].write(FRIEND, f"message {count} of {index}")
                latencies.append(time.monotonic() - sent)
                text = f"answer {count} to {index}"
                await control.post(f"/phones/{FRIEND}/messages", {"to": _number(index), "text": text})
                await connected[index].wait_for_text(text)

        await _all(talk, clients)
        inbox = simulator.texts(FRIEND)
        if len(inbox) != clients * messages:
            raise RuntimeError(f"{len(inbox)} of {clients * messages} messages came")
        _report(f"{2 * clients * messages} messages, both ways", started, before, Usage.of(pid))
        quantiles = statistics.quantiles(latencies, n=100)
        print(
            f"  lookup, encryption, acknowledgement: p50 {quantiles[49] * 1e3:.0f} ms, p99 {quantiles[98] * 1e3:.0f} ms"
        )

        started, before = time.monotonic(), Usage.of(pid)
        await asyncio.gather(*(client.keepalive() for client in connected))
        await asyncio.sleep(IDLE_SECONDS)
        _report(f"idle {IDLE_SECONDS:.0f} s, one keepalive each", started, before, Usage.of(pid))
        health = simulator.call("GET", "/healthz").body
        if health["connections"] != clients:
            raise RuntimeError(f"{health['connections']} of {clients} clients are still connected")


def _report(what: str, started: float, before: Usage, after: Usage) -> None:
    seconds, processor = time.monotonic() - started, after.processor - before.processor
    print(
        f"{what:27}{after.memory:6.1f} MiB, {seconds:6.1f} s, processor {processor:6.2f} s"
        f" ({processor / seconds * 100:.1f} %)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the simulator under several hundred clients.")
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--messages", type=int, default=5, help="from and to each client")
    parser.add_argument("--pre-keys", type=int, default=812, help="uploaded by each client; neonize's number")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        SimulatorProcess(Path(directory, "state"), "--log-level", "warning") as simulator,
    ):
        asyncio.run(_measure(simulator, arguments.clients, arguments.messages, arguments.pre_keys))
        size = sum(file.stat().st_size for file in simulator.state.iterdir()) / 1024**2
        print(f"state on disk              {size:7.1f} MiB")


if __name__ == "__main__":
    main()
