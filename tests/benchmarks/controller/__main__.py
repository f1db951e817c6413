"""`make bench`: what the operator costs and how fast it is, on a control plane of its own with kwok for a kubelet."""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.controller import report, scenarios
from tests.benchmarks.controller.cluster import cluster
from tests.benchmarks.controller.connection import Client
from tests.benchmarks.controller.profile import profiling
from tests.benchmarks.controller.scenarios import Bench, Result

SCENARIOS = ("alone", "converge", "storm", "latency", "failover", "restart", "metrics", "steady")
CONNECTIONS = 32


@dataclass
class Run:
    """What is to be measured, and what was."""

    sizes: Sequence[int]
    wanted: frozenset[str]
    quick: bool
    raw: bool = True
    profile: bool = False
    found: dict[str, Result] = field(default_factory=dict)

    async def all(self) -> None:
        sizes = sorted(self.sizes)
        middle = max((size for size in sizes if size <= 1000), default=sizes[0])
        for size in sizes:
            here = {"converge"}
            here |= {"alone"} if size == sizes[0] else set()
            here |= {"storm", "latency", "failover", "steady"} if size == middle else set()
            here |= {"restart", "metrics", "steady"} if size == sizes[-1] else set()
            if here & self.wanted:
                await self.at(size, here & self.wanted)

    async def at(self, size: int, wanted: set[str]) -> None:
        """All that is measured with so many sessions; converging is what each begins with."""
        async with bench() as found:
            replica = found.operators.start_leader()
            born, relinked = await scenarios.record(found, replica)
            if "alone" in wanted:
                self.say("alone", await scenarios.alone(found, replica, 5 if self.quick else 30))
            numbers = range(size)
            async with profiling(replica.process.pid, enabled=self.profile) as stacks:
                ours = await scenarios.converge(found, replica, numbers)
            self.say(f"converge {size}", ours | ({"profile": stacks} if self.profile else {}))
            stormed = await self.after_converging(found, replica, size, wanted)
        if not self.raw:
            return
        async with bench(pods=False) as found:
            known = await scenarios.prepare_raw(found, size)
            self.compare(f"converge {size}", await scenarios.raw(found, born, ours["kinds"], known))
            if stormed is not None:
                self.compare("storm", await scenarios.raw(found, relinked, stormed["kinds"], known))

    async def after_converging(self, found: Bench, replica: Any, size: int, wanted: set[str]) -> Result | None:
        stormed = None
        if "storm" in wanted:
            stormed = await scenarios.storm(found, replica, range(size))
            self.say("storm", stormed)
        if "latency" in wanted:
            seconds = 10 if self.quick else 60
            self.say("latency", await scenarios.latency(found, replica, size, rate=50, seconds=seconds))
        if "failover" in wanted:
            failover, replica = await scenarios.failover(found, replica, size, 1 if self.quick else 3)
            self.say("failover", failover)
        if "restart" in wanted:
            restarted, replica = await scenarios.restart(found, replica, size)
            self.say("restart", restarted)
        if "steady" in wanted:
            self.say(f"steady {size}", await scenarios.steady(found, replica, size, 20 if self.quick else 300))
        if "metrics" in wanted:
            self.say("metrics with gauges", scenarios.metrics(replica, size))
            _, replica = await scenarios.restart(found, replica, size, "--object-metrics", "false")
            self.say("metrics", scenarios.metrics(replica, size))
        return stormed

    def compare(self, name: str, raw: Result) -> None:
        """Put what the raw writer took beside it."""
        ours = self.found[name]
        ours["raw"] = raw
        ours["ratio"] = round(ours["seconds"] / raw["seconds"], 2)
        self.say(f"{name}, raw writer", raw)
        print(f"ratio of {name} to the raw writer: {ours['ratio']}", flush=True)

    def say(self, name: str, result: Result) -> None:
        self.found[name] = result
        shown = {key: value for key, value in result.items() if key not in ("kinds", "raw", "profile")}
        print(f"{datetime.now(UTC):%H:%M:%S} {name}: {json.dumps(shown)}", flush=True)


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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.controller", description=__doc__)
    parser.add_argument("scenario", nargs="*", help=f"default: all of {', '.join(SCENARIOS)}")
    parser.add_argument("--sizes", help="numbers of sessions, separated by commas; default 500,1000,5000")
    parser.add_argument("--quick", action="store_true", help="a few minutes, with 100 and 300 sessions")
    parser.add_argument("--no-raw", action="store_true", help="without the raw writer, so without ratios")
    parser.add_argument("--profile", action="store_true", help="show where the CPU time of converging goes (py-spy)")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="where the figures go")
    parser.add_argument("--report", type=Path, help="a Markdown page whose table is written anew")
    parser.add_argument("--from-json", type=Path, help="measure nothing, only write the report from these figures")
    options = parser.parse_args()
    unknown = set(options.scenario) - set(SCENARIOS)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    if options.from_json is not None:
        figures = json.loads(options.from_json.read_text())
    else:
        sizes = options.sizes or ("100,300" if options.quick else "500,1000,5000")
        run = Run(
            sizes=[int(size) for size in sizes.split(",")],
            wanted=frozenset(options.scenario or SCENARIOS),
            quick=options.quick,
            raw=not options.no_raw,
            profile=options.profile,
        )
        began = time.monotonic()
        try:
            asyncio.run(run.all())
        finally:
            # What was measured before a scenario has failed is not lost.
            figures = report.figures(run.found, seconds=time.monotonic() - began)
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(figures, indent=1))
    page = report.page(figures)
    print(page)
    if options.report is not None:
        report.insert(options.report, page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
