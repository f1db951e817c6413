"""Four minutes of sessions of five tenants, in which people are quick and slow, and some things go wrong."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from tests.apiserver import ApiError
from tests.e2e.test_recovery import KILL_WORKER
from tests.scenario import Scenario
from tests.target import Target
from tests.waiting import eventually
from whatsapp_operator.api import names

SECONDS: Final = 235.0
# Namespace, tenant, session, and after how many seconds somebody scans; None: nobody, or see the schedule.
SESSIONS: Final = (
    ("shop", "acme", "orders", 9.0),
    ("shop", "acme", "returns", 12.0),
    ("shop", "acme", "stock", 20.0),
    ("shop", "bistro", "tables", 14.0),
    ("shop", "bistro", "kitchen", None),
    ("support", "clinic", "frontdesk", 10.0),
    ("support", "clinic", "lab", 33.0),
    ("support", "clinic", "emergency", 48.0),
    ("support", "delta", "sales", 16.0),
    ("support", "delta", "service", 27.0),
    ("support", "delta", "parts", None),
    ("support", "echo", "archive", 18.0),
    ("support", "echo", "field", None),
)
# These are shown one window only, so that it is over before the end.
ONE_WINDOW: Final = ("field",)
BY_CODE: Final = ("sales", "frontdesk")


@dataclass
class Demonstration:
    scenarios: dict[str, Scenario]
    phones: dict[str, str] = field(default_factory=dict)

    def where(self, name: str) -> Scenario:
        return self.scenarios[next(namespace for namespace, _, session, _ in SESSIONS if session == name)]

    def apply(self, name: str, **spec: Any) -> None:
        tenant = next(tenant for _, tenant, session, _ in SESSIONS if session == name)
        method = "PairingCode" if name in BY_CODE else "QRCode"
        pairing = {"method": method, "attempts": 1 if name in ONE_WINDOW else 5}
        where = self.where(name)
        where.apply(where.manifest(name, tenant=tenant, phone=self.phones[name], pairing=pairing, **spec))

    def scan(self, name: str, phone: str | None = None) -> None:
        """As a person does; a phone that refuses says so to its owner only."""
        where = self.where(name)
        with suppress(ApiError):
            if name in BY_CODE:
                code = eventually(
                    lambda: where.secret(name).get(names.SECRET_KEY_CODE), f"{name} shows a code", seconds=90
                )
                where.simulator.enter_code(self.phones[name], code)
            else:
                where.simulator.scan(phone or self.phones[name], where.qr(name))

    def fault(self, kind: str, name: str, **fault: Any) -> None:
        self.where(name).simulator.call("POST", "/faults", {"kind": kind, "phone": self.phones[name], **fault})

    def ban(self, name: str) -> None:
        self.fault("failure", name, reason="402", code="101", expire=7200)
        self.fault("drop", name)

    def kill_worker(self, name: str) -> None:
        where = self.where(name)
        where.kubectl.python(where.namespace, names.owned_name(name), KILL_WORKER)

    def unlink(self, name: str) -> None:
        simulator = self.where(name).simulator
        for device in simulator.devices(self.phones[name]):
            simulator.unlink(self.phones[name], device["id"])

    def delete_pod(self, name: str) -> None:
        where = self.where(name)
        where.kubectl.run("delete", "pod", f"--namespace={where.namespace}", names.owned_name(name), "--wait=false")

    def schedule(self) -> list[tuple[float, Callable[[], None]]]:
        """What happens, and after how many seconds."""
        planned: list[tuple[float, Callable[[], None]]] = [
            (at, lambda name=name: self.scan(name))  # type: ignore[misc]
            for _, _, name, at in SESSIONS
            if at is not None
        ]
        stranger = self.phones["kitchen"]
        return sorted(
            [
                *planned,
                # The first scan fails, and another window is shown.
                (46.0, lambda: self.fault("bad-hmac", "emergency")),
                (60.0, lambda: self.scan("emergency")),
                # A wrong phone, and then the right one.
                (72.0, lambda: self.scan("parts", stranger)),
                (95.0, lambda: self.scan("parts")),
                (105.0, lambda: self.kill_worker("orders")),
                (112.0, lambda: self.kill_worker("service")),
                (120.0, lambda: self.delete_pod("tables")),
                (130.0, lambda: self.apply("archive", suspend=True)),
                (140.0, lambda: self.where("stock").force_relink("stock", "a new phone")),
                (152.0, lambda: self.scan("stock")),
                (165.0, lambda: self.unlink("lab")),
                (180.0, lambda: self.ban("frontdesk")),
                (190.0, lambda: self.kill_worker("orders")),
            ],
            key=lambda planned: planned[0],
        )


@contextmanager
def demonstration(target: Target) -> Iterator[None]:
    """Plays it, and removes it when the context is left."""
    scenarios = {namespace: target.scenario(namespace) for namespace in dict.fromkeys(one[0] for one in SESSIONS)}
    played = Demonstration(scenarios)
    run = secrets.randbelow(9_000) + 1_000
    try:
        for number, (namespace, _, name, _) in enumerate(SESSIONS):
            played.phones[name] = f"+1555{run}{200 + number}"
            scenarios[namespace].prepare()
            scenarios[namespace].simulator.add_phone(played.phones[name])
        began = time.monotonic()
        for _, _, name, _ in SESSIONS:
            played.apply(name)
        for at, happens in played.schedule():
            time.sleep(max(0.0, began + at - time.monotonic()))
            happens()
        time.sleep(max(0.0, began + SECONDS - time.monotonic()))
        yield
    finally:
        for scenario in scenarios.values():
            scenario.remove(wait=False)
        for scenario in scenarios.values():
            scenario.removed()
