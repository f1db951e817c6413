"""Each fault of the simulator, and what an unmodified neonize makes of it."""

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.simulator_process import NeonizeClient, SimulatorProcess
from tests.waiting import eventually

PHONE = "15551230001"
FRIEND = "15551230002"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("simulator")) as started:
        started.add_phone(PHONE)
        started.add_phone(FRIEND)
        yield started


@pytest.fixture
def simulator(running: SimulatorProcess) -> Iterator[SimulatorProcess]:
    yield running
    running.call("DELETE", "/faults")


@pytest.fixture
def client(simulator: SimulatorProcess, tmp_path: Path) -> Iterator[NeonizeClient]:
    """A client that is not linked."""
    with NeonizeClient(simulator, tmp_path / "client.db") as started:
        yield started


@pytest.fixture(scope="module")
def credentials(running: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a client that was linked and has ended; each test takes a copy."""
    database = tmp_path_factory.mktemp("credentials") / "client.db"
    with NeonizeClient(running, database) as client:
        client.pair(PHONE)
        eventually(lambda: running.devices(PHONE)[0]["preKeys"] > 0, "prekeys are uploaded")
    return database


@pytest.fixture
def away(simulator: SimulatorProcess, credentials: Path, tmp_path: Path) -> Iterator[NeonizeClient]:
    """A client that is linked and not running yet: `start` it."""
    with closing(sqlite3.connect(credentials)) as source, closing(sqlite3.connect(tmp_path / "client.db")) as copy:
        source.backup(copy)
    client = NeonizeClient(simulator, tmp_path / "client.db")
    yield client
    client.kill()


@pytest.fixture
def linked(away: NeonizeClient) -> NeonizeClient:
    """A client that is linked and connected."""
    away.start()
    away.wait_for("Connected")
    return away


def comes_back(simulator: SimulatorProcess, client: NeonizeClient) -> None:
    """The client is connected for a second time, and messages reach it."""
    client.wait_for("Connected", count=2)
    simulator.send(FRIEND, PHONE, "back again")
    client.wait_for("Message", text="back again")


@pytest.mark.parametrize("status", [403, 407, 502])
def test_refuse_dial(simulator: SimulatorProcess, tmp_path: Path, status: int) -> None:
    simulator.fault(kind="refuse-dial", status=status)
    with NeonizeClient(simulator, tmp_path / "client.db") as client:
        client.wait_for("connect-raised")
        client.kill()
        client.start()
        client.qr()


@pytest.mark.parametrize(
    ("fault", "event", "fields"),
    [
        ({"reason": "400"}, "ConnectFailure", {"reason": "GENERIC"}),
        ({"reason": "401"}, "LoggedOut", {"onConnect": True, "reason": "LOGGED_OUT"}),
        (
            {"reason": "402", "code": "101", "expire": 3600},
            "TemporaryBan",
            {"code": "SEND_TO_TOO_MANY_PEOPLE", "expire": 3600},
        ),
        ({"reason": "402", "code": "106", "expire": 60}, "TemporaryBan", {"code": "BROADCAST_LIST", "expire": 60}),
        ({"reason": "402", "code": "199", "expire": 60}, "connect-raised", {}),
        ({"reason": "403"}, "LoggedOut", {"onConnect": True, "reason": "MAIN_DEVICE_GONE"}),
        ({"reason": "405"}, "ClientOutdated", {}),
        ({"reason": "406"}, "LoggedOut", {"onConnect": True, "reason": "UNKNOWN_LOGOUT"}),
        ({"reason": "409"}, "ConnectFailure", {"reason": "BAD_USER_AGENT"}),
        ({"reason": "418"}, "connect-raised", {}),
        ({"reason": "499"}, "connect-raised", {}),
    ],
)
def test_failure_at_login(
    simulator: SimulatorProcess, away: NeonizeClient, fault: dict[str, Any], event: str, fields: dict[str, Any]
) -> None:
    answer = simulator.fault(kind="failure", phone=PHONE, **fault)
    assert answer.status == 201
    away.start()
    away.wait_for(event, **fields)
    assert simulator.call("GET", "/faults").body == {"faults": []}


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("400", "err-unexpected-state"),
        ("401", "err-unexpected-state"),
        ("402", "err-unexpected-state"),
        ("403", "err-unexpected-state"),
        ("405", "err-client-outdated"),
        ("409", "err-unexpected-state"),
        ("418", "err-unexpected-state"),
        ("499", "err-unexpected-state"),
        ("500", "timeout"),
        ("503", "timeout"),
    ],
)
def test_failure_at_registration(simulator: SimulatorProcess, tmp_path: Path, reason: str, status: str) -> None:
    simulator.fault(kind="failure", reason=reason)
    with NeonizeClient(simulator, tmp_path / "client.db") as client:
        client.wait_for("login-status", status=status)
        assert client.named("qr") == []


@pytest.mark.parametrize("reason", ["500", "503"])
def test_failure_that_passes(simulator: SimulatorProcess, linked: NeonizeClient, reason: str) -> None:
    simulator.fault(kind="failure", phone=PHONE, reason=reason)
    simulator.fault(kind="drop", phone=PHONE)
    comes_back(simulator, linked)


@pytest.mark.parametrize(
    ("fault", "event", "fields"),
    [
        ({"code": "401", "conflict": "device_removed"}, "LoggedOut", {"onConnect": False}),
        ({"conflict": "replaced"}, "StreamReplaced", {}),
        ({"code": "409", "conflict": "replaced"}, "StreamReplaced", {}),
        ({"code": "516"}, "StreamError", {"code": "516"}),
        ({"code": "500"}, "StreamError", {"code": "500"}),
        ({"code": "999"}, "StreamError", {"code": "999"}),
    ],
)
def test_stream_error(
    simulator: SimulatorProcess, linked: NeonizeClient, fault: dict[str, Any], event: str, fields: dict[str, Any]
) -> None:
    simulator.fault(kind="stream-error", phone=PHONE, device=1, **fault)
    linked.wait_for(event, **fields)


@pytest.mark.parametrize("code", ["503", "515"])
def test_stream_error_that_passes(simulator: SimulatorProcess, linked: NeonizeClient, code: str) -> None:
    simulator.fault(kind="stream-error", phone=PHONE, code=code)
    comes_back(simulator, linked)


def test_drop(simulator: SimulatorProcess, linked: NeonizeClient) -> None:
    simulator.fault(kind="drop")
    linked.wait_for("Disconnected")
    comes_back(simulator, linked)


def test_close_after_frames(simulator: SimulatorProcess, linked: NeonizeClient) -> None:
    simulator.fault(kind="close-after-frames", phone=PHONE, frames=2)
    simulator.fault(kind="drop", phone=PHONE)
    comes_back(simulator, linked)
    assert simulator.call("GET", "/faults").body == {"faults": []}


def test_hang_from_login(simulator: SimulatorProcess, away: NeonizeClient) -> None:
    simulator.fault(kind="hang", phone=PHONE, times=None)
    away.start()
    eventually(lambda: simulator.call("GET", "/faults").body["faults"][0]["fired"] > 0, "the login was left unanswered")
    assert away.named("Connected") == []


def test_hang_from_the_start(simulator: SimulatorProcess, tmp_path: Path) -> None:
    simulator.fault(kind="hang", times=None)
    with NeonizeClient(simulator, tmp_path / "client.db") as client:
        # The client gives up its handshake after 20 s.
        client.wait_for("connect-raised", seconds=40)
        assert client.named("qr") == []


def test_hang_after_pairing(simulator: SimulatorProcess, client: NeonizeClient) -> None:
    qr = client.qr()
    simulator.fault(kind="hang", phone=PHONE)
    assert simulator.scan(PHONE, qr).status == 201
    client.wait_for("PairStatus")
    eventually(lambda: simulator.call("GET", "/faults").body == {"faults": []}, "the login was left unanswered")
    assert client.do("state") == {"connected": True, "loggedIn": False}
    assert client.named("Connected") == []
    client.kill()
    client.start()
    client.wait_for("Connected")


def test_slow_for_everyone(simulator: SimulatorProcess, tmp_path: Path) -> None:
    simulator.fault(kind="slow", milliseconds=500, times=None)
    with NeonizeClient(simulator, tmp_path / "client.db") as client:
        started = time.monotonic()
        qr = client.qr()
        # The server's part of the handshake and the references come one after the other.
        assert time.monotonic() - started >= 1
        assert simulator.scan(PHONE, qr).status == 201
        client.wait_for("Connected")
        simulator.send(FRIEND, PHONE, "late")
        client.wait_for("Message", text="late")
    (fault,) = simulator.call("GET", "/faults").body["faults"]
    assert fault["fired"] == 2


def test_so_slow_that_keepalives_time_out(simulator: SimulatorProcess, away: NeonizeClient) -> None:
    simulator.fault(kind="slow", phone=PHONE, device=1, milliseconds=11_000)
    away.start()
    away.wait_for("KeepAliveTimeout", seconds=60)
    away.wait_for("Connected", seconds=60)


def test_ignored_keepalives(simulator: SimulatorProcess, linked: NeonizeClient) -> None:
    simulator.fault(kind="ignore-keepalives", phone=PHONE)
    # A keepalive comes within 30 s, and waits 10 s for its answer.
    linked.wait_for("KeepAliveTimeout", seconds=60)
    assert simulator.call("GET", "/faults").body == {"faults": []}


def test_ignored_prekeys(simulator: SimulatorProcess, away: NeonizeClient) -> None:
    simulator.fault(kind="ignore-prekeys", phone=PHONE, times=None)
    away.start()
    eventually(lambda: simulator.call("GET", "/faults").body["faults"][0]["fired"] == 1, "the prekeys were asked for")
    simulator.send(FRIEND, PHONE, "meanwhile")
    away.wait_for("Message", text="meanwhile")
    assert away.do("state") == {"connected": True, "loggedIn": True}
    # The library calls itself connected only when it has waited 75 s for each answer.
    assert away.named("Connected") == []


def test_undecryptable(simulator: SimulatorProcess, linked: NeonizeClient) -> None:
    for text in ("first", "second"):
        simulator.fault(kind="undecryptable", phone=PHONE, device=1)
        identifier = simulator.send(FRIEND, PHONE, text).body["id"]
        linked.wait_for("UndecryptableMessage", id=identifier)
        linked.wait_for("Message", id=identifier, text=text)
    simulator.send(FRIEND, PHONE, "third")
    linked.wait_for("Message", text="third")
    assert len(linked.named("UndecryptableMessage")) == 2


@pytest.mark.parametrize("seconds", [-86_400, 86_400])
def test_clock_skew(simulator: SimulatorProcess, away: NeonizeClient, seconds: int) -> None:
    simulator.fault(kind="clock-skew", phone=PHONE, seconds=seconds)
    away.start()
    away.wait_for("Connected")
    assert simulator.call("GET", "/faults").body == {"faults": []}
    away.do("send", to=FRIEND, text=f"sent at {seconds}")
    eventually(lambda: f"sent at {seconds}" in simulator.texts(FRIEND), "the message is in the inbox")
    simulator.send(FRIEND, PHONE, f"answered at {seconds}")
    away.wait_for("Message", text=f"answered at {seconds}")


def test_few_refs(simulator: SimulatorProcess, client: NeonizeClient) -> None:
    client.kill()
    simulator.fault(kind="few-refs", refs=1)
    client.start()
    # A single QR is shown for 20 s.
    client.wait_for("login-status", seconds=60, status="timeout")
    assert len(client.named("qr")) == 1
    eventually(lambda: simulator.call("GET", "/pairings").body["pairings"] == [], "the client has left")
    client.kill()
    client.start()
    client.pair(PHONE)


@pytest.mark.parametrize(("code", "text"), [(429, "rate-overlimit"), (400, "bad-request"), (403, "forbidden")])
def test_refuse_code(simulator: SimulatorProcess, client: NeonizeClient, code: int, text: str) -> None:
    simulator.fault(kind="refuse-code", phone=PHONE, code=code)
    client.qr()
    with pytest.raises(AssertionError, match=f"{code}: {text}"):
        client.do("pair-code", number=PHONE)
    links_by_code(simulator, client, client.do("pair-code", number=PHONE))


def test_ignore_code(simulator: SimulatorProcess, client: NeonizeClient) -> None:
    simulator.fault(kind="ignore-code", phone=PHONE)
    client.qr()
    with ThreadPoolExecutor() as pool:
        code = pool.submit(client.do, "pair-code", number=PHONE)
        eventually(lambda: simulator.call("GET", "/faults").body == {"faults": []}, "the request was left unanswered")
        assert [pairing["code"] for pairing in simulator.call("GET", "/pairings").body["pairings"]] == [None]
        # The request would wait for 75 s; the QR works meanwhile, and ends it.
        client.pair(PHONE)
        with pytest.raises(AssertionError, match="PairPhoneError"):
            code.result()


def test_a_wrong_code_leaves_the_request_as_it_is(simulator: SimulatorProcess, client: NeonizeClient) -> None:
    client.qr()
    code = client.do("pair-code", number=PHONE)
    for wrong in ("2222-2222", "3333-3333"):
        answer = simulator.call("POST", f"/phones/{PHONE}/enter-code", {"code": wrong})
        assert (answer.status, answer.body["title"]) == (422, "wrong-code")
    assert client.named("login-status") == []
    links_by_code(simulator, client, code)


def links_by_code(simulator: SimulatorProcess, client: NeonizeClient, code: str) -> None:
    answer = simulator.call("POST", f"/phones/{PHONE}/enter-code", {"code": code})
    assert answer.status == 201, answer.body
    client.wait_for("Connected")


@pytest.mark.parametrize("kind", ["bad-hmac", "bad-account-signature"])
def test_forgeries(simulator: SimulatorProcess, client: NeonizeClient, kind: str) -> None:
    simulator.fault(kind=kind, phone=PHONE)
    answer = simulator.scan(PHONE, client.qr())
    assert (answer.status, answer.body["title"]) == (409, "refused-by-client")
    client.wait_for("login-status", status="error")
    assert client.named("Connected") == []


def test_a_phone_that_never_finishes(simulator: SimulatorProcess, client: NeonizeClient) -> None:
    simulator.fault(kind="phone-never-finishes", phone=PHONE)
    answer = simulator.scan(PHONE, client.qr())
    assert (answer.status, answer.body["title"]) == (504, "never-finished")
    assert client.named("Connected") == []


def test_a_phone_without_multidevice(simulator: SimulatorProcess, client: NeonizeClient) -> None:
    simulator.fault(kind="no-multidevice", phone=PHONE)
    answer = simulator.scan(PHONE, client.qr())
    assert (answer.status, answer.body["title"]) == (409, "no-multidevice")
    client.wait_for("login-status", status="err-scanned-without-multidevice")
    # The client goes on showing its QRs, and another scan works.
    client.pair(PHONE)


def test_passkey(simulator: SimulatorProcess, client: NeonizeClient) -> None:
    simulator.fault(kind="passkey", phone=PHONE)
    answer = simulator.scan(PHONE, client.qr())
    assert (answer.status, answer.body["title"]) == (409, "passkey-demanded")
    client.wait_for("login-status", status="passkey-request")
    assert client.named("Connected") == []


def test_a_fault_for_one_phone_leaves_others_alone(simulator: SimulatorProcess, linked: NeonizeClient) -> None:
    simulator.fault(kind="drop", phone=FRIEND)
    simulator.fault(kind="failure", phone=PHONE, device=2, times=None)
    simulator.send(FRIEND, PHONE, "undisturbed")
    linked.wait_for("Message", text="undisturbed")
    faults = simulator.call("GET", "/faults").body["faults"]
    assert [(fault["kind"], fault["remaining"], fault["fired"]) for fault in faults] == [
        ("drop", 1, 0),
        ("failure", None, 0),
    ]
    assert simulator.call("DELETE", f"/faults/{faults[0]['id']}").status == 204
    assert simulator.call("DELETE", f"/faults/{faults[0]['id']}").status == 404
    assert simulator.call("DELETE", "/faults").status == 204
    assert simulator.call("GET", "/faults").body == {"faults": []}
