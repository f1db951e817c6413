"""The certificates a client must be able to check, checked without the code that made them."""

import asyncio
import ssl
import time

import pytest
from cryptography import x509

from tests.unit.simulator.test_keys import ed25519_accepts
from whatsapp_simulator.certificates import (
    WHATSAPP_HOST,
    CertificateError,
    NoiseAuthority,
    TLSAuthority,
    verify_chain,
)
from whatsapp_simulator.keys import KeyPair
from whatsapp_simulator.protobuf import CertChain

NOW = 1_790_000_000.0
YEAR = 365 * 86_400


@pytest.fixture(scope="module")
def authority() -> NoiseAuthority:
    return NoiseAuthority.generate()


def test_each_link_of_the_noise_chain_is_signed(authority: NoiseAuthority) -> None:
    chain = CertChain.FromString(authority.issue_chain(NOW))
    details = CertChain.NoiseCertificate.Details
    intermediate = details.FromString(chain.intermediate.details)
    leaf = details.FromString(chain.leaf.details)
    assert ed25519_accepts(authority.root.public, chain.intermediate.details, chain.intermediate.signature)
    assert ed25519_accepts(intermediate.key, chain.leaf.details, chain.leaf.signature)
    assert not ed25519_accepts(authority.root.public, chain.leaf.details, chain.leaf.signature)
    assert (intermediate.issuerSerial, leaf.issuerSerial) == (0, intermediate.serial)
    assert leaf.key == authority.static.public
    for certificate in (intermediate, leaf):
        assert certificate.notBefore < NOW < certificate.notAfter


def test_the_chain_verifies(authority: NoiseAuthority) -> None:
    verify_chain(authority.issue_chain(NOW), authority.root.public, authority.static.public, NOW)


@pytest.mark.parametrize("at", [NOW - 2 * 86_400, NOW + 2 * YEAR])
def test_a_chain_out_of_its_time_is_refused(authority: NoiseAuthority, at: float) -> None:
    with pytest.raises(CertificateError, match="validity"):
        verify_chain(authority.issue_chain(NOW), authority.root.public, authority.static.public, at)


def test_a_chain_for_another_key_is_refused(authority: NoiseAuthority) -> None:
    with pytest.raises(CertificateError, match="another key"):
        verify_chain(authority.issue_chain(NOW), authority.root.public, KeyPair.generate().public, NOW)


def test_a_chain_of_another_root_is_refused(authority: NoiseAuthority) -> None:
    with pytest.raises(CertificateError, match="not signed by the root"):
        verify_chain(authority.issue_chain(NOW), KeyPair.generate().public, authority.static.public, NOW)


def test_a_leaf_of_another_intermediate_is_refused(authority: NoiseAuthority) -> None:
    chain = CertChain.FromString(authority.issue_chain(NOW))
    chain.leaf.signature = KeyPair.generate().sign(chain.leaf.details)
    with pytest.raises(CertificateError, match="not signed by the intermediate"):
        verify_chain(chain.SerializeToString(), authority.root.public, authority.static.public, NOW)


def test_a_malformed_chain_is_refused(authority: NoiseAuthority) -> None:
    with pytest.raises(CertificateError, match="malformed"):
        verify_chain(b"\xff", authority.root.public, authority.static.public, NOW)


async def test_tls_is_accepted_by_who_trusts_the_authority() -> None:
    authority = TLSAuthority.generate()
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", ssl=authority.server_context())
    trusting = ssl.create_default_context(cadata=authority.certificate.decode())
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname=WHATSAPP_HOST)
        writer.close()
        await writer.wait_closed()
        for context, host in ((ssl.create_default_context(), WHATSAPP_HOST), (trusting, "example.com")):
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)


def test_the_authority_outlives_a_restart() -> None:
    certificate = x509.load_pem_x509_certificate(TLSAuthority.generate().certificate)
    assert certificate.not_valid_after_utc.timestamp() > time.time() + 9 * YEAR
