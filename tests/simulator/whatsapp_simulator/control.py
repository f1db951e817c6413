"""The control API: JSON over HTTP, errors as application/problem+json. README.md describes it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from whatsapp_simulator import faults
from whatsapp_simulator.linking import Candidate
from whatsapp_simulator.problems import ProblemError
from whatsapp_simulator.server import Server
from whatsapp_simulator.store import Device, DeviceId, InboxMessage, Phone

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_NUMBER: Final = re.compile(r"[1-9][0-9]{6,14}")
_MAX_DELAY: Final = 3600
_DEFAULT_NAME: Final = "Simulated Phone"


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ProblemError as problem:
        return _problem(problem.status, problem.name, problem.detail)
    except web.HTTPException as error:
        return _problem(error.status, error.reason.lower().replace(" ", "-"), error.reason)
    except Exception:
        logger.exception("a control request failed")
        return _problem(500, "internal-error", "the simulator failed; its log has the cause")


def _problem(status: int, name: str, detail: str) -> web.Response:
    body = {"type": f"urn:whatsapp-simulator:{name}", "title": name, "status": status, "detail": detail}
    return web.json_response(body, status=status, content_type="application/problem+json")


class Control:
    """The control API of one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._scheduled: set[asyncio.Task[None]] = set()
        self._outcomes: dict[str, dict[str, Any]] = {}
        """What became of the last scan of each phone that scans by itself."""

    def application(self) -> web.Application:
        application = web.Application(middlewares=[_problems])
        application.router.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/phones", self._phones),
                web.post("/phones", self._add_phone),
                web.get("/phones/{number}", self._phone),
                web.post("/phones/{number}/scan", self._scan),
                web.post("/phones/{number}/enter-code", self._enter_code),
                web.get("/phones/{number}/devices", self._devices),
                web.delete("/phones/{number}/devices/{device}", self._unlink),
                web.post("/phones/{number}/messages", self._send),
                web.get("/phones/{number}/inbox", self._inbox),
                web.get("/pairings", self._pairings),
                web.get("/faults", self._list_faults),
                web.post("/faults", self._add_fault),
                web.delete("/faults", self._clear_faults),
                web.delete("/faults/{id}", self._remove_fault),
            ]
        )
        application.on_shutdown.append(self._stop)
        return application

    async def _stop(self, _: web.Application) -> None:
        for task in list(self._scheduled):
            task.cancel()
        await asyncio.gather(*self._scheduled, return_exceptions=True)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "connections": self._server.connection_count})

    # Phones

    async def _add_phone(self, request: web.Request) -> web.Response:
        body = await _body(request)
        phone = self._server.add_phone(
            _number(body.get("number")), _string(body, "name", _DEFAULT_NAME), _delay(body, "scanAfterSeconds")
        )
        return web.json_response(
            self._describe_phone(phone), status=201, headers={"Location": f"/phones/{phone.number}"}
        )

    async def _phones(self, _: web.Request) -> web.Response:
        numbers = self._server.store.phones()
        phones = [self._describe_phone(self._server.phone(number)) for number in numbers]
        return web.json_response({"phones": phones})

    async def _phone(self, request: web.Request) -> web.Response:
        return web.json_response(self._describe_phone(self._target(request)))

    async def _scan(self, request: web.Request) -> web.Response:
        phone, body = self._target(request), await _body(request)
        text = _string(body, "qr")
        return await self._link(phone, lambda: self._server.scan(phone, text), _delay(body, "afterSeconds"))

    async def _enter_code(self, request: web.Request) -> web.Response:
        phone, body = self._target(request), await _body(request)
        text = _string(body, "code")
        return await self._link(phone, lambda: self._server.enter_code(phone, text), _delay(body, "afterSeconds"))

    async def _link(self, phone: Phone, link: Callable[[], Awaitable[DeviceId]], delay: float | None) -> web.Response:
        delay = phone.scan_after if delay is None else delay
        if not delay:
            return web.json_response({"device": (await link()).device}, status=201)
        outcome = self._outcomes[phone.number] = {"state": "waiting"}

        async def later() -> None:
            await asyncio.sleep(delay)
            try:
                outcome.update(state="linked", device=(await link()).device)
            except ProblemError as problem:
                logger.warning("a phone that scans by itself failed: %s", problem)
                outcome.update(state="failed", title=problem.name, detail=problem.detail)

        task = asyncio.create_task(later())
        self._scheduled.add(task)
        task.add_done_callback(self._scheduled.discard)
        return web.json_response(outcome, status=202, headers={"Location": f"/phones/{phone.number}"})

    async def _devices(self, request: web.Request) -> web.Response:
        devices = self._server.store.devices(self._target(request).number)
        return web.json_response({"devices": [self._describe_device(device) for device in devices]})

    async def _unlink(self, request: web.Request) -> web.Response:
        await self._server.unlink(self._target(request), _path_number(request, "device"))
        return web.Response(status=204)

    async def _send(self, request: web.Request) -> web.Response:
        phone, body = self._target(request), await _body(request)
        recipient = self._server.phone(_number(body.get("to")))
        identifier = await self._server.send_text(phone, recipient, _string(body, "text"))
        return web.json_response({"id": identifier}, status=201)

    async def _inbox(self, request: web.Request) -> web.Response:
        messages = self._server.store.inbox(self._target(request).number)
        return web.json_response({"messages": [_describe_message(message) for message in messages]})

    def _target(self, request: web.Request) -> Phone:
        return self._server.phone(_number(request.match_info["number"]))

    def _describe_phone(self, phone: Phone) -> dict[str, Any]:
        devices = self._server.store.devices(phone.number)
        return {
            "number": phone.number,
            "lid": str(phone.lid),
            "name": phone.name,
            "scanAfterSeconds": phone.scan_after,
            "lastScan": self._outcomes.get(phone.number),
            "devices": [self._describe_device(device) for device in devices],
        }

    def _describe_device(self, device: Device) -> dict[str, Any]:
        return {
            "id": device.id.device,
            "linkedAt": _time(device.linked),
            "connected": self._server.is_connected(device.id),
            "logins": self._server.logins[device.id],
            "takenOver": self._server.take_overs[device.id],
            "preKeys": self._server.store.count_pre_keys(device.id),
        }

    # Pairings

    async def _pairings(self, _: web.Request) -> web.Response:
        waiting = [_describe_candidate(c) for c in self._server.linking.candidates() if not c.taken]
        return web.json_response({"pairings": waiting})

    # Faults

    async def _list_faults(self, _: web.Request) -> web.Response:
        return web.json_response({"faults": [fault.describe() for fault in self._server.faults.all()]})

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            behaviour, scope, times = faults.parse(await _body(request))
        except faults.FaultError as error:
            raise ProblemError(422, "malformed-fault", str(error)) from error
        fault = self._server.faults.add(behaviour, scope, times)
        self._server.strike_all()
        return web.json_response(fault.describe(), status=201, headers={"Location": f"/faults/{fault.id}"})

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self._server.faults.clear()
        return web.Response(status=204)

    async def _remove_fault(self, request: web.Request) -> web.Response:
        if not self._server.faults.remove(_path_number(request, "id")):
            raise ProblemError(404, "unknown-fault", "no fault with this id is in force")
        return web.Response(status=204)


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except json.JSONDecodeError as error:
        raise ProblemError(400, "malformed-body", "the body is not JSON") from error
    if not isinstance(body, dict):
        raise ProblemError(400, "malformed-body", "the body is not a JSON object")
    return body


def _number(value: object) -> str:
    number = value.removeprefix("+") if isinstance(value, str) else ""
    if not _NUMBER.fullmatch(number):
        raise ProblemError(
            422, "malformed-number", "a number has 7 to 15 digits, not starting with 0; a plus may precede"
        )
    return number


def _string(body: dict[str, Any], name: str, default: str | None = None) -> str:
    value = body.get(name, default)
    if not isinstance(value, str) or not value:
        raise ProblemError(422, "malformed-body", f"{name} must be a string that is not empty")
    return value


def _delay(body: dict[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MAX_DELAY:
        raise ProblemError(422, "malformed-body", f"{name} must be between 0 and {_MAX_DELAY}")
    return float(value)


def _path_number(request: web.Request, name: str) -> int:
    value = request.match_info[name]
    if not value.isdecimal():
        raise ProblemError(404, "not-found", f"{name} is a number")
    return int(value)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _describe_message(message: InboxMessage) -> dict[str, Any]:
    return {
        "id": message.id,
        "from": message.sender.number,
        "device": message.sender.device,
        "text": message.text,
        "receivedAt": _time(message.received),
    }


def _describe_candidate(candidate: Candidate) -> dict[str, Any]:
    code = candidate.code
    return {
        "since": _time(candidate.since),
        "refs": [{"ref": ref, "expiresAt": _time(candidate.expires(ref))} for ref in candidate.refs],
        "code": {"number": code.number, "display": code.display, "since": _time(code.since)} if code else None,
    }
