"""One unmodified neonize client in a process of its own, driven by JSON lines.

Run as `python -m tests.integration.neonize_client DATABASE ROOT_KEY_HEX` with HTTPS_PROXY and SSL_CERT_FILE set when
the process starts: the Go library reads only the original environment. It never ends by itself, since neonize may hang
in `stop()`: kill it.

Standard output holds one JSON object a line, {"event": ..., ...}; the library's own output is sent to standard error.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any


def _own_output() -> Callable[..., None]:
    """Keep standard output for ourselves: the Go library prints to descriptor 1."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    lock = threading.Lock()

    def emit(event: str, **fields: Any) -> None:
        with lock:
            out.write(json.dumps({"event": event, **fields}) + "\n")

    return emit


def main() -> None:
    emit = _own_output()
    database, root = sys.argv[1:3]
    import neonize.events as events
    from neonize.client import NewClient
    from neonize.proto.Neonize_pb2 import ConnectFailureReason, TemporaryBan
    from neonize.utils.jid import Jid2String
    from neonize.utils.log import log

    from whatsapp_simulator.trust import trust_root

    level = os.environ.get("NEONIZE_LOG_LEVEL", "WARNING")
    log.setLevel(level)
    logging.getLogger().setLevel(level)
    trust_root(bytes.fromhex(root))
    client = NewClient(database, uuid="client")

    def login_status(_: Any, status: int) -> None:
        emit("login-status", status=ctypes.string_at(status).decode())

    setattr(client, "_NewClient__onLoginStatus", login_status)  # noqa: B010 - private, and all that tells it

    def reports(name: str, details: Callable[[Any], dict[str, Any]] = lambda _: {}) -> None:
        client.event(getattr(events, f"{name}Ev"))(lambda _, event: emit(name, **details(event)))

    client.event.qr(lambda _, text: emit("qr", text=text.decode()))
    for name in (
        "Connected",
        "Disconnected",
        "StreamReplaced",
        "ClientOutdated",
        "KeepAliveTimeout",
        "KeepAliveRestored",
    ):
        reports(name)
    reports("PairStatus", lambda event: {"jid": Jid2String(event.ID)})
    reports(
        "LoggedOut",
        lambda event: {"onConnect": event.OnConnect, "reason": ConnectFailureReason.Name(event.Reason)},
    )
    reports(
        "TemporaryBan",
        lambda event: {"code": TemporaryBan.TempBanReason.Name(event.Code), "expire": event.Expire},
    )
    reports("ConnectFailure", lambda event: {"reason": ConnectFailureReason.Name(event.Reason)})
    reports("StreamError", lambda event: {"code": event.Code})
    reports("UndecryptableMessage", lambda event: {"id": event.Info.ID})
    reports("Receipt", lambda event: {"ids": list(event.MessageIDs), "type": int(event.Type)})
    reports(
        "Message",
        lambda event: {
            "id": event.Info.ID,
            "sender": Jid2String(event.Info.MessageSource.Sender),
            "fromMe": event.Info.MessageSource.IsFromMe,
            "text": event.Message.conversation or event.Message.extendedTextMessage.text,
        },
    )

    def connect() -> None:
        try:
            client.connect()
            emit("connect-returned")
        except Exception as error:  # noqa: BLE001 - whatever it is, the test judges it
            emit("connect-raised", error=str(error))

    threading.Thread(target=connect, daemon=True).start()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            emit("answer", value=_run(client, command))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test judges it
            emit("answer", error=f"{type(error).__name__}: {error}")
    os._exit(0)


def _run(client: Any, command: dict[str, Any]) -> Any:
    from neonize.utils.jid import build_jid

    match command["do"]:
        case "pair-code":
            return client.PairPhone(command["number"], show_push_notification=True)
        case "send":
            return client.send_message(
                build_jid(command["to"], command.get("server", "s.whatsapp.net")), command["text"]
            ).ID
        case "is-on-whatsapp":
            return [answer.IsIn for answer in client.is_on_whatsapp(*command["numbers"])]
        case "logout":
            client.logout()
            return None
        case "state":
            return {"connected": client.is_connected, "loggedIn": client.is_logged_in}
        case unknown:
            raise ValueError(f"no command {unknown}")


if __name__ == "__main__":
    main()
