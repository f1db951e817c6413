"""The binary codec: what each token means, and that any node survives the way there and back."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsapp_simulator.binary.codec import MAX_DEPTH, MAX_INFLATED, DecodeError, decode, encode
from whatsapp_simulator.binary.node import JID, MalformedNodeError, Node
from whatsapp_simulator.binary.tokens import Dictionary

EMPTY = Dictionary((), ((), (), (), ()))

names = st.text(min_size=1, max_size=20)
users = st.text(st.characters(codec="ascii", exclude_characters="@:", categories=("L", "N")), min_size=1, max_size=20)
jids = st.one_of(
    st.builds(JID, users, st.sampled_from(["s.whatsapp.net", "lid", "g.us", "broadcast"])),
    st.builds(JID, users, st.sampled_from(["s.whatsapp.net", "lid", "hosted"]), st.integers(1, 255)),
    st.just(JID("", "s.whatsapp.net")),
)
attributes = st.dictionaries(names, st.one_of(st.text(max_size=300), jids), max_size=4)
nodes = st.recursive(
    st.builds(Node, names, attributes, st.one_of(st.none(), st.binary(max_size=400))),
    lambda children: st.builds(Node, names, attributes, st.lists(children, max_size=4)),
    max_leaves=12,
)


@given(nodes, st.booleans())
def test_any_node_survives_the_way_there_and_back(node: Node, compress: bool) -> None:
    assert decode(encode(node, compress=compress), EMPTY) == node


@given(st.binary(max_size=200))
def test_any_bytes_are_a_node_or_a_decode_error(data: bytes) -> None:
    try:
        decode(data, EMPTY)
    except DecodeError:
        return


@given(nodes, st.data())
def test_a_truncated_node_is_a_decode_error(node: Node, data: st.DataObject) -> None:
    encoded = encode(node)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(DecodeError):
        decode(encoded[:cut], EMPTY)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 1 << 16, (1 << 20) - 1, 1 << 20])
def test_content_of_any_length(size: int) -> None:
    node = Node("x", content=b"a" * size)
    assert decode(encode(node), EMPTY) == node


def test_many_children() -> None:
    node = Node("list", content=[Node("item", {"id": str(i)}) for i in range(1000)])
    assert decode(encode(node), EMPTY) == node


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        (bytes([255, 0x02, 0x12, 0x34]), "1234"),
        (bytes([255, 0x82, 0x12, 0x3F]), "123"),
        (bytes([255, 0x02, 0x1A, 0xB2]), "1-.2"),
        (bytes([251, 0x02, 0xAB, 0x09]), "AB09"),
        (bytes([252, 3]) + b"abc", "abc"),
        (bytes([253, 0, 0, 3]) + b"abc", "abc"),
        (bytes([254, 0, 0, 0, 3]) + b"abc", "abc"),
        (bytes([0]), ""),
        (bytes([250, 0, 252, 1]) + b"s", JID("", "s")),
        (bytes([250, 255, 0x01, 0x12, 252, 1]) + b"s", JID("12", "s")),
        (bytes([247, 0, 7, 255, 0x01, 0x12]), JID("12", "s.whatsapp.net", 7)),
        (bytes([247, 1, 7, 255, 0x01, 0x12]), JID("12", "lid", 7)),
    ],
)
def test_what_clients_may_send_as_a_value(encoded: bytes, value: str | JID) -> None:
    message = b"\0" + bytes([248, 3, 252, 1]) + b"t" + bytes([252, 1]) + b"k" + encoded
    assert decode(message, EMPTY) == Node("t", {"k": value})


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (b"", "empty"),
        (b"\0", "truncated"),
        (b"\0\0", "without a tag"),
        (b"\0\xff\x00", "does not start a list"),
        (bytes([0, 248, 1, 255, 1, 0x1E]), "undefined digit"),
        (bytes([0, 248, 1, 252, 1, 0xFF]), "UTF-8"),
        (bytes([0, 248, 1, 250, 0, 0]), "an address where"),
        (bytes([0, 248, 1, 245]), "unknown token"),
        (bytes([0, 248, 1, 247, 9, 1, 0]), "unknown address domain"),
        (bytes([0, 248, 1, 252, 1, 65, 0]), "1 bytes after"),
        (b"\2nonsense", "bad compression"),
        (b"\2" + zlib.compress(b"\0" * 100)[:-8], "truncated"),
        (b"\2" + zlib.compress(b"\0" * (MAX_INFLATED + 1)), "too large"),
        (b"\0" + bytes([248, 2, 252, 1, 65, 248, 1]) * (MAX_DEPTH + 2), "too deeply"),
    ],
)
def test_malformed_messages_name_their_cause(message: bytes, cause: str) -> None:
    with pytest.raises(DecodeError, match=cause):
        decode(message, EMPTY)


def test_the_dictionary_of_the_client_library(dictionary: Dictionary) -> None:
    assert len(dictionary.single) == 236
    assert [len(table) for table in dictionary.double] == [256] * 4
    assert dictionary.single[1:5] == ("xmlstreamstart", "xmlstreamend", "s.whatsapp.net", "type")
    assert dictionary.double[0][0] == "read-self"
    words = {*dictionary.single, *(word for table in dictionary.double for word in table)}
    assert {"iq", "message", "receipt", "pair-device", "lid", "participants", "device-identity"} <= words


def test_tokens_are_read_from_the_dictionary(dictionary: Dictionary) -> None:
    single = dictionary.single.index("iq")
    table = next(i for i, words in enumerate(dictionary.double) if "read-self" in words)
    index = dictionary.double[table].index("read-self")
    message = bytes([0, 248, 2, single, 248, 1, 248, 1, 236 + table, index])
    assert decode(message, dictionary) == Node("iq", {}, [Node("read-self")])


@pytest.mark.parametrize(
    ("text", "jid"),
    [
        ("123@s.whatsapp.net", JID("123", "s.whatsapp.net")),
        ("123:4@lid", JID("123", "lid", 4)),
        ("s.whatsapp.net", JID("", "s.whatsapp.net")),
    ],
)
def test_addresses_as_text(text: str, jid: JID) -> None:
    assert JID.parse(text) == jid
    assert str(jid) == text


def test_nodes_say_what_they_lack() -> None:
    node = Node("iq", {"to": "1:2@lid"}, [Node("list", content=[Node("item")])])
    assert node.require("list", "item") == Node("item")
    assert node.jid("to") == JID("1", "lid", 2)
    with pytest.raises(MalformedNodeError, match="<iq> has no <list/user>"):
        node.require("list", "user")
    with pytest.raises(MalformedNodeError, match="<iq> has no id"):
        node.text("id")
    with pytest.raises(MalformedNodeError):
        JID.parse("1:x@lid")
