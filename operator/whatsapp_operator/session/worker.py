"""The worker process: runs neonize and turns everything it does, or hides, into the messages of `wire`.

It keeps nothing worth keeping: the supervisor may kill it at any moment. It is started afresh for every connection
and for every pairing window, because neonize 0.5.2 never returns from connect() while a QR is shown, whatever is
called, and because its Go part reads the environment only as it was at exec.

Facts about neonize 0.5.2 that shape this module:

* Before a pairing succeeds no event is delivered. The outcome of a window reaches only the private method
  `__onLoginStatus`, which is replaced here.
* `get_me()` and an unknown JID abort the process; `client.me` is filled by an event instead and safe.
* Exceptions in handlers are swallowed by ctypes, so every handler is wrapped.
* stdout and stderr belong to the Go part and to logging; the supervisor reads them and trusts none of it.
"""

import base64
import ctypes
import gc
import http
import io
import logging
import os
import queue
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, Final, TypeVar

from whatsapp_operator.session import proxy, slim, traffic, wire
from whatsapp_operator.session.identity import parse_display_name

logger = logging.getLogger(__name__)

E = TypeVar("E")

CLIENT_ID: Final = "session"
PR_SET_PDEATHSIG: Final = 1
"""Of linux/prctl.h: the signal that the kernel sends when the parent ends."""
PROBE_TIMEOUT: Final = 1.0
"""Seconds; the library holds a lock while it dials, up to a minute, and its answer would wait for that."""
PNG_SCALE: Final = 6
"""Pixels a module: about 400 pixels a side, sharp on a screen and some 2 KiB."""

_NOT_VALID_NOW: Final = r"not yet valid|not valid yet|certificate (has )?expired"

_SQLITE_OPTIONS: Final = "?_foreign_keys=on&_journal_mode=WAL&_synchronous=FULL&_busy_timeout=7000&_x="
"""neonize appends `?_foreign_keys=on` to what it is given; the last parameter swallows it.

The driver (mattn/go-sqlite3) sets synchronous to NORMAL by itself, and then a power loss may undo a commit: a pairing
that the phone believes in, or the keys of messages that were sent.
"""


class Channel:
    """The worker's end of the socket pair. Sending is safe from any thread, Go's included."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, event: wire.WorkerEvent) -> None:
        """A supervisor that is gone is noticed by the reader, which ends the process."""
        line = wire.encode(event)
        with self._lock:
            try:
                self._connection.sendall(line)
            except OSError:
                os._exit(1)

    def commands(self) -> Iterator[wire.Command]:
        """Ends when the supervisor has closed its end."""
        with self._connection.makefile("rb") as lines:
            for line in lines:
                yield wire.decode_command(line)


class Worker:
    """One connection of one device, from `Start` to the end of the process."""

    def __init__(self, channel: Channel, start: wire.Start) -> None:
        self._channel = channel
        self._start = start
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._code_requested = False
        self._opened = False
        self._client: Any = None
        self._probes = ThreadPoolExecutor(1, "probe")
        self._probe: Future[bool] | None = None

    def open(self) -> None:
        """Load the library and connect in a thread; returns at once."""
        slim.install()
        import neonize
        from neonize.utils.log import log as library_log

        _own_logging(verbose=self._start.verbose)
        # NOTSET would forward everything to Python, QR texts included.
        library_log.setLevel(logging.INFO if self._start.verbose else logging.WARNING)
        self._client = self._new_client()
        self._subscribe()
        self._channel.send(wire.WorkerStarted(library_version=str(neonize.__version__)))
        threading.Thread(target=self._connect, name="connect", daemon=True).start()
        threading.Thread(target=self._run_calls, name="calls", daemon=True).start()

    def handle(self, command: wire.Command) -> None:
        match command:
            case wire.Ping(number):
                self._channel.send(self._pong(number))
            case wire.Logout():
                # It waits for no message: its time is short.
                threading.Thread(target=self._logout, name="logout", daemon=True).start()
            case wire.Send():
                self._calls.put(lambda: self._send(command))
            case wire.Quit():
                self._calls.put(self._quit)
            case wire.Start():
                raise wire.WireError("Start comes only once")

    def _pong(self, number: int) -> wire.Pong:
        seen = traffic.of_process()
        # Before it dials, the library may be writing its map of clients, and reading that then ends the process.
        self._opened = self._opened or seen is not None
        connected = self._opened and self._is_connected()
        return wire.Pong(
            number,
            connected=connected,
            logged_in=connected and bool(self._client.is_logged_in),
            silence=seen.received if seen is not None else None,
            latency=seen.latency if seen is not None else None,
        )

    def _is_connected(self) -> bool:
        if self._probe is None or self._probe.done():
            self._probe = self._probes.submit(lambda: bool(self._client.is_connected))
        try:
            return self._probe.result(PROBE_TIMEOUT)
        except TimeoutError:
            return False

    def _new_client(self) -> Any:
        from neonize.client import NewClient
        from neonize.proto.waCompanionReg.WAWebProtobufsCompanionReg_pb2 import DeviceProps

        name = parse_display_name(self._start.display_name)
        properties = DeviceProps(
            os=name.system,
            platformType=getattr(DeviceProps, name.browser.upper(), DeviceProps.CHROME),
        )
        client: Any = NewClient(self._start.database + _SQLITE_OPTIONS, props=properties, uuid=CLIENT_ID)
        # The one place where an outcome before pairing shows; its own implementation prints a pointer.
        client._NewClient__onLoginStatus = self._on_login_status
        return client

    def _subscribe(self) -> None:
        import neonize.events

        events: Any = neonize.events  # its star of names is not declared as exported
        send = self._channel.send
        handlers: dict[Any, Callable[[Any], None]] = {
            events.PairStatusEv: self._on_pair_status,
            events.ConnectedEv: self._on_connected,
            events.DisconnectedEv: lambda _: send(wire.Disconnected()),
            events.KeepAliveTimeoutEv: lambda e: send(wire.KeepAliveTimeout(int(e.ErrorCount))),
            events.KeepAliveRestoredEv: lambda _: send(wire.KeepAliveRestored()),
            events.LoggedOutEv: self._on_logged_out,
            events.StreamReplacedEv: lambda _: send(wire.StreamReplaced()),
            events.TemporaryBanEv: lambda e: send(wire.TemporaryBan(int(e.Code), int(e.Expire))),
            events.ConnectFailureEv: self._on_connect_failure,
            events.ClientOutdatedEv: lambda _: send(wire.ClientOutdated()),
            events.StreamErrorEv: lambda e: send(wire.StreamError(str(e.Code))),
            events.MessageEv: self._on_message,
            events.UndecryptableMessageEv: lambda _: send(wire.Undecryptable()),
        }
        for event, handler in handlers.items():
            self._client.event(event)(_guarded(handler))
        self._client.event.qr(self._on_qr)

    def _connect(self) -> None:
        from neonize._binder import ProxySettings

        url = self._start.proxy_url
        try:
            if url is not None:
                proxy.check(url)
            self._client.connect(ProxySettings(url) if url else None)
        except proxy.ProxyError as error:
            self._channel.send(wire.ConnectEnded(kind=error.kind, status=0, detail=""))
        except Exception as error:  # noqa: BLE001  (neonize raises bare exceptions and ctypes' own)
            self._channel.send(classify_connect_error(str(error), with_proxy=url is not None))
        else:
            self._channel.send(wire.ConnectEnded(kind="other", status=0, detail="connect() returned"))

    def _run_calls(self) -> None:
        """Calls into the library that wait for the server, one after the other, off the thread that answers pings."""
        while True:
            self._calls.get()()

    # Callbacks of the library, on threads of Go.

    def _on_qr(self, _: Any, data: bytes) -> None:
        try:
            self._opened = True
            if self._start.pair_phone is None:
                text = data.decode()
                self._channel.send(wire.QRCode(text=text, png=base64.b64encode(qr_png(text)).decode()))
            elif not self._code_requested:
                # The protocol takes a request for a code only once the server has offered a QR.
                self._code_requested = True
                self._channel.send(wire.QRCode(text="", png=""))
                phone = self._start.pair_phone
                self._calls.put(lambda: self._request_code(phone))
        except Exception:
            logger.exception("the QR callback failed")

    def _on_login_status(self, _: int, status: int) -> None:
        try:
            self._channel.send(wire.PairingEnded(ctypes.string_at(status).decode()))
        except Exception:
            logger.exception("the login status callback failed")

    def _on_pair_status(self, event: Any) -> None:
        from neonize.utils.jid import Jid2String

        if event.Status != type(event).SUCCESS:
            self._channel.send(wire.PairingEnded("error"))
            return
        self._channel.send(
            wire.Paired(
                jid=Jid2String(event.ID), lid="", platform=str(event.Platform), business_name=str(event.BusinessName)
            )
        )

    def _on_connected(self, _: Any) -> None:
        from neonize.utils.jid import Jid2String

        self._opened = True
        me = self._client.me
        if me is None:
            self._channel.send(wire.Connected(jid="", lid="", platform="", business_name="", push_name=""))
        else:
            self._channel.send(
                wire.Connected(
                    jid=Jid2String(me.JID),
                    lid=Jid2String(me.LID) if me.LID.User else "",
                    platform=str(me.Platform),
                    business_name=str(me.BussinessName),
                    push_name=str(me.PushName),
                )
            )
        self._calls.put(give_memory_back)

    def _on_logged_out(self, event: Any) -> None:
        from neonize.proto import Neonize_pb2

        self._channel.send(wire.LoggedOut(main_device_gone=event.Reason == Neonize_pb2.MAIN_DEVICE_GONE))

    def _on_connect_failure(self, event: Any) -> None:
        from neonize.proto import Neonize_pb2

        self._channel.send(wire.ConnectFailure(Neonize_pb2.ConnectFailureReason.Name(event.Reason)))

    def _on_message(self, event: Any) -> None:
        from neonize.utils.jid import Jid2String

        source = event.Info.MessageSource
        text = event.Message.conversation or event.Message.extendedTextMessage.text
        if source.IsFromMe or not text:
            return
        numbered = [jid for jid in (source.Sender, source.SenderAlt) if jid.Server == "s.whatsapp.net"]
        sender = f"+{numbered[0].User}" if numbered else Jid2String(source.Sender)
        self._channel.send(
            wire.MessageReceived(
                message_id=str(event.Info.ID), sender=sender, text=str(text), timestamp=_seconds(event.Info.Timestamp)
            )
        )

    # Calls, on the calls thread; the log-out on one of its own.

    def _request_code(self, phone: str) -> None:
        from neonize.utils.enum import ClientType

        name = parse_display_name(self._start.display_name)
        try:
            code = self._client.PairPhone(
                phone,
                show_push_notification=True,
                # Only `.name` is read of it, and the enumeration lacks what phones accept besides.
                client_name=SimpleNamespace(name=name.pairing_code_system),
                client_type=ClientType[name.browser.upper()],
            )
        except Exception as error:  # noqa: BLE001  (see _connect)
            self._channel.send(classify_code_error(str(error)))
        else:
            self._channel.send(wire.PairingCode(code))

    def _logout(self) -> None:
        try:
            self._client.logout()
        except Exception as error:  # noqa: BLE001  (see _connect)
            self._channel.send(wire.LogoutDone(str(error) or "refused"))
        else:
            self._channel.send(wire.LogoutDone(""))

    def _send(self, command: wire.Send) -> None:
        from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message
        from neonize.utils.jid import build_jid

        try:
            # A Message, not a string: neonize would look for mentions in that.
            sent = self._client.send_message(build_jid(command.to), Message(conversation=command.text))
        except Exception as error:  # noqa: BLE001  (see _connect)
            self._channel.send(wire.SendDone(command.request, "", 0, str(error) or "refused"))
        else:
            self._channel.send(wire.SendDone(command.request, str(sent.ID), _seconds(sent.Timestamp), ""))

    def _quit(self) -> None:
        try:
            self._client.disconnect()
        finally:
            os._exit(0)


def qr_png(text: str) -> bytes:
    import segno

    picture = io.BytesIO()
    segno.make(text, error="l", micro=False).save(picture, kind="png", scale=PNG_SCALE, border=4)
    return picture.getvalue()


def classify_connect_error(text: str, *, with_proxy: bool) -> wire.ConnectEnded:
    """What kind of failure connect() raised, from the text that Go's net, tls and websocket packages make of it.

    Of an HTTP proxy's refusal only the status text is left, at the end. neonize cannot pass on a ban whose code it does
    not know: `required field neonize.TemporaryBan.Code not set`.
    """
    tail = text.rsplit(": ", 1)[-1].strip()
    status = next((s.value for s in http.HTTPStatus if s.value >= 300 and s.phrase.casefold() == tail.casefold()), 0)
    low = text.casefold()
    kind = "other"
    if "failed to dial" in low or "websocket" in low:
        kind = "network"
        if with_proxy and (status or "proxyconnect" in low or "socks" in low):
            kind = "proxy"
        elif re.search(_NOT_VALID_NOW, low):
            kind = "clock"
        elif "x509" in low or "tls:" in low:
            kind = "tls"
        elif "lookup " in low:
            kind = "dns"
    elif re.search(_NOT_VALID_NOW, low):
        kind = "clock"  # the certificate within the Noise handshake
    elif "temporaryban" in low:
        kind = "ban"
    elif "connectfailure" in low:
        kind = "refused"  # for a reason that neonize cannot pass on either
    elif re.search(r"database|sqlite|no such file|disk i/o|read-only", low):
        kind = "storage"
    return wire.ConnectEnded(kind=kind, status=status, detail=text)


def classify_code_error(text: str) -> wire.PairingCodeRefused:
    """Why the server or the library gave no pairing code."""
    low = text.casefold()
    if "429" in low or "rate-overlimit" in low or "rate limit" in low:
        kind = "rate_limited"
    elif "phone number" in low:
        kind = "invalid_phone"
    else:
        kind = "other"
    return wire.PairingCodeRefused(kind=kind, detail=text)


def give_memory_back() -> None:
    """Return what start-up and pairing left free to the system; a third of the worker's anonymous memory."""
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def _seconds(timestamp: int) -> int:
    """Seconds from a timestamp that is in seconds or milliseconds, depending on the event."""
    return int(timestamp) // 1000 if timestamp > 100_000_000_000 else int(timestamp)


def _guarded(handler: Callable[[Any], None]) -> Callable[[Any, Any], None]:
    def handle(_: Any, event: Any) -> None:
        try:
            handler(event)
        except Exception:
            # ctypes would print and forget it.
            logger.exception("the handler of %s failed", type(event).__name__)

    return handle


def _own_logging(*, verbose: bool) -> None:
    """One line a record on stderr for the supervisor; neonize has installed its own format on import."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler], force=True)


def main() -> int:
    """The descriptor of the socket pair is the one argument. Returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the supervisor's whole group
    os.umask(0o077)  # neonize makes its database 0644
    # A worker that hangs does not see its supervisor go, and would keep the volume locked.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    commands = channel.commands()
    start = next(commands, None)
    if not isinstance(start, wire.Start):
        raise wire.WireError("the first message is Start")
    worker = Worker(channel, start)
    worker.open()
    for command in commands:
        worker.handle(command)
    # The supervisor is gone; threads of Go would keep the process.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
