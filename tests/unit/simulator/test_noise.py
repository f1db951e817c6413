"""The Noise handshake: both roles, and byte for byte what another implementation says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsapp_simulator.keys import KeyPair
from whatsapp_simulator.noise import CipherState, Initiator, NoiseError, Responder

# Made by noiseprotocol 0.3.1 with the prologue b"WA\x06\x03" and private keys of 32 equal bytes: initiator's static 1
# and ephemeral 2, responder's static 3 and ephemeral 4. Its message 1 was kept from hashing an empty payload.
MESSAGE_1 = bytes.fromhex("ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59")
MESSAGE_2 = bytes.fromhex(
    "ac01b2209e86354fb853237b5de0f4fab13c7fcbf433a61c019369617fecf10bd4c9856676fde558f69b9347b4f34194bf4af4b72afe"
    "f9b550038a764652bcd467f9980c65825bd716553b31bcf177597eb281f8067ff140d5dcb5df020f0043b30662c33e8937e28a10b8e2"
)
MESSAGE_3 = bytes.fromhex(
    "599b61d8987775d21570135cae3d36e5cdf4629e9dd0f9506de827d8ee9e17edca8c7bb37c0a05dbbc1b7241d2133ca4f4765fb816cf"
    "496c864ab2d8dfb4ec1910cd6bcddc43b36ea309eec1cd75"
)
TO_SERVER = [
    (b"first", bytes.fromhex("109388f021ccb9962dd0c5a92d35e2aafe2306e4c9")),
    (b"second", bytes.fromhex("50c472d49020048bf80e0d52dad857505cf4ca1a06ee")),
]
TO_CLIENT = [(b"answer", bytes.fromhex("afb91c371b13f5a52e8df4fd64279f62ae0e1dcdd375"))]


def key(byte: int) -> KeyPair:
    return KeyPair.from_private(bytes([byte]) * 32)


def handshake(client: KeyPair, server: KeyPair, request: bytes, answer: bytes) -> tuple[Initiator, Responder]:
    initiator, responder = Initiator(client), Responder(server)
    responder.read_hello(initiator.write_hello())
    assert initiator.read_hello(*responder.write_hello(answer)) == (server.public, answer)
    assert responder.read_finish(*initiator.write_finish(request)) == (client.public, request)
    return initiator, responder


def test_as_another_implementation() -> None:
    initiator, responder = Initiator(key(1), ephemeral=key(2)), Responder(key(3), ephemeral=key(4))
    hello = initiator.write_hello()
    assert hello == MESSAGE_1
    responder.read_hello(hello)
    answer = responder.write_hello(b"certificates")
    assert b"".join(answer) == MESSAGE_2
    initiator.read_hello(*answer)
    finish = initiator.write_finish(b"client payload")
    assert b"".join(finish) == MESSAGE_3
    responder.read_finish(*finish)
    to_server, to_client = responder.split()
    for plaintext, ciphertext in TO_SERVER:
        assert to_server.encrypt(plaintext) == ciphertext
    for plaintext, ciphertext in TO_CLIENT:
        assert to_client.encrypt(plaintext) == ciphertext


@given(st.binary(max_size=100), st.binary(max_size=100), st.lists(st.binary(max_size=50), max_size=5))
def test_both_sides_understand_each_other(request: bytes, answer: bytes, messages: list[bytes]) -> None:
    initiator, responder = handshake(KeyPair.generate(), KeyPair.generate(), request, answer)
    client_out, client_in = initiator.split()
    server_in, server_out = responder.split()
    for message in messages:
        assert server_in.decrypt(client_out.encrypt(message)) == message
        assert client_in.decrypt(server_out.encrypt(message)) == message


def test_a_changed_handshake_message_is_refused() -> None:
    initiator, responder = Initiator(key(1)), Responder(key(3))
    responder.read_hello(initiator.write_hello())
    ephemeral, static, payload = responder.write_hello(b"certificates")
    with pytest.raises(NoiseError):
        initiator.read_hello(ephemeral, static, payload[:-1] + bytes([payload[-1] ^ 1]))


def test_another_prologue_is_refused() -> None:
    initiator, responder = Initiator(key(1), b"WA\x06\x02"), Responder(key(3))
    responder.read_hello(initiator.write_hello())
    with pytest.raises(NoiseError):
        initiator.read_hello(*responder.write_hello(b""))


@pytest.mark.parametrize("ephemeral", [b"", b"short", bytes(32)])
def test_a_malformed_ephemeral_key_is_refused(ephemeral: bytes) -> None:
    responder = Responder(key(3))
    responder.read_hello(ephemeral)
    with pytest.raises(NoiseError):
        responder.write_hello(b"")


def test_messages_out_of_order_are_refused() -> None:
    with pytest.raises(NoiseError, match="out of order"):
        Responder(key(3)).read_finish(bytes(48), bytes(16))


def test_a_transport_message_counts_once_and_in_order() -> None:
    sender, receiver = CipherState(bytes(32)), CipherState(bytes(32))
    first, second = sender.encrypt(b"first"), sender.encrypt(b"second")
    with pytest.raises(NoiseError):
        receiver.decrypt(second)
    assert receiver.decrypt(first) == b"first"
    with pytest.raises(NoiseError):
        receiver.decrypt(first)
    assert receiver.decrypt(second) == b"second"
