"""Looks at where a proxy's name leads before anything is sent there."""

import re
import socket
from typing import Final

from whatsapp_operator.api import egress

# No more than this is handed on, so that nobody reads another host in it than is looked at here.
_URL: Final = re.compile(
    r"(?P<scheme>(?i:https?|socks5))://(?:[^\\/?#\s]*@)?"
    r"(?:(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?)|\[(?P<address>[0-9A-Fa-f:.]+)\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)
_PORTS: Final = {"http": 80, "https": 443, "socks5": 1080}


class ProxyError(Exception):
    """`kind` is one of `wire.ConnectEnded`: proxy_url, proxy_name or proxy_address."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def check(url: str) -> None:
    """Resolve the proxy's name, which may take as long as the resolver does, and look at every address.

    The library resolves it once more when it dials.

    Raises:
        ProxyError: the proxy must not be dialed.
    """
    match = _URL.fullmatch(url) if url.isascii() and url.isprintable() else None
    port = int(match["port"] or _PORTS[match["scheme"].lower()]) if match else 0
    if match is None or not 0 < port < 65536:
        raise ProxyError("proxy_url")
    try:
        found = socket.getaddrinfo(match["name"] or match["address"], port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ProxyError("proxy_name") from None
    if any(egress.forbidden(str(address[0])) for *_, address in found):
        raise ProxyError("proxy_address")
