"""The simulator against an unmodified neonize: linking, messages, leaving, and coming back."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.simulator_process import NeonizeClient, SimulatorProcess
from tests.waiting import eventually
from whatsapp_simulator.trust import WHATSAPP_ROOT

PHONE = "15551230001"
FRIEND = "15551230002"

NewClient = Callable[[str], NeonizeClient]


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path / "state") as running:
        running.add_phone(PHONE)
        running.add_phone(FRIEND, "Friend")
        yield running


@pytest.fixture
def new_client(simulator: SimulatorProcess, tmp_path: Path) -> Iterator[NewClient]:
    with ExitStack() as clients:
        yield lambda name: clients.enter_context(NeonizeClient(simulator, tmp_path / f"{name}.db"))


def test_linking_by_qr_and_messages_both_ways(simulator: SimulatorProcess, new_client: NewClient) -> None:
    client = new_client("client")
    assert simulator.scan(PHONE, client.qr()).body == {"device": 1}
    client.wait_for("PairStatus", jid=f"{PHONE}:1@s.whatsapp.net")
    client.wait_for("Connected")
    identifier = client.do("send", to=FRIEND, text="hello")
    eventually(lambda: simulator.texts(FRIEND) == ["hello"], "the message is in the inbox")
    client.wait_for("Receipt", ids=[identifier])
    assert simulator.send(FRIEND, PHONE, "hello to you").status == 201
    assert client.wait_for("Message", text="hello to you")["fromMe"] is False
    for count in range(20):
        client.do("send", to=FRIEND, text=f"message {count}")
        simulator.send(FRIEND, PHONE, f"answer {count}")
    client.wait_for("Message", text="answer 19")
    assert simulator.texts(FRIEND) == ["hello", *(f"message {count}" for count in range(20))]
    assert client.do("is-on-whatsapp", numbers=[FRIEND, "15559999999"]) == [True, False]
    (device,) = simulator.devices(PHONE)
    assert device["connected"]
    assert device["preKeys"] >= 800


def test_a_client_with_the_root_key_of_whatsapp_refuses_the_simulator(
    simulator: SimulatorProcess, tmp_path: Path
) -> None:
    with NeonizeClient(simulator, tmp_path / "client.db", WHATSAPP_ROOT.hex()) as client:
        assert "signature" in client.wait_for("connect-raised")["error"]
        assert client.named("qr") == []


def test_linking_by_code(simulator: SimulatorProcess, new_client: NewClient) -> None:
    client = new_client("client")
    client.qr()
    code = client.do("pair-code", number=PHONE)
    waiting = simulator.call("GET", "/pairings").body["pairings"]
    assert [pairing["code"]["number"] for pairing in waiting] == [PHONE]
    assert code not in str(waiting)
    answer = simulator.call("POST", f"/phones/{PHONE}/enter-code", {"code": code})
    assert answer.status == 201, answer.body
    client.wait_for("Connected")
    client.do("send", to=FRIEND, text="hello")
    eventually(lambda: simulator.texts(FRIEND) == ["hello"], "the message is in the inbox")


def test_a_wrong_code_is_named_and_another_can_be_asked_for(simulator: SimulatorProcess, new_client: NewClient) -> None:
    client = new_client("client")
    client.qr()
    code = client.do("pair-code", number=PHONE)
    wrong = ("2" if code[0] != "2" else "3") + code[1:]
    answer = simulator.call("POST", f"/phones/{PHONE}/enter-code", {"code": wrong})
    assert (answer.status, answer.body["title"]) == (422, "wrong-code")
    code = client.do("pair-code", number=PHONE)
    assert simulator.call("POST", f"/phones/{PHONE}/enter-code", {"code": code}).status == 201
    client.wait_for("Connected")


def test_messages_by_lid_and_by_number_are_answered_alike(simulator: SimulatorProcess, new_client: NewClient) -> None:
    client = new_client("client")
    client.pair(PHONE)
    lid = simulator.call("GET", f"/phones/{FRIEND}").body["lid"].partition("@")[0]
    client.do("send", to=lid, server="lid", text="by lid")
    simulator.send(FRIEND, PHONE, "to lid")
    assert client.wait_for("Message", text="to lid")["sender"] == f"{lid}@lid"
    client.do("send", to=FRIEND, text="by number")
    simulator.send(FRIEND, PHONE, "to number")
    client.wait_for("Message", text="to number")
    assert simulator.texts(FRIEND) == ["by lid", "by number"]


def test_logout_removes_the_device_from_the_phone(simulator: SimulatorProcess, new_client: NewClient) -> None:
    client = new_client("client")
    client.pair(PHONE)
    client.do("logout")
    eventually(lambda: simulator.devices(PHONE) == [], "the phone lists no device")


def test_removal_by_the_phone_logs_the_client_out(simulator: SimulatorProcess, new_client: NewClient) -> None:
    client = new_client("client")
    client.pair(PHONE)
    assert simulator.call("DELETE", f"/phones/{PHONE}/devices/1").status == 204
    client.wait_for("LoggedOut", onConnect=False)
    assert simulator.devices(PHONE) == []
    answer = simulator.call("DELETE", f"/phones/{PHONE}/devices/1")
    assert (answer.status, answer.body["title"]) == (404, "unknown-device")


def test_removal_while_away_refuses_the_next_login(simulator: SimulatorProcess, new_client: NewClient) -> None:
    client = new_client("client")
    client.pair(PHONE)
    client.kill()
    simulator.call("DELETE", f"/phones/{PHONE}/devices/1")
    client.start()
    client.wait_for("LoggedOut", onConnect=True)


def test_two_devices_of_one_phone(simulator: SimulatorProcess, new_client: NewClient) -> None:
    first, second = new_client("first"), new_client("second")
    first.pair(PHONE)
    first.do("send", to=FRIEND, text="alone")
    second.pair(PHONE)
    assert [device["id"] for device in simulator.devices(PHONE)] == [1, 2]
    simulator.send(FRIEND, PHONE, "to both")
    for client in (first, second):
        client.wait_for("Message", text="to both")
    second.do("send", to=FRIEND, text="from the second")
    eventually(lambda: simulator.texts(FRIEND) == ["alone", "from the second"], "the friend has it")
    assert first.wait_for("Message", text="from the second")["fromMe"] is True
    first.do("send", to=FRIEND, text="from the first")
    assert second.wait_for("Message", text="from the first")["fromMe"] is True
    simulator.send(PHONE, FRIEND, "from the phone")
    for client in (first, second):
        assert client.wait_for("Message", text="from the phone")["fromMe"] is True
    simulator.call("DELETE", f"/phones/{PHONE}/devices/1")
    first.wait_for("LoggedOut")
    simulator.send(FRIEND, PHONE, "to the second")
    second.wait_for("Message", text="to the second")


def test_two_clients_write_to_each_other(simulator: SimulatorProcess, new_client: NewClient) -> None:
    first, second = new_client("first"), new_client("second")
    first.pair(PHONE)
    second.pair(FRIEND)
    identifier = first.do("send", to=FRIEND, text="question")
    assert second.wait_for("Message", text="question")["fromMe"] is False
    first.wait_for("Receipt", ids=[identifier])
    second.do("send", to=PHONE, text="answer")
    first.wait_for("Message", text="answer")
    assert (simulator.texts(FRIEND), simulator.texts(PHONE)) == (["question"], ["answer"])


def test_a_new_device_is_written_to_by_those_who_wrote_before(
    simulator: SimulatorProcess, new_client: NewClient
) -> None:
    """The device list that the writer has in memory is told to be out of date."""
    writer, reader = new_client("writer"), new_client("reader")
    writer.pair(PHONE)
    writer.do("send", to=FRIEND, text="before")
    reader.pair(FRIEND)
    writer.do("send", to=FRIEND, text="after")
    reader.wait_for("Message", text="after")
    simulator.call("DELETE", f"/phones/{FRIEND}/devices/1")
    reader.wait_for("LoggedOut")
    writer.do("send", to=FRIEND, text="at last")
    eventually(lambda: simulator.texts(FRIEND) == ["before", "after", "at last"], "the phone has all messages")


def test_messages_wait_for_a_client_that_is_away(simulator: SimulatorProcess, new_client: NewClient) -> None:
    client = new_client("client")
    client.pair(PHONE)
    simulator.send(FRIEND, PHONE, "before")
    client.wait_for("Message", text="before")
    client.kill()
    eventually(lambda: not simulator.devices(PHONE)[0]["connected"], "the device is away")
    for count in range(3):
        simulator.send(FRIEND, PHONE, f"meanwhile {count}")
    client.start()
    client.wait_for("Message", text="meanwhile 2")
    assert [event["text"] for event in client.named("Message")] == [f"meanwhile {count}" for count in range(3)]


def test_a_restart_of_the_simulator_loses_nothing(simulator: SimulatorProcess, new_client: NewClient) -> None:
    clients = [new_client("first"), new_client("second")]
    for client in clients:
        client.pair(PHONE)
        client.do("send", to=FRIEND, text="before")
    simulator.send(FRIEND, PHONE, "before")
    for client in clients:
        client.wait_for("Message", text="before")
    root = simulator.root
    simulator.restart()
    assert simulator.root == root
    for client in clients:
        client.wait_for("Connected", count=2)
        client.do("send", to=FRIEND, text="after")
    simulator.send(FRIEND, PHONE, "after")
    for client in clients:
        client.wait_for("Message", text="after")
    eventually(lambda: simulator.texts(FRIEND) == ["before", "before", "after", "after"], "all messages are there")


def test_a_newer_login_of_the_same_device_replaces_the_older(
    simulator: SimulatorProcess, new_client: NewClient, tmp_path: Path
) -> None:
    client = new_client("client")
    client.pair(PHONE)
    with sqlite3.connect(tmp_path / "client.db") as source, sqlite3.connect(tmp_path / "copy.db") as copy:
        source.backup(copy)
    source.close()
    copy.close()
    newer = new_client("copy")
    newer.wait_for("Connected")
    client.wait_for("StreamReplaced")


def test_a_client_that_lost_its_session_is_answered(
    simulator: SimulatorProcess, new_client: NewClient, tmp_path: Path
) -> None:
    client = new_client("client")
    client.pair(PHONE)
    simulator.send(FRIEND, PHONE, "first")
    client.wait_for("Message", text="first")
    client.do("send", to=FRIEND, text="settled")
    simulator.send(FRIEND, PHONE, "second")
    client.wait_for("Message", text="second")
    client.kill()
    with sqlite3.connect(tmp_path / "client.db") as database:
        assert database.execute("DELETE FROM whatsmeow_sessions").rowcount > 0
    database.close()
    client.start()
    client.wait_for("Connected")
    simulator.send(FRIEND, PHONE, "third")
    client.wait_for("Message", text="third")


def test_a_phone_that_lost_its_session_asks_again(simulator: SimulatorProcess, new_client: NewClient) -> None:
    client = new_client("client")
    client.pair(PHONE)
    simulator.send(FRIEND, PHONE, "first")
    client.wait_for("Message", text="first")
    client.do("send", to=FRIEND, text="second")
    eventually(lambda: simulator.texts(FRIEND) == ["second"], "the message is in the inbox")
    assert simulator.stop() == 0
    with sqlite3.connect(simulator.state / "state.db") as database:
        assert database.execute("DELETE FROM session").rowcount > 0
    database.close()
    simulator.start("--proxy-port", str(simulator.ports["proxy"]), "--control-port", str(simulator.ports["control"]))
    client.wait_for("Connected", count=2)
    client.do("send", to=FRIEND, text="third")
    eventually(lambda: simulator.texts(FRIEND) == ["second", "third"], "the message came again and was read")


def test_a_scan_that_cannot_work_names_its_cause(simulator: SimulatorProcess, new_client: NewClient) -> None:
    client = new_client("client")
    qr = client.qr()
    unknown = simulator.scan("15550000000", qr)
    assert (unknown.status, unknown.body["title"]) == (404, "unknown-phone")
    malformed = simulator.scan(PHONE, "https://wa.me/settings/linked_devices#nothing")
    assert (malformed.status, malformed.body["title"]) == (422, "malformed-qr")
    ref, noise, identity, *rest = qr.rpartition("#")[2].split(",")
    strange = simulator.scan(PHONE, ",".join([ref[:-4] + "AAAA", noise, identity, *rest]))
    assert (strange.status, strange.body["title"]) == (404, "unknown-ref")
    other = simulator.scan(PHONE, ",".join([ref, identity, noise, *rest]))
    assert (other.status, other.body["title"]) == (422, "other-keys")
    client.kill()
    eventually(lambda: simulator.call("GET", "/pairings").body["pairings"] == [], "the client is gone")
    expired = simulator.scan(PHONE, qr)
    assert (expired.status, expired.body["title"]) == (410, "expired-ref")


def test_a_phone_scans_by_itself_after_a_delay(simulator: SimulatorProcess, new_client: NewClient) -> None:
    number = "15551230003"
    made = simulator.call("POST", "/phones", {"number": number, "scanAfterSeconds": 0.2})
    assert (made.status, made.body["scanAfterSeconds"]) == (201, 0.2)
    client = new_client("client")
    answer = simulator.scan(number, client.qr())
    assert (answer.status, answer.body) == (202, {"state": "waiting"})
    client.wait_for("Connected")
    eventually(
        lambda: simulator.call("GET", f"/phones/{number}").body["lastScan"] == {"state": "linked", "device": 1},
        "the phone tells that it has linked a device",
    )
    simulator.call("POST", f"/phones/{number}/scan", {"qr": client.qr(), "afterSeconds": 0.01})
    eventually(
        lambda: simulator.call("GET", f"/phones/{number}").body["lastScan"].get("title") == "expired-ref",
        "the phone tells that it has failed",
    )
