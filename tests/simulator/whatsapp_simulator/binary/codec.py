"""Binary XML to nodes and back.

A message is a flag byte (bit 1: the rest is zlib-compressed) and one node. A node is a list whose first element is the
tag, followed by alternating attribute names and values, and, when the number of elements is even, the content. Strings
are dictionary tokens, packed nibbles or hexadecimal digits, or raw bytes; only the decoder needs the dictionary, since
a sender may always choose raw bytes.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from whatsapp_simulator.binary.node import JID, LID_SERVER, USER_SERVER, Attribute, Content, Node
from whatsapp_simulator.binary.tokens import Dictionary

LIST_EMPTY: Final = 0
DICTIONARY_0: Final = 236
DICTIONARY_3: Final = 239
AD_JID: Final = 247
LIST_8: Final = 248
LIST_16: Final = 249
JID_PAIR: Final = 250
HEX_8: Final = 251
BINARY_8: Final = 252
BINARY_20: Final = 253
BINARY_32: Final = 254
NIBBLE_8: Final = 255

COMPRESSED: Final = 2
MAX_INFLATED: Final = 1 << 25
MAX_DEPTH: Final = 32

_NIBBLES: Final = "0123456789-.\0\0\0\0"
_HEX_DIGITS: Final = "0123456789ABCDEF"
_DOMAINS: Final = {0: USER_SERVER, 1: LID_SERVER, 128: "hosted", 129: "hosted.lid"}
_DOMAIN_OF: Final = {server: domain for domain, server in _DOMAINS.items()}


class DecodeError(ValueError):
    """The bytes are not one well-formed binary node."""


def encode(node: Node, *, compress: bool = False) -> bytes:
    """Encode a node with its flag byte.

    Raises:
        ValueError: a list or string is longer than the format allows.
    """
    out = bytearray()
    _write_node(out, node)
    return bytes([COMPRESSED]) + zlib.compress(out) if compress else b"\0" + bytes(out)


def _write_bytes(out: bytearray, data: bytes) -> None:
    if len(data) < 1 << 8:
        out += bytes([BINARY_8, len(data)])
    elif len(data) < 1 << 20:
        out += bytes([BINARY_20]) + len(data).to_bytes(3, "big")
    else:
        out += bytes([BINARY_32]) + struct.pack(">I", len(data))
    out += data


def _write_list(out: bytearray, size: int) -> None:
    if size == 0:
        out.append(LIST_EMPTY)
    elif size < 1 << 8:
        out += bytes([LIST_8, size])
    elif size < 1 << 16:
        out += bytes([LIST_16]) + struct.pack(">H", size)
    else:
        raise ValueError(f"a list of {size} elements cannot be encoded")


def _write_jid(out: bytearray, jid: JID) -> None:
    if jid.device:
        if jid.server not in _DOMAIN_OF or jid.device > 255:
            raise ValueError("this address has no encoding with a device")
        out += bytes([AD_JID, _DOMAIN_OF[jid.server], jid.device])
        _write_bytes(out, jid.user.encode())
        return
    out.append(JID_PAIR)
    if jid.user:
        _write_bytes(out, jid.user.encode())
    else:
        out.append(LIST_EMPTY)
    _write_bytes(out, jid.server.encode())


def _write_attribute(out: bytearray, value: Attribute) -> None:
    if isinstance(value, JID):
        _write_jid(out, value)
    else:
        _write_bytes(out, str(value).encode())


def _write_node(out: bytearray, node: Node) -> None:
    _write_list(out, 1 + 2 * len(node.attrs) + (node.content is not None))
    _write_bytes(out, node.tag.encode())
    for name, value in node.attrs.items():
        _write_bytes(out, name.encode())
        _write_attribute(out, value)
    if node.content is None:
        return
    if isinstance(node.content, (bytes, str)):
        _write_bytes(out, node.data)
        return
    _write_list(out, len(node.content))
    for child in node.content:
        _write_node(out, child)


def decode(data: bytes, dictionary: Dictionary) -> Node:
    """Decode one message, flag byte included.

    Raises:
        DecodeError: the bytes are truncated, malformed, nested too deeply, or followed by more.
    """
    if not data:
        raise DecodeError("an empty message")
    body = data[1:]
    if data[0] & COMPRESSED:
        body = _inflate(body)
    reader = _Reader(body, dictionary)
    node = reader.node(0)
    reader.expect_end()
    return node


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(data, MAX_INFLATED)
    except zlib.error as error:
        raise DecodeError(f"bad compression: {error}") from error
    if not inflater.eof:
        raise DecodeError("the compressed message is truncated or too large")
    return body


class _Reader:
    def __init__(self, data: bytes, dictionary: Dictionary) -> None:
        self._data = data
        self._at = 0
        self._dictionary = dictionary

    def expect_end(self) -> None:
        if self._at != len(self._data):
            raise DecodeError(f"{len(self._data) - self._at} bytes after the node")

    def node(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise DecodeError("nodes are nested too deeply")
        size = self._list_size(self._byte())
        if size == 0:
            raise DecodeError("a node without a tag")
        tag = self._string()
        attrs: dict[str, Attribute] = {}
        for _ in range((size - 1) // 2):
            name = self._string()
            attrs[name] = self._value(self._byte())
        return Node(tag, attrs, self._content(depth) if size % 2 == 0 else None)

    def _content(self, depth: int) -> Content:
        token = self._byte()
        if token in (LIST_EMPTY, LIST_8, LIST_16):
            return [self.node(depth + 1) for _ in range(self._list_size(token))]
        raw = self._raw(token)
        if raw is not None:
            return raw
        value = self._value(token)
        return str(value)

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise DecodeError("the message is truncated")
        chunk = self._data[self._at : end]
        self._at = end
        return chunk

    def _byte(self) -> int:
        return self._take(1)[0]

    def _list_size(self, token: int) -> int:
        if token == LIST_EMPTY:
            return 0
        if token == LIST_8:
            return self._byte()
        if token == LIST_16:
            return int.from_bytes(self._take(2), "big")
        raise DecodeError(f"token {token} does not start a list")

    def _raw(self, token: int) -> bytes | None:
        if token == BINARY_8:
            return self._take(self._byte())
        if token == BINARY_20:
            return self._take(int.from_bytes(self._take(3), "big") & 0xFFFFF)
        if token == BINARY_32:
            return self._take(int.from_bytes(self._take(4), "big"))
        return None

    def _packed(self, alphabet: str) -> str:
        head = self._byte()
        text = "".join(alphabet[byte >> 4] + alphabet[byte & 15] for byte in self._take(head & 0x7F))
        if head & 0x80:
            text = text[:-1]
        if "\0" in text:
            raise DecodeError("a packed string holds an undefined digit")
        return text

    def _string(self) -> str:
        value = self._value(self._byte())
        if not isinstance(value, str):
            raise DecodeError("an address where a string belongs")
        return value

    def _value(self, token: int) -> str | JID:
        raw = self._raw(token)
        if raw is not None:
            try:
                return raw.decode()
            except UnicodeDecodeError as error:
                raise DecodeError("a string is not UTF-8") from error
        if token == LIST_EMPTY:
            return ""
        if token == JID_PAIR:
            user = self._string()
            return JID(user, self._string())
        if token == AD_JID:
            domain, device = self._take(2)
            if domain not in _DOMAINS:
                raise DecodeError(f"unknown address domain {domain}")
            return JID(self._string(), _DOMAINS[domain], device)
        if token == NIBBLE_8:
            return self._packed(_NIBBLES)
        if token == HEX_8:
            return self._packed(_HEX_DIGITS)
        if DICTIONARY_0 <= token <= DICTIONARY_3:
            return self._dictionary.double[token - DICTIONARY_0][self._byte()]
        if token < len(self._dictionary.single):
            return self._dictionary.single[token]
        raise DecodeError(f"unknown token {token}")
