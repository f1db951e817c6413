"""The commands, their options, and what they end with."""

import asyncio
import contextlib
import functools
import inspect
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from whatsapp_operator import __version__
from whatsapp_operator.api import names
from whatsapp_operator.api.reasons import ConditionType, PairingMethod
from whatsapp_operator.cli import describing, doctor, linking, listing, report, screen
from whatsapp_operator.cli.cluster import Choice, Cluster, connected
from whatsapp_operator.cli.completion import complete_namespace, complete_session
from whatsapp_operator.cli.doctor import OPERATOR_NAMESPACE, Doctor
from whatsapp_operator.cli.exits import CliError, Exit
from whatsapp_operator.cli.output import Format, Output
from whatsapp_operator.cli.reading import Session, command_of
from whatsapp_operator.cli.refusals import explain
from whatsapp_operator.cli.shown import Shown
from whatsapp_operator.cli.wish import Wish
from whatsapp_operator.cli.words import countdown, plain
from whatsapp_operator.kube.client import PODS, SESSIONS
from whatsapp_operator.kube.errors import InvalidError, KubeError, NotFoundError

app: Final = typer.Typer(
    name="kubectl-wa",
    help="Pair phones and look after WhatsApp sessions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 error, 2 usage, 3 not found, 4 not allowed, 5 a person must act, 6 timed out, "
    "130 interrupted.",
)

_WHERE: Final = "As kubectl"


def _named(given: str) -> str:
    # It becomes part of a path: nothing, or a slash, would lead to another object than was meant.
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", given):
        raise typer.BadParameter(f"'{plain(given)}' is no name: that has small letters, digits and '-'.")
    return given


def _name(given: str | None) -> str | None:
    return None if given is None else _named(given)


def _namespace(given: str | None) -> str | None:
    # Empty is that of the context, as for kubectl.
    return _named(given) if given else None


def _names(given: list[str] | None) -> list[str]:
    return [_named(name) for name in given or ()]


Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        help="Namespace.",
        autocompletion=complete_namespace,
        callback=_namespace,
        rich_help_panel=_WHERE,
    ),
]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.", rich_help_panel=_WHERE)]
Kubeconfig = Annotated[
    str | None, typer.Option("--kubeconfig", help="Kubeconfig file; else $KUBECONFIG.", rich_help_panel=_WHERE)
]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colours; so does $NO_COLOR.", rich_help_panel=_WHERE)]
Name = Annotated[str, typer.Argument(help="Name of the session.", autocompletion=complete_session, callback=_name)]
MaybeName = Annotated[
    str | None,
    typer.Argument(help="Name of a session.", metavar="[NAME]", autocompletion=complete_session, callback=_name),
]
Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")]
OutputForm = Annotated[Format | None, typer.Option("--output", "-o", help="Form of the output.", show_default=False)]
OperatorNamespace = Annotated[
    str, typer.Option("--operator-namespace", help="Where the operator runs.", callback=_name)
]
Invert = Annotated[
    bool, typer.Option("--invert", help="Without colours: the terminal's background is light, not dark.")
]


class Setting:
    """What the options in common have said."""

    def __init__(self, choice: Choice, *, no_color: bool) -> None:
        self.choice = choice
        self.output = Output(no_color=no_color)


_COMMON: Final = {
    "namespace": Namespace,
    "context": Context,
    "kubeconfig": Kubeconfig,
    "no_color": NoColor,
}


def command(work: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A coroutine `(setting, ...)` as a command that takes the options in common and ends with a code of `Exit`."""
    own = list(inspect.signature(work).parameters.values())[1:]
    common = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=False if name == "no_color" else None
        )
        for name, kind in _COMMON.items()
    ]

    @functools.wraps(work)
    def run(
        *,
        ctx: typer.Context,
        namespace: str | None,
        context: str | None,
        kubeconfig: str | None,
        no_color: bool,
        **options: Any,
    ) -> None:
        before: Choice = ctx.obj or Choice()
        choice = Choice(
            kubeconfig=kubeconfig or before.kubeconfig,
            context=context or before.context,
            namespace=namespace or before.namespace,
        )
        no_color = no_color or bool(ctx.find_root().params.get("no_color"))
        setting = Setting(choice, no_color=no_color)
        raise typer.Exit(_ended(setting.output, lambda: work(setting, **options)))

    context_parameter = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [context_parameter, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *common]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _ended(output: Output, work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run a command to its end; the exit code, with the error told."""
    terminated = False

    async def main() -> None:
        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        task = asyncio.ensure_future(work())
        # So that the terminal is given back as it was.
        with contextlib.suppress(NotImplementedError):  # on Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        await task

    try:
        asyncio.run(main())
    except CliError as error:
        output.error(error)
        return error.code
    except KubeError as error:
        found = explain(error)
        output.error(found)
        return found.code
    except (KeyboardInterrupt, typer.Abort):
        return Exit.INTERRUPTED
    except asyncio.CancelledError:
        return Exit.TERMINATED if terminated else Exit.INTERRUPTED
    except BrokenPipeError:
        # As of `kubectl wa list | head`; the interpreter would complain once more at its end.
        sys.stdout = sys.stderr
        return Exit.OK
    return Exit.OK


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"kubectl-wa {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    no_color: NoColor = False,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_tell_version)
    ] = False,
) -> None:
    """Pair phones and look after WhatsApp sessions."""
    del no_color, show_version
    ctx.obj = Choice(kubeconfig, context, namespace)


def seconds_of(text: str) -> float:
    """Of 90s, 15m, 1h30m.

    Raises:
        CliError: it is none of these.
    """
    units = {"h": 3600, "m": 60, "s": 1}
    if not re.fullmatch(r"(\d+[hms])+", text):
        raise CliError(f"{text} is no duration; write it as 90s, 15m or 1h30m", code=Exit.USAGE)
    return float(sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", text)))


def _method(text: str | None) -> PairingMethod | None:
    known = {"qr": PairingMethod.QR_CODE, "code": PairingMethod.PAIRING_CODE}
    known |= {method.lower(): method for method in PairingMethod}
    if text is None:
        return None
    if text.lower() not in known:
        raise CliError(f"--method is QRCode or PairingCode (or qr, code), not {text}", code=Exit.USAGE)
    return known[text.lower()]


@app.command()
@command
async def link(
    setting: Setting,
    name: Name,
    tenant: Annotated[str | None, typer.Option(help="Whose it is; needed to make a session.")] = None,
    phone: Annotated[str | None, typer.Option(help="Number to link, as +15551230001; else any phone.")] = None,
    method: Annotated[
        str | None, typer.Option(help="QRCode (or qr) or PairingCode (or code).", show_default=False)
    ] = None,
    attempts: Annotated[int | None, typer.Option(min=1, max=20, help="Windows of about 160 s each.")] = None,
    display_name: Annotated[str | None, typer.Option(help="As the phone lists it: Browser (System).")] = None,
    proxy: Annotated[str | None, typer.Option(help="URL of an egress proxy, without user and password.")] = None,
    proxy_secret: Annotated[str | None, typer.Option(help="SECRET/KEY that holds the proxy's whole URL.")] = None,
    ca_secret: Annotated[str | None, typer.Option(help="SECRET/KEY of further certificates.")] = None,
    ca_configmap: Annotated[str | None, typer.Option(help="CONFIGMAP/KEY of further certificates.")] = None,
    storage_class: Annotated[str | None, typer.Option(help="StorageClass of the volume.")] = None,
    size: Annotated[str | None, typer.Option(help="Size of the volume, as 256Mi.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Relink a linked session without asking.")] = False,
    give_up: Annotated[str, typer.Option("--timeout", help="Give up after so long.")] = "15m",
    invert: Invert = False,
) -> None:
    """Make a session or relink it, show its QR or code, and follow it until it is connected.

    A new session needs --tenant. One that waits for a scan is shown as it is; one that has given up is relinked; one
    that is linked is relinked if you say so.
    """
    wish = Wish(
        tenant=tenant,
        phone=phone,
        method=_method(method),
        attempts=attempts,
        display_name=display_name,
        proxy=proxy,
        proxy_secret=proxy_secret,
        ca_secret=ca_secret,
        ca_config_map=ca_configmap,
        storage_class=storage_class,
        size=size,
    )
    seconds = seconds_of(give_up)
    async with connected(setting.choice) as cluster:
        asked = await linking.prepare(cluster, name, wish, sure=lambda question: yes or _sure(question))
        await _follow(setting, cluster, name, asked, seconds=seconds, invert=invert)


@app.command()
@command
async def relink(
    setting: Setting,
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as link does.")] = False,
    give_up: Annotated[str, typer.Option("--timeout", help="With --follow: give up after so long.")] = "15m",
    invert: Invert = False,
) -> None:
    """Ask for a fresh pairing: the linked device is logged out, its credentials are wiped."""
    seconds = seconds_of(give_up)
    async with connected(setting.choice) as cluster:
        session = Session(await cluster.session(name))
        asked = await linking.relink(cluster, session)
        if follow:
            await _follow(setting, cluster, name, asked, seconds=seconds, invert=invert)
            return
        setting.output.line(f"{name} is relinked.")
        if not (session.suspended or session.paused):
            setting.output.say(f"kubectl wa link {name} -n {cluster.namespace} shows its QR or code.")


async def _follow(
    setting: Setting, cluster: Cluster, name: str, asked: linking.Asked | None, *, seconds: float, invert: bool
) -> None:
    output = setting.output
    output.check_blocks()
    follower = linking.Follower(cluster, output, seconds=seconds, light_background=invert)
    try:
        session = await follower.follow(name, asked)
    except asyncio.CancelledError:
        output.say(
            f"Left. The session goes on without you; kubectl wa link {name} -n {cluster.namespace} shows it again."
        )
        raise
    phone = session.status.get("phone")
    output.line(f"Connected: {plain(name)} is linked" + (f" to {plain(phone)}." if phone else "."))


def _sure(question: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CliError(question.removesuffix(" Relink?"), "Say --yes to do it without being asked.", code=Exit.USAGE)
    # While it waits for the answer the event loop does not run, and could not be told of Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return typer.confirm(plain(question), err=True)
    finally:
        signal.signal(signal.SIGINT, before)


@app.command()
@command
async def qr(setting: Setting, name: Name, invert: Invert = False) -> None:
    """Draw the QR that waits now; link follows it as it changes."""
    async with connected(setting.choice) as cluster:
        shown = await _waiting(setting, cluster, name, "QR")
        if shown.qr is None:
            raise CliError(f"{name} shows a code, not a QR", f"  kubectl wa code {name} -n {cluster.namespace}")
        output, size = setting.output, setting.output.console.size
        output.check_blocks()
        picture = screen.picture(
            shown.qr,
            columns=size.width,
            lines=size.height - 2,
            colours=output.has_colours,
            light_background=invert,
        )
        if picture is None:
            raise CliError(screen.too_small(shown.qr, size.width, size.height, further=2))
        for line in picture:
            output.line(line)
        output.line(f"Valid for {countdown(shown.expires_at - await cluster.now())}.")


@app.command()
@command
async def code(setting: Setting, name: Name) -> None:
    """Print the pairing code that waits now."""
    async with connected(setting.choice) as cluster:
        shown = await _waiting(setting, cluster, name, "code")
        if shown.code is None:
            raise CliError(f"{name} shows a QR, not a code", f"  kubectl wa qr {name} -n {cluster.namespace}")
        setting.output.line(plain(screen.formatted_code(shown.code)))
        setting.output.say(f"Valid for {countdown(shown.expires_at - await cluster.now())}.")


async def _waiting(setting: Setting, cluster: Cluster, name: str, kind: str) -> Shown:
    """What the session shows.

    Raises:
        CliError: this is no terminal, or nothing is shown; says why and what to do.
    """
    if not setting.output.is_terminal:
        raise CliError(f"a {kind} is a credential and goes to terminals only; standard output is none", code=Exit.USAGE)
    session = Session(await cluster.session(name))
    shown = await linking.look(cluster, name)
    if shown is not None:
        return shown
    if session.is_true(ConditionType.STALLED):
        raise linking.stuck(session)
    if session.connected:
        raise CliError(
            f"{name} is connected and shows no {kind}",
            f"kubectl wa relink {name} -n {cluster.namespace} logs its device out and pairs anew.",
        )
    reason = session.condition(ConditionType.READY)
    next_command = command_of(reason.reason, name, cluster.namespace)
    raise CliError(
        f"{name} shows no {kind} now: {reason.message or 'the operator has not looked at it yet'}",
        next_command or f"kubectl wa link {name} -n {cluster.namespace} waits for it.",
    )


@app.command()
@command
async def status(
    setting: Setting, name: MaybeName = None, everywhere: Everywhere = False, form: OutputForm = None
) -> None:
    """Tell all about a session, or of all sessions what needs a person."""
    _check_form(form, Format.JSON, Format.YAML, Format.WIDE)
    async with connected(setting.choice) as cluster:
        if name is not None:
            await describing.show_one(cluster, setting.output, name, form)
        else:
            await describing.show_all(cluster, setting.output, everywhere=everywhere, form=form)


@app.command("list")
@command
async def list_(
    setting: Setting,
    everywhere: Everywhere = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on with a row for each change.")] = False,
    selector: Annotated[str, typer.Option("--selector", "-l", help="Label selector.", show_default=False)] = "",
    form: OutputForm = None,
) -> None:
    """List sessions."""
    async with connected(setting.choice) as cluster:
        await listing.show(cluster, setting.output, listing.Wanted(everywhere, selector, form), watch=watch)


@app.command()
@command
async def suspend(setting: Setting, name: Name) -> None:
    """Stop the pod; volume, credentials and claim stay."""
    await _set_suspend(setting, name, suspend=True)


@app.command()
@command
async def resume(setting: Setting, name: Name) -> None:
    """Start a suspended session again; no pairing is needed."""
    await _set_suspend(setting, name, suspend=False)


async def _set_suspend(setting: Setting, name: str, *, suspend: bool) -> None:
    async with connected(setting.choice) as cluster:
        session = Session(await cluster.session(name))
        state = "suspended" if suspend else "resumed"
        if session.suspended is suspend:
            setting.output.line(f"{name} is {state} already.")
            return
        await cluster.client.merge_patch(SESSIONS, cluster.namespace, name, {"spec": {"suspend": suspend}})
        setting.output.line(f"{name} is {state}.")
        if session.keeper:
            setting.output.say(
                f"It is kept by {session.keeper}, which may set spec.suspend back; change it in Git as well."
            )


@app.command()
@command
async def logs(
    setting: Setting,
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    previous: Annotated[bool, typer.Option("--previous", "-p", help="Of the container that ended before.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="The last lines only.", show_default=False)] = None,
    since: Annotated[str | None, typer.Option(help="Of so long ago at the most, as 10m.", show_default=False)] = None,
    timestamps: Annotated[bool, typer.Option(help="With the kubelet's times.")] = False,
) -> None:
    """Print the log of the session's pod."""
    query = {
        "container": names.SESSION_CONTAINER,
        **({"follow": "true"} if follow else {}),
        **({"previous": "true"} if previous else {}),
        **({"timestamps": "true"} if timestamps else {}),
        **({"tailLines": str(tail)} if tail is not None else {}),
        **({"sinceSeconds": str(max(1, int(seconds_of(since))))} if since else {}),
    }
    async with connected(setting.choice) as cluster:
        session = Session(await cluster.session(name))
        if session.suspended and not session.part("pod").get("name"):
            raise CliError(f"{name} is suspended and has no pod", f"  kubectl wa resume {name} -n {cluster.namespace}")
        path = PODS.path(cluster.namespace, names.owned_name(name), "log")
        try:
            async for line in cluster.lines(path, **query):
                setting.output.line(plain(line), whole=True)
        except InvalidError as error:
            # So it is answered while the container is being made, and where none has ended before.
            raise CliError(
                f"{name} has no such log now: {error.message}",
                f"  kubectl wa doctor {name} -n {cluster.namespace}",
                code=Exit.NOT_FOUND,
            ) from None
        except NotFoundError:
            why = session.condition(ConditionType.POD_READY)
            raise CliError(
                f"{name} has no pod: {why.reason}: {why.message}".rstrip(": "),
                f"  kubectl wa doctor {name} -n {cluster.namespace}",
                code=Exit.NOT_FOUND,
            ) from None


@app.command("report")
@command
async def report_(
    setting: Setting,
    sessions: Annotated[
        list[str] | None,
        typer.Argument(
            help="Sessions; all of the namespace if none is named.", autocompletion=complete_session, callback=_names
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Where to write it; - is standard output.", show_default=False)
    ] = None,
    operator_namespace: OperatorNamespace = OPERATOR_NAMESPACE,
) -> None:
    """Write a diagnostic bundle without secrets: objects, events, logs, metrics, versions."""
    async with connected(setting.choice) as cluster:
        bundle = await report.collect(cluster, sessions or [], operator_namespace)
        now = await cluster.now()
    folder = f"wa-report-{cluster.namespace}-{now:%Y%m%dT%H%M%SZ}"
    packed = bundle.pack(folder, now)
    if str(file) == "-":
        sys.stdout.buffer.write(packed)
        return
    target = file or Path(f"{folder}.tar.gz")
    try:
        _keep(target, packed)
    except OSError as error:
        raise CliError(f"cannot write {target}: {error.strerror}") from None
    setting.output.line(str(target))
    setting.output.say(f"{len(bundle.files)} files; Secrets were not read, numbers, codes, keys and tokens are masked.")
    for missing in bundle.missing:
        setting.output.say(f"not collected: {missing}")


def _keep(target: Path, content: bytes) -> None:
    """A file that its owner alone may read."""
    with open(target, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        # One that was there before may be open to others; what is no file, as /dev/stdout, is left as it is.
        if target.is_file():
            target.chmod(0o600)
        file.write(content)


@app.command("doctor")
@command
async def doctor_(
    setting: Setting,
    name: MaybeName = None,
    form: OutputForm = None,
    operator_namespace: OperatorNamespace = OPERATOR_NAMESPACE,
) -> None:
    """Check the cluster, and a session's whole chain, and name the broken link. Exit code 5 if there is one."""
    _check_form(form, Format.JSON, Format.YAML)
    async with connected(setting.choice) as cluster:
        physician = Doctor(cluster, operator_namespace)
        checks = await physician.cluster(name)
        if name is not None and doctor.first_broken(checks[:2]) is None:
            checks += await physician.session(name)
    doctor.show(setting.output, checks, form)
    if doctor.first_broken(checks) is not None:
        raise typer.Exit(Exit.PERSON_MUST_ACT)


def _check_form(form: Format | None, *known: Format) -> None:
    if form is not None and form not in known:
        raise CliError(f"-o {form} is not for this command; there are {', '.join(known)}", code=Exit.USAGE)
