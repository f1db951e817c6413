"""Text messages over a unix socket inside the pod, until messaging has an interface of its own.

JSON lines. A request is `{"op": "send", "to": "+15551230002", "text": "..."}`, answered by `{"id", "timestamp"}` or
`{"error"}`, or `{"op": "receive"}`, answered by `{"id", "from", "text", "timestamp"}` for every message that comes.
A message that comes while nobody receives is kept for the next who does; the last hundred of them, in memory.

    python -m whatsapp_operator.session.messages send --to +15551230002 --text "Hello"
    python -m whatsapp_operator.session.messages receive --count 1 --timeout 30
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import re
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from whatsapp_operator.api import names
from whatsapp_operator.session import wire

logger = logging.getLogger(__name__)

BACKLOG: Final = 100
MAX_TEXT: Final = 65_536
SEND_TIMEOUT: Final = 60.0

_NUMBER: Final = re.compile(r"\+[1-9][0-9]{6,14}")


class SendError(Exception):
    """The message was not taken; the text says why, and holds no number."""


Sender = Callable[[str, str], Awaitable[wire.SendDone]]
"""Sends (digits, text) through the worker; raises SendError."""


class MessageServer:
    def __init__(self, send: Sender) -> None:
        self._send = send
        self._receivers: set[asyncio.Queue[wire.MessageReceived]] = set()
        self._backlog: deque[wire.MessageReceived] = deque(maxlen=BACKLOG)

    async def serve(self, path: Path) -> asyncio.AbstractServer:
        """Raises OSError when the socket cannot be made."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108  (of a process that was killed; a call of a moment)
        return await asyncio.start_unix_server(self._handle, path, limit=wire.MAX_LINE)

    def deliver(self, message: wire.MessageReceived) -> None:
        for receiver in self._receivers:
            receiver.put_nowait(message)
        if not self._receivers:
            self._backlog.append(message)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                request = _parse(line)
                if request is None:
                    _answer(writer, {"error": "the request is not understood"})
                elif request["op"] == "receive":
                    await self._receive(reader, writer)
                    return
                else:
                    _answer(writer, await self._sent(request))
                await writer.drain()
        except (OSError, ValueError):
            logger.debug("a client of the message socket went away")
        finally:
            writer.close()

    async def _sent(self, request: dict[str, Any]) -> dict[str, Any]:
        to, text = request.get("to"), request.get("text")
        if not isinstance(to, str) or not _NUMBER.fullmatch(to):
            return {"error": "`to` is a phone number in international form, +15551230002"}
        if not isinstance(text, str) or not 0 < len(text) <= MAX_TEXT:
            return {"error": f"`text` has 1 to {MAX_TEXT} characters"}
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                done = await self._send(to.removeprefix("+"), text)
        except TimeoutError:
            return {"error": "the server has not answered in time; the message may have been sent"}
        except SendError as error:
            return {"error": str(error)}
        return {"id": done.message_id, "timestamp": done.timestamp}

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[wire.MessageReceived] = asyncio.Queue()
        while self._backlog:
            queue.put_nowait(self._backlog.popleft())
        self._receivers.add(queue)
        gone = asyncio.ensure_future(reader.read(1))
        try:
            while not gone.done():
                incoming = asyncio.ensure_future(queue.get())
                await asyncio.wait({incoming, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not incoming.done():
                    incoming.cancel()
                    return
                message = incoming.result()
                _answer(
                    writer,
                    {
                        "id": message.message_id,
                        "from": message.sender,
                        "text": message.text,
                        "timestamp": message.timestamp,
                    },
                )
                await writer.drain()
        finally:
            gone.cancel()
            self._receivers.discard(queue)
            if not self._receivers:
                while not queue.empty():
                    self._backlog.append(queue.get_nowait())


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        request = json.loads(line)
    except ValueError:
        return None
    return request if isinstance(request, dict) and request.get("op") in ("send", "receive") else None


def _answer(writer: asyncio.StreamWriter, document: dict[str, Any]) -> None:
    writer.write(json.dumps(document, ensure_ascii=False).encode() + b"\n")


async def _client(arguments: argparse.Namespace) -> int:
    """0: done; 1: the server says why not; 2: not all messages came in time."""
    try:
        reader, writer = await asyncio.open_unix_connection(arguments.socket, limit=wire.MAX_LINE)
    except OSError as error:
        print(f"no session listens on {arguments.socket}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    try:
        if arguments.command == "send":
            _answer(writer, {"op": "send", "to": arguments.to, "text": arguments.text})
            return 0 if _show(await reader.readline()) else 1
        _answer(writer, {"op": "receive"})
        return await _print_messages(reader, arguments.count, arguments.timeout)
    finally:
        writer.close()


async def _print_messages(reader: asyncio.StreamReader, count: int | None, timeout: float | None) -> int:  # noqa: ASYNC109
    received = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            while count is None or received < count:
                line = await reader.readline()
                if not line:
                    break
                _show(line)
                received += 1
    return 0 if count is None or received == count else 2


def _show(line: bytes) -> bool:
    """Prints an answer; False for an error or none."""
    text = line.decode().rstrip()
    print(text or '{"error": "the session went away"}', flush=True)  # noqa: T201
    return bool(text) and "error" not in json.loads(text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m whatsapp_operator.session.messages")
    parser.add_argument("--socket", default=names.MESSAGE_SOCKET, help="the session's socket (%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    send = commands.add_parser("send", help="send a text and print its id")
    send.add_argument("--to", required=True, help="phone number in international form, +15551230002")
    send.add_argument("--text", required=True)
    receive = commands.add_parser("receive", help="print the messages that come, a JSON object a line")
    receive.add_argument("--count", type=int, help="end after so many messages")
    receive.add_argument(
        "--timeout", type=float, help="end after so many seconds; status 2 if --count were not reached"
    )
    return asyncio.run(_client(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
