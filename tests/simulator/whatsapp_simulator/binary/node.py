"""Nodes (stanzas and their parts) and the addresses in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

USER_SERVER: Final = "s.whatsapp.net"
LID_SERVER: Final = "lid"


class MalformedNodeError(ValueError):
    """A node lacks something that its kind must have."""


@dataclass(frozen=True, slots=True)
class JID:
    """An address: a user on a server, and which of the user's devices (0 is the phone itself)."""

    user: str
    server: str
    device: int = 0

    def __str__(self) -> str:
        device = f":{self.device}" if self.device else ""
        return f"{self.user}{device}@{self.server}" if self.user else self.server

    @classmethod
    def parse(cls, text: str) -> JID:
        """Read `user[:device]@server`, or a bare server name.

        Raises:
            MalformedNodeError: the device is not a number.
        """
        user, separator, server = text.rpartition("@")
        if not separator:
            return cls("", text)
        name, _, device = user.partition(":")
        if device and not device.isdecimal():
            raise MalformedNodeError("the device in an address is not a number")
        return cls(name, server, int(device or 0))

    @property
    def bare(self) -> JID:
        """The same user without a device."""
        return JID(self.user, self.server)


SERVER: Final = JID("", USER_SERVER)

Attribute = str | int | JID
Content = bytes | str | Sequence["Node"] | None


@dataclass(frozen=True, slots=True)
class Node:
    """One element: a tag, attributes, and either children, data or nothing.

    Decoded nodes hold `str` and `JID` attributes; whether data arrives as `str` or `bytes` depends only on how the
    sender chose to pack it, so it is read through `data`.
    """

    tag: str
    attrs: Mapping[str, Attribute] = field(default_factory=dict)
    content: Content = None

    @property
    def children(self) -> Sequence[Node]:
        """The child nodes; empty where the content is data."""
        if self.content is None or isinstance(self.content, (bytes, str)):
            return ()
        return self.content

    @property
    def data(self) -> bytes:
        """The content as bytes, empty where there is none."""
        if isinstance(self.content, bytes):
            return self.content
        return self.content.encode() if isinstance(self.content, str) else b""

    def find(self, *path: str) -> Node | None:
        """The first descendant along the path of tags, or None."""
        node: Node | None = self
        for tag in path:
            node = next((child for child in node.children if child.tag == tag), None) if node else None
        return node

    def require(self, *path: str) -> Node:
        """As `find`, but raises MalformedNodeError where there is none."""
        node = self.find(*path)
        if node is None:
            raise MalformedNodeError(f"<{self.tag}> has no <{'/'.join(path)}>")
        return node

    def all(self, tag: str) -> Iterator[Node]:
        """The children with this tag."""
        return (child for child in self.children if child.tag == tag)

    def get(self, name: str) -> str | None:
        """An attribute as text, or None."""
        value = self.attrs.get(name)
        return None if value is None else str(value)

    def text(self, name: str) -> str:
        """An attribute as text; raises MalformedNodeError where it is missing."""
        value = self.get(name)
        if value is None:
            raise MalformedNodeError(f"<{self.tag}> has no {name}")
        return value

    def jid(self, name: str) -> JID:
        """An attribute as an address, however it was packed; raises MalformedNodeError where it is missing."""
        value = self.attrs.get(name)
        return value if isinstance(value, JID) else JID.parse(self.text(name))
