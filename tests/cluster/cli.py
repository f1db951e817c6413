"""The command line: `python -m tests.cluster <command>`."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import binaries, cluster, context, images, packages, preflight
from tests.cluster.errors import ClusterError
from tests.cluster.paths import cluster_paths


def main(arguments: Sequence[str]) -> int:
    # What follows is kubectl's to parse, options included.
    own, passed_on = (arguments[:1], arguments[1:]) if arguments[:1] == ["kubectl"] else (arguments, [])
    options = _parser().parse_args(own, argparse.Namespace(arguments=passed_on))
    try:
        return int(options.run(options) or 0)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description="A real Kubernetes on one machine.")
    commands = parser.add_subparsers(required=True, metavar="command")

    commands.add_parser("up", help="bring the cluster up, unless it is").set_defaults(run=lambda _: print(cluster.up()))
    commands.add_parser("down", help="remove the cluster with all it has made").set_defaults(
        run=lambda _: cluster.down()
    )
    commands.add_parser("status", help="say whether the cluster is up").set_defaults(run=_status)
    commands.add_parser("kubeconfig", help="print the path of the cluster's kubeconfig").set_defaults(run=_kubeconfig)
    environment = commands.add_parser("environment", help="print what a shell needs for kubectl and helm to act on it")
    environment.set_defaults(run=_environment)
    kubectl = commands.add_parser("kubectl", help="run the pinned kubectl on the cluster, or on KUBECONFIG and CONTEXT")
    kubectl.set_defaults(run=_kubectl)
    commands.add_parser("preflight", help="say what this machine lacks, and what to do").set_defaults(run=_preflight)

    build = commands.add_parser("build", help="build the pinned programs into the user cache")
    build.add_argument("family", nargs="*", help="default: those of the cluster")
    build.set_defaults(run=_build)

    install = commands.add_parser("packages", help="install the Debian packages that are missing")
    install.set_defaults(run=lambda _: packages.ensure([*packages.NODE, *packages.IMAGES]))

    image = commands.add_parser("images", help="base, build and load images").add_subparsers(
        required=True, metavar="action"
    )
    base = image.add_parser("base", help="make the base image and print its archive")
    base.set_defaults(run=lambda _: print(images.build_base()))
    image_build = image.add_parser("build", help="build a Dockerfile and print the archive of the image")
    image_build.add_argument("context", type=Path)
    image_build.add_argument("tag")
    image_build.add_argument("--file", type=Path, help="the Dockerfile; default: CONTEXT/Dockerfile")
    image_build.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    image_build.add_argument("--target", help="the stage to stop at")
    image_build.set_defaults(run=_image_build)
    load = image.add_parser("load", help="import archives into the cluster")
    load.add_argument("archive", nargs="+", type=Path)
    load.set_defaults(run=_image_load)
    clean = image.add_parser("clean", help="remove cached images and build steps")
    clean.set_defaults(run=lambda _: images.clean())
    return parser


def _status(_: argparse.Namespace) -> int:
    paths = cluster_paths()
    up = cluster.is_up(paths)
    print(f"{'up' if up else 'not up'}: {paths.root}")
    return 0 if up else 1


def _kubeconfig(_: argparse.Namespace) -> None:
    print(context.target().kubeconfig)


def _environment(_: argparse.Namespace) -> None:
    programs = [str(binaries.ensure(family)) for family in ("kubernetes", "helm")]
    print(f"export KUBECONFIG={shlex.quote(context.target().kubeconfig)}")
    print(f"export PATH={shlex.quote(os.pathsep.join(programs))}:$PATH")


def _kubectl(options: argparse.Namespace) -> int:
    target = context.target()
    kubectl = binaries.ensure("kubernetes", ["kubectl"]) / "kubectl"
    command = [str(kubectl), *target.kubectl_arguments, *options.arguments]
    return subprocess.run(command, env=target.environment(), check=False).returncode


def _preflight(_: argparse.Namespace) -> int:
    found = [*preflight.problems(), *filter(None, [preflight.go_problem()])]
    for problem in found:
        print(f"- {problem}")
    if not found:
        print("this machine can run the cluster")
    return 1 if found else 0


def _build(options: argparse.Namespace) -> None:
    default = [name for name, family in binaries.families().items() if not family.on_demand]
    for family in options.family or default:
        print(binaries.ensure(family))


def _image_build(options: argparse.Namespace) -> None:
    build_args = dict(argument.split("=", 1) for argument in options.build_arg)
    print(
        images.build(
            options.context, options.tag, dockerfile=options.file, build_args=build_args, target=options.target
        )
    )


def _image_load(options: argparse.Namespace) -> None:
    for archive in options.archive:
        images.load(archive)
