"""No number, JID, QR, code, key or token reaches a log, an event, a condition or a metric, whoever wrote the text.

Texts that the product logs come from the library, the API server, the kubelet and the user, so each argument of each
log call is taken to be hostile.
"""

import ast
import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.paths import CHECKOUT
from tests.unit.samples import SECRETS, Secret
from whatsapp_operator.api.masking import mask
from whatsapp_operator.controller import logs as controller_logs
from whatsapp_operator.session import logs as session_logs

PACKAGE = CHECKOUT / "operator" / "whatsapp_operator"
METHODS = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})

every_secret = pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)


@dataclass(frozen=True, slots=True)
class LogCall:
    """Where the product logs.

    Attributes:
        message: as it is in the source; None where it is an expression.
        extra: the keys of extra=; a key in angle brackets where they are not in the source.
        traced: whether an exception is told of.
    """

    path: Path
    line: int
    message: str | None
    arguments: int
    extra: tuple[str, ...]
    traced: bool

    def records(self, secret: str) -> Iterator[logging.LogRecord]:
        """What this call hands to the handlers, with the secret as one of its arguments after the other."""
        for place in range(max(self.arguments, 1)):
            yield self.record(secret, tuple(secret if n == place else "(x)" for n in range(self.arguments)))

    def record(self, secret: str, arguments: tuple[str, ...]) -> logging.LogRecord:
        trace = None
        if self.traced:
            error = raised(secret)
            trace = (type(error), error, error.__traceback__)
        message = secret.replace("%", "%%") if self.message is None else self.message
        name = f"whatsapp_operator.{self.path.parent.name}.{self.path.stem}"
        found = logging.LogRecord(name, logging.WARNING, "", 1, message, arguments, trace)
        found.__dict__.update(dict.fromkeys(self.extra, secret))
        return found


def log_calls() -> Iterator[LogCall]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name("logger" | "_log"), attr=method)) if method in METHODS:
                    arguments = node.args[1:] if method == "log" else node.args
                    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
                    message = arguments[0].value if isinstance(arguments[0], ast.Constant) else None
                    extra = keywords.get("extra")
                    yield LogCall(
                        path=path,
                        line=node.lineno,
                        message=message if isinstance(message, str) else None,
                        arguments=len(arguments) - 1,
                        extra=keys_of(extra) if extra is not None else (),
                        traced=method == "exception" or "exc_info" in keywords,
                    )


def keys_of(extra: ast.expr) -> tuple[str, ...]:
    if isinstance(extra, ast.Dict) and all(isinstance(key, ast.Constant) for key in extra.keys):
        return tuple(str(key.value) for key in extra.keys if isinstance(key, ast.Constant))
    return ("told",)


CALLS = list(log_calls())


def raised(secret: str) -> BaseException:
    """An exception with the secret in itself, in a note, in its cause and in what came before that."""
    try:
        try:
            try:
                raise KeyError(secret)
            except KeyError:
                raise ConnectionError(f"dial {secret}: refused") from None
        except ConnectionError as error:
            error.add_note(f"for {secret}")
            raise ExceptionGroup(f"unhandled: {secret}", [error, OSError(5, "Input/output error", secret)]) from error
    except ExceptionGroup as error:
        return error


def test_all_log_calls_are_found() -> None:
    """Loggers have one of two names, and nothing logs, warns or prints past them."""
    assert len(CALLS) > 50
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign) and "getLogger(__name__)" in ast.unparse(node.value):
                assert ast.unparse(node.targets[0]) in ("logger", "_log"), path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "logging":
                assert node.attr not in METHODS - {"log"}, path
            if isinstance(node, ast.Import):
                assert "warnings" not in {alias.name for alias in node.names}, path


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.path.parent.name}-{call.path.stem}-{call.line}")
def test_no_log_call_lets_a_secret_through(call: LogCall) -> None:
    forms: list[logging.Formatter]
    if call.path.parent.name == "session":
        forms = [session_logs.JsonFormatter("front", "acme", lambda: "fd73aa9f0ead6661")]
    else:
        forms = [controller_logs.JsonForm(), controller_logs.ConsoleForm()]
    for secret in SECRETS.values():
        for record in call.records(secret.text):
            for form in forms:
                line = form.format(relayed(record) if call.path.name == "worker.py" else record)
                assert not secret.found_in(line), line
                assert call.message is None or call.message.split("%")[0] in line


def relayed(record: logging.LogRecord) -> logging.LogRecord:
    """A record of the worker: plain lines for the supervisor, which masks each and logs it itself."""
    plain = logging.Formatter("%(levelname)s %(name)s %(message)s").format(record)
    return logging.LogRecord(record.name, logging.DEBUG, "", 1, "worker: %s", (mask(plain),), None)


Configure = Callable[[str], io.StringIO]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    """Sets up the log of the session pod, or the operator's in one of its forms, and returns what is written to it."""
    monkeypatch.setattr("logging.raiseExceptions", logging.raiseExceptions)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("kopf", "aiohttp", "asyncio")}

    def start(who: str) -> io.StringIO:
        stream = io.StringIO()
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setattr("sys.stderr", stream)
        if who == "session":
            session_logs.configure("DEBUG", "front", "acme", lambda: None)
        else:
            controller_logs.configure(who, "debug")
        return stream

    yield start
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


@pytest.mark.parametrize("who", ["session", "json", "console"])
@every_secret
async def test_libraries_log_through_the_same_mask(configure: Configure, who: str, secret: Secret) -> None:
    output = configure(who)
    told = {"k8s_ref": {"name": secret.text}, "patch": secret.text}
    for library in (
        "kopf.objects",
        "kopf._core.reactor",
        "aiohttp.access",
        "asyncio",
        "kubernetes.aio",
        "some.library",
    ):
        logging.getLogger(library).warning("Handler %r failed", secret.text, extra=told)
        logging.getLogger(library).error("Watching has failed", exc_info=raised(secret.text))
    loop = asyncio.get_running_loop()
    loop.call_exception_handler({"message": f"Task exception: {secret.text}", "exception": raised(secret.text)})
    written = output.getvalue()
    assert written.count("Watching has failed") == 6
    assert "Task exception" in written
    assert not secret.found_in(written)


@pytest.mark.parametrize("who", ["session", "json", "console"])
@every_secret
def test_a_log_call_that_is_wrong_tells_nothing_either(configure: Configure, who: str, secret: Secret) -> None:
    output = configure(who)
    logging.getLogger("some.library").warning("too few places %s", secret.text, secret.text)
    assert not secret.found_in(output.getvalue())


@pytest.mark.parametrize("form", ["session", "json"])
def test_a_line_is_json_with_what_tells_sessions_and_attempts_apart(configure: Configure, form: str) -> None:
    output = configure(form)
    extra = {"session": "team/shop", "attempt": "fd73aa9f0ead6661", "retry": 1.5, "code": 409}
    logging.getLogger("whatsapp_operator.session.test").warning("first\n+15551230001", extra=extra)
    entry = json.loads(output.getvalue())
    assert entry["message"] == "first\n<phone>"
    assert entry["level"] == "warning"
    if form == "json":
        assert {key: entry[key] for key in extra} == extra
    else:
        assert (entry["session"], entry["tenant"], entry["logger"]) == ("front", "acme", "session.test")


def test_session_lines_carry_the_attempt_while_there_is_one() -> None:
    attempts: list[str | None] = [None, "fd73aa9f0ead6661"]
    form = session_logs.JsonFormatter("front", "acme", attempts.pop)
    record = logging.LogRecord("whatsapp_operator.session.test", logging.INFO, "", 1, "the session starts", (), None)
    assert json.loads(form.format(record))["attempt"] == "fd73aa9f0ead6661"
    assert "attempt" not in json.loads(form.format(record))
