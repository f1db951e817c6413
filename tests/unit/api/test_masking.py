import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.samples import SECRETS
from whatsapp_operator.api.masking import mask

AROUND = [
    "{}",
    "Successfully paired {}",
    "dial {}: refused",
    "jid={}",
    '"{}"',
    '{{"phone": "{}", "x": 1}}',
    "({})",
    "<{}>",
    "['{}']",
    "to {}, then on",
    "id={}&x",
    "{}.",
    "phone:{}",
    "first\n{}\nlast",
    r"b'first\n{}\n'",
    "GET /v1/a-long-path/to-something/with/many/parts/{}/in-the-middle: refused",
]


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("around", AROUND)
def test_nothing_of_a_secret_is_left(kind: str, around: str) -> None:
    secret = SECRETS[kind]
    masked = mask(around.format(secret.text))
    assert not secret.found_in(masked)
    assert masked == mask(masked)


@given(st.binary(min_size=32, max_size=96))
def test_every_key_is_masked(key: bytes) -> None:
    for text in (base64.b64encode(key + b"\0" * (-len(key) % 3 == 0)).decode(), key.hex(), key.hex().upper()):
        assert mask(f"key {text} was lost") == "key <key> was lost"


@given(st.integers(10**6, 10**15 - 1))
def test_every_number_is_masked_as_people_and_the_library_write_it(number: int) -> None:
    for text in (f"+{number}", f"%2B{number}", f"00{number}", str(number), f"{number}:3", f"{number}.0:3"):
        assert str(number) not in mask(f"to {text} now")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linked 15551230001:3@s.whatsapp.net now", "linked <jid> now"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer <token>"),
        ("Proxy-Authorization: Basic dXNlcjpodW50ZXIy", "Proxy-Authorization: Basic <token>"),
        ("proxy http://user:secret@proxy:3128/ refuses", "proxy http://<userinfo>@proxy:3128/ refuses"),
        ("enter K7QF-2MZX on +15551230001", "enter <code> on <phone>"),
        ("no session for 915551230001_1:1", "no session for <phone>_1:1"),
    ],
)
def test_what_was_there_is_told(text: str, expected: str) -> None:
    assert mask(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Connected: Connected",
        "the worker ended by itself, status -9",
        "the proxy refuses the connection with status 403",
        "pairing attempt fd73aa9f0ead6661: Failed, Expired",
        "attempt 1234567890123456",
        "dial tcp 127.0.0.1:9480: connect: connection refused",
        "dial tcp [2001:db8::1234:5678]:443: i/o timeout",
        "listening on 0.0.0.0:8080",
        "client version: 2.3000.1047769893",
        "whatsmeow v0.0.0-20260921121126-1f2e3d4c5b6a",
        "the key wa-front/session-uid 5f2c9a1e77d04b1c",
        "pod uid 0f0f0f0f-0000-4000-8000-000000000001",
        "pod uid 12345678-1234-4567-8765-123456789012 is not 87654321-4321-4765-8567-210987654321",
        "/var/lib/kubelet/pods/12345678-1234-4567-8765-123456789012/volumes/kubernetes.io~empty-dir/run",
        "took 1.234567 s, then 1234567.5 ms, 2m30.123456789s and 160s",
        "at 2026-11-21T09:57:10.558+00:00",
        "until 2026-11-21T09:57:10.123456789Z",
        "too old resource version: 12345678 (23456789)",
        'metadata: {"resourceVersion":"1234567890","generation":3}',
        "ResourceVersion in precondition: 1234567, ResourceVersion in object meta: 1234568",
        f"image registry.example:5000/whatsapp/session:1.2.3@sha256:{'0a1b' * 16}",
        f"imageID docker-pullable://registry.example/session@sha256:{'12' * 32}",
        "exceeded quota: small, requested: limits.memory=256Mi, used: limits.memory=1Gi, limited: limits.memory=1Gi",
        "the answer has 12345678 bytes",
        "exceeded quota: small, requested: requests.storage=268435456, used: requests.storage=0",
        "used: limits.memory=67108864,requests.ephemeral-storage=1073741824, limited: memory=268435456",
        "maximum memory usage per Pod is 33554432, but limit is 67108864",
        "minimum storage amount per PersistentVolumeClaim is 1073741824, but request is 268435456",
        "PATCH /apis/whatsapp-operator.io/v1alpha1/namespaces/team/whatsappsessions/shop/status: TimeoutError",
        'File "/usr/lib/python3.11/site-packages/whatsapp_operator/controller/objects/serviceaccount.py", line 12',
        "pods wa-a-session-with-a-name-of-fifty-two-characters-that-is-it is forbidden",
        "phone-0a1b2c3d4e5f60718293a4b5c6d7e8f9",
        "bearer tokens and basic authentication",
        "code accepted, status code 12345",
        "goroutine 1 [running]: main.main() 0xc000123456789",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask(text) == text
