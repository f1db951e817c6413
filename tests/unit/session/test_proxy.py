import socket
from typing import Any

import pytest

from whatsapp_operator.session import proxy


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The addresses of names; what is an address already is left to the real resolver."""
    names: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def resolve(host: str, port: int, **options: Any) -> list[Any]:
        addresses = names.get(host)
        return [found for address in addresses or [host] for found in real(address, port, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return names


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:3128",
        "socks5://10.1.2.3",
        "https://192.168.0.5:8443/",
        "http://[::1]:80",
        "http://[fd00::5]:80",
        "http://100.64.0.1:80",
        "http://user:p%40ss,word!@127.0.0.1:3128",
        "HTTP://user:p@ss@127.0.0.1:3128",
    ],
)
def test_loopback_and_private_addresses_are_dialed(url: str) -> None:
    proxy.check(url)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.0.1",
        "2852039166",
        "0xA9FEA9FE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[::a9fe:a9fe]",
        "[64:ff9b::169.254.169.254]",
        "[2002:a9fe:a9fe::1]",
        "[fd00:ec2::254]",
        "[fd00:ec2::23]",
        "[fd00:c1::a9fe:a9fe]",
        "[fd20:ce::254]",
        "[64:ff9b:1::a9fe:a9fe]",
        "127.0.0.1@169.254.169.254",
        "[ff02::1]",
        "224.0.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
    ],
)
def test_link_local_addresses_are_not_dialed_however_they_are_spelled(host: str) -> None:
    with pytest.raises(proxy.ProxyError) as refused:
        proxy.check(f"http://{host}:80")
    assert refused.value.kind == "proxy_address"


@pytest.mark.parametrize(
    "addresses",
    [["169.254.169.254"], ["10.0.0.1", "169.254.169.254"], ["fe80::1%1"]],
    ids=["one", "one of two", "zone"],
)
def test_a_name_is_followed_before_it_is_dialed(resolver: dict[str, list[str]], addresses: list[str]) -> None:
    resolver["proxy.example"] = addresses
    with pytest.raises(proxy.ProxyError) as refused:
        proxy.check("socks5://user:secret@proxy.example:1080")
    assert refused.value.kind == "proxy_address"
    assert "secret" not in str(refused.value)


def test_a_name_that_leads_to_an_allowed_address_is_dialed(resolver: dict[str, list[str]]) -> None:
    resolver["proxy.svc"] = ["10.96.0.7"]
    proxy.check("http://proxy.svc:9480")


def test_a_name_that_cannot_be_resolved_is_not_dialed(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(proxy.ProxyError) as refused:
        proxy.check("http://no-such-host.invalid:3128")
    assert refused.value.kind == "proxy_name"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://127.0.0.1",
        "http://",
        "127.0.0.1:3128",
        "http://127.0.0.1:0",
        "http://127.0.0.1:70000",
        "http://127.0.0.1:3128/path",
        "http://127.0.0.1:3128?x",
        "http://127.0.0.1:3128#x",
        "http://127.0.0.1:3128\n",
        "http://127.0.0.1:3128\x00",
        "http://127.0.0.1\\@169.254.169.254",
        "http://127.0.0.1/@169.254.169.254",
        "http://169.254.169.254#@127.0.0.1",
        "http://169.254.169.254?@127.0.0.1",
        "http://169.254.169.254/@127.0.0.1",
        "http://１６９.254.169.254",
        "http://169。254。169。254",
        "http://[fe80::1%25eth0]",
        "http://%31%36%39.254.169.254",
    ],
)
def test_what_could_be_read_in_two_ways_is_not_dialed(url: str) -> None:
    with pytest.raises(proxy.ProxyError) as refused:
        proxy.check(url)
    assert refused.value.kind == "proxy_url"
