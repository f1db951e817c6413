"""`make simulator-up` and `make scan`: the simulator in the cluster, and the phone in it that scans a session's QR."""

import argparse
import sys

from tests.cluster.errors import ClusterError
from tests.deploy import deploy_simulator, image_references
from tests.scenario import SIMULATOR_NAMESPACE
from tests.target import Target, live_target


def up(target: Target, options: argparse.Namespace) -> None:
    deploy_simulator(target, image_references())
    rollout = ("rollout", "status", f"--namespace={SIMULATOR_NAMESPACE}", "deployment/whatsapp-simulator")
    target.kubectl.run(*rollout, "--timeout=180s", seconds=200)
    target.scenario(options.namespace).trust()
    print(f"The simulator runs; sessions of namespace {options.namespace} can trust it.")  # noqa: T201


def scan(target: Target, options: argparse.Namespace) -> None:
    scenario = target.scenario(options.namespace)
    phone = scenario.get(options.session)["spec"]["phone"]
    with scenario.watching(options.session) as watch:
        scenario.pair(options.session, phone, watch)
    print(f"The phone has scanned the QR of {options.namespace}/{options.session}, which is Connected.")  # noqa: T201


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.phone", description=__doc__)
    parser.add_argument("--namespace", default="default", help="where sessions are")
    commands = parser.add_subparsers(required=True, metavar="command")
    commands.add_parser("up", help="run the simulator in the cluster").set_defaults(run=up)
    scanning = commands.add_parser("scan", help="scan the QR of a session, and wait until it is Connected")
    scanning.add_argument("session")
    scanning.set_defaults(run=scan)
    options = parser.parse_args()
    try:
        options.run(live_target(), options)
    except (AssertionError, ClusterError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
