"""Which fault strikes which session when: pure, and the same for the same seed."""

import random
from dataclasses import dataclass, field
from typing import Any

from whatsapp_operator.api.reasons import Reason

LOGGED_OUT = frozenset({Reason.LOGGED_OUT, Reason.ATTEMPTS_EXHAUSTED})
UNPAIRED = frozenset({Reason.ATTEMPTS_EXHAUSTED})
"""What any loss of the credentials can end in: nobody scans."""
DROP: dict[str, Any] = {"kind": "drop"}


@dataclass(frozen=True)
class Kind:
    """A kind of fault. `faults` are bodies of `POST /faults`, taken back after `lasts` (least and most, seconds of
    this clock) where they have not shown by then; `act` names what else is done. `ban` is in simulated seconds.
    """

    name: str
    faults: tuple[dict[str, Any], ...] = ()
    lasts: tuple[float, float] = (20.0, 40.0)
    act: str = ""
    ban: float = 0.0
    costs_pairing: bool = False
    """The credentials are rightly gone after it."""
    leads_to: frozenset[Reason] = frozenset()
    """Reasons in which a session may end for it, waiting for a person or a time."""
    for_all: bool = False
    mutes: bool = False
    """The connection stays open while it lasts, and is none."""
    weight: int = 2

    @property
    def heals_alone(self) -> bool:
        """No person and no hold is needed after it."""
        return not self.costs_pairing and not self.leads_to and self.act != "method"


def _login(reason: str, **more: Any) -> Kind:
    """A login that is refused; a session that is connected is made to log in."""
    return Kind(f"login refused: {reason}", ({"kind": "failure", "reason": reason}, DROP), **more)


def _stream(name: str, **more: Any) -> Kind:
    return Kind(f"stream error: {name}", ({"kind": "stream-error", **more.pop("fault")},), **more)


def _pairing(kind: str, **more: Any) -> Kind:
    """Something that goes wrong in a pairing, which is asked for."""
    return Kind(f"relink, {kind}", ({"kind": kind},), (120.0, 180.0), **{"act": "relink", **_LOST, **more}, weight=1)


_LOST: dict[str, Any] = {"costs_pairing": True, "leads_to": UNPAIRED}

KINDS = (
    Kind("connection cut", (DROP,), weight=8),
    Kind("connection cut after every login", ({"kind": "drop", "times": None},)),
    Kind("cut after two frames, again and again", ({"kind": "close-after-frames", "frames": 2, "times": None}, DROP)),
    Kind("hang from the login on", ({"kind": "hang", "times": None}, DROP), (20.0, 120.0), weight=4),
    Kind(
        "keepalives not answered", ({"kind": "ignore-keepalives", "times": None},), (60.0, 120.0), mutes=True, weight=4
    ),
    Kind("slow by a second", ({"kind": "slow", "milliseconds": 1000, "times": None}, DROP)),
    Kind("prekey queries not answered", ({"kind": "ignore-prekeys", "times": None}, DROP), (20.0, 90.0)),
    Kind("message that cannot be decrypted", ({"kind": "undecryptable"},), act="message"),
    Kind("clock off by an hour", ({"kind": "clock-skew"}, DROP)),
    _login("400"),
    _login("409"),
    _login("414"),
    _login("418"),
    _login("499"),
    _login("500"),
    _login("503"),
    _login("401", costs_pairing=True, leads_to=LOGGED_OUT),
    _login("403", costs_pairing=True, leads_to=frozenset({Reason.MAIN_DEVICE_GONE, Reason.ATTEMPTS_EXHAUSTED})),
    _login("405", leads_to=frozenset({Reason.CLIENT_OUTDATED})),
    Kind("ban for 10 minutes", act="ban", ban=600, leads_to=frozenset({Reason.TEMPORARY_BAN})),
    Kind("ban for 2 hours", act="ban", ban=7200, leads_to=frozenset({Reason.TEMPORARY_BAN})),
    _stream("500", fault={"code": "500"}),
    _stream("503", fault={"code": "503"}),
    _stream("515", fault={"code": "515"}),
    _stream("516", fault={"code": "516"}),
    _stream("unknown", fault={"code": "599"}),
    _stream("replaced", fault={"conflict": "replaced"}, weight=4, leads_to=frozenset({Reason.STREAM_REPLACED})),
    Kind("device removed on the phone", act="unlink", costs_pairing=True, leads_to=LOGGED_OUT, weight=4),
    Kind("relink asked for", act="relink", **_LOST, weight=4),
    Kind("another phone declared", act="other-phone", **_LOST),
    Kind("another display name", act="display-name"),
    Kind("another pairing method", act="method"),
    Kind("relink, another phone scans", act="stranger", **_LOST),
    Kind("relink, nobody scans", act="away", **_LOST),
    _pairing("bad-hmac"),
    _pairing("bad-account-signature"),
    _pairing("phone-never-finishes"),
    _pairing("no-multidevice"),
    _pairing("passkey", leads_to=frozenset({Reason.PASSKEY_REQUIRED, Reason.ATTEMPTS_EXHAUSTED})),
    _pairing("refuse-code", act="relink-by-code", leads_to=frozenset({Reason.RATE_LIMITED, Reason.ATTEMPTS_EXHAUSTED})),
    _pairing("ignore-code", act="relink-by-code"),
    Kind("worker killed", act="kill-worker", weight=6),
    Kind("worker stopped", act="stop-worker", weight=4),
    Kind("supervisor killed", act="kill-supervisor", weight=4),
    Kind("pod stopped and started", act="restart-pod", weight=4),
    Kind("credential file corrupted", act="corrupt", **_LOST),
    Kind("API server refuses the status", act="refuse-status", lasts=(10.0, 60.0)),
    Kind("API server refuses the Secret", act="refuse-secret", lasts=(10.0, 60.0)),
    Kind("simulator restarted", act="restart-simulator", for_all=True),
    Kind("all dials refused", ({"kind": "refuse-dial", "times": None}, DROP), (5.0, 30.0), for_all=True),
    Kind("few references", ({"kind": "few-refs"},), for_all=True),
)
KILLS_SUPERVISOR = frozenset({"kill-supervisor", "restart-pod", "corrupt"})


@dataclass(frozen=True)
class Strike:
    """A fault at a time (seconds from the start) for a session; None: for all."""

    at: float
    session: int | None
    kind: Kind = field(repr=False)
    seconds: float

    @property
    def name(self) -> str:
        return self.kind.name


def schedule(
    seed: int, sessions: int, *, seconds: float, every: float, spared: frozenset[int] = frozenset()
) -> list[Strike]:
    """In the order of time: for each session one on average `every` seconds, and for all together one too, a third as
    often. Supervisors of the `spared` sessions live from beginning to end.
    """
    strikes = []
    for session in (None, *range(sessions)):
        # Each session has a sequence of its own, so that another number of sessions does not change it.
        chance = random.Random(f"{seed}/{session}")
        kinds = [
            kind
            for kind in KINDS
            if kind.for_all is (session is None) and not (session in spared and kind.act in KILLS_SUPERVISOR)
        ]
        weights = [kind.weight for kind in kinds]
        mean = every if session is not None else every * 3
        at = chance.expovariate(1 / mean)
        while at < seconds:
            [kind] = chance.choices(kinds, weights)
            strikes.append(Strike(at, session, kind, chance.uniform(*kind.lasts)))
            at += chance.expovariate(1 / mean)
    return sorted(strikes, key=lambda strike: strike.at)
