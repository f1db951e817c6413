"""The environment's proxy is used where kubectl would use it."""

import pytest

from whatsapp_operator.cli.proxies import proxy_for

PROXY = "http://proxy.example:3128"
ENVIRONMENT = {"HTTPS_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8, .internal.example,192.0.2.7, 2001:db8::/32"}


@pytest.mark.parametrize(
    ("server", "proxied"),
    [
        ("https://api.example:6443", True),
        ("https://192.0.2.8", True),
        ("https://192.0.2.7", False),
        ("https://10.1.2.3:6443", False),
        ("https://[2001:db8::1]:6443", False),
        ("https://k.internal.example", False),
        ("https://internal.example", False),
        ("https://notinternal.example", True),
        ("https://127.0.0.1:6443", False),
        ("https://localhost:6443", False),
        ("http://api.example", False),
    ],
)
def test_no_proxy_is_obeyed(server: str, proxied: bool) -> None:
    assert proxy_for(server, ENVIRONMENT) == (PROXY if proxied else None)


def test_without_a_variable_there_is_none() -> None:
    assert proxy_for("https://api.example", {}) is None
    assert proxy_for("https://api.example", {"https_proxy": PROXY}) == PROXY
    assert proxy_for("https://api.example", {"https_proxy": PROXY, "no_proxy": "*"}) is None
