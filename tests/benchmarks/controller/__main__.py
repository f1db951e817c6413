"""`make bench`: what the operator costs and how fast it is, on a control plane of its own with kwok for a kubelet."""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.controller import scenarios
from tests.benchmarks.controller.cluster import cluster
from tests.benchmarks.controller.connection import Client
from tests.benchmarks.controller.scenarios import Bench

CONNECTIONS = 32


@asynccontextmanager
async def bench(*, pods: bool = True) -> AsyncIterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="whatsapp-bench-") as name:
        directory = Path(name)
        with cluster(directory, pods=pods) as running:
            async with Client(running.api, CONNECTIONS) as client:
                found = Bench(running, client, directory)
                try:
                    yield found
                except BaseException:
                    print(running.explain(), file=sys.stderr)
                    raise
                finally:
                    found.operators.close()


async def converge(count: int) -> dict[str, Any]:
    async with bench() as found:
        replica = found.operators.start_leader()
        recording = await scenarios.record(found, replica)
        ours = await scenarios.converge(found, replica, "bench", "session-", count)
    say("converge", ours)
    async with bench(pods=False) as found:
        raw = await scenarios.raw(found, recording, ours["kinds"], count)
    say("raw writer", raw)
    print(f"ratio {ours['seconds'] / raw['seconds']:.2f}", flush=True)
    return ours


def say(what: str, result: dict[str, Any]) -> None:
    print(what, json.dumps({k: v for k, v in result.items() if k != "kinds"}), flush=True)
    for kind, number in sorted(result.get("kinds", {}).items(), key=lambda item: -item[1]):
        print("   ", number, kind, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.controller", description=__doc__)
    parser.add_argument("scenario", nargs="*")
    parser.add_argument("--sizes", default="500,1000")
    options = parser.parse_args()
    for size in options.sizes.split(","):
        asyncio.run(converge(int(size)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
