"""The two chains of trust a client checks: the Noise certificate inside the handshake, and TLS outside of it.

Noise: the root key (built into clients) signs the intermediate, the intermediate signs the leaf, and the leaf holds
the server's Noise static key. Signatures are XEdDSA over the serialised details.
"""

from __future__ import annotations

import datetime
import os
import ssl
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from whatsapp_simulator.keys import KeyPair, verify
from whatsapp_simulator.protobuf import CertChain, ProtobufDecodeError

WHATSAPP_HOST: Final = "web.whatsapp.com"

_ROOT_SERIAL: Final = 0
_INTERMEDIATE_SERIAL: Final = 1
_LEAF_SERIAL: Final = 2
_DAY: Final = 86_400
_NOISE_VALIDITY_DAYS: Final = 365
_CA_VALIDITY_DAYS: Final = 3650
_LEAF_VALIDITY_DAYS: Final = 397
_BACKDATED: Final = datetime.timedelta(days=1)


class CertificateError(ValueError):
    """A Noise certificate chain that a client must refuse; the message says why."""


@dataclass(frozen=True, slots=True)
class NoiseAuthority:
    """The keys behind the Noise handshake."""

    root: KeyPair
    intermediate: KeyPair
    static: KeyPair

    @classmethod
    def generate(cls) -> NoiseAuthority:
        return cls(KeyPair.generate(), KeyPair.generate(), KeyPair.generate())

    def issue_chain(self, now: float) -> bytes:
        """A serialised CertChain for the static key, valid around `now` (Unix seconds)."""
        return CertChain(
            leaf=_issue(_LEAF_SERIAL, _INTERMEDIATE_SERIAL, self.static.public, self.intermediate, now),
            intermediate=_issue(_INTERMEDIATE_SERIAL, _ROOT_SERIAL, self.intermediate.public, self.root, now),
        ).SerializeToString()


def _issue(serial: int, issuer_serial: int, key: bytes, issuer: KeyPair, now: float) -> CertChain.NoiseCertificate:
    details = CertChain.NoiseCertificate.Details(
        serial=serial,
        issuerSerial=issuer_serial,
        key=key,
        notBefore=int(now) - _DAY,
        notAfter=int(now) + _NOISE_VALIDITY_DAYS * _DAY,
    ).SerializeToString()
    return CertChain.NoiseCertificate(details=details, signature=issuer.sign(details))


def verify_chain(chain: bytes, root: bytes, static: bytes, now: float) -> None:
    """Check a chain as strictly as a client should.

    Raises:
        CertificateError: a signature, serial, key or validity period is wrong.
    """
    try:
        parsed = CertChain.FromString(chain)
        intermediate = CertChain.NoiseCertificate.Details.FromString(parsed.intermediate.details)
        leaf = CertChain.NoiseCertificate.Details.FromString(parsed.leaf.details)
    except ProtobufDecodeError as error:
        raise CertificateError("the chain is malformed") from error
    if intermediate.issuerSerial != _ROOT_SERIAL:
        raise CertificateError("the intermediate does not name the root")
    if not verify(root, parsed.intermediate.details, parsed.intermediate.signature):
        raise CertificateError("the intermediate is not signed by the root")
    if leaf.issuerSerial != intermediate.serial:
        raise CertificateError("the leaf does not name the intermediate")
    if not verify(intermediate.key, parsed.leaf.details, parsed.leaf.signature):
        raise CertificateError("the leaf is not signed by the intermediate")
    if leaf.key != static:
        raise CertificateError("the leaf is for another key")
    for name, details in (("intermediate", intermediate), ("leaf", leaf)):
        if not details.notBefore <= now <= details.notAfter:
            raise CertificateError(f"the {name} is outside of its validity period")


@dataclass(frozen=True, slots=True)
class TLSAuthority:
    """A certificate authority of the simulator's own (PEM)."""

    certificate: bytes
    private_key: bytes

    @classmethod
    def generate(cls) -> TLSAuthority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("whatsapp-simulator CA")
        certificate = (
            _builder(name, name, key.public_key(), _CA_VALIDITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_key_usage(ca=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))

    def server_context(self, host: str = WHATSAPP_HOST) -> ssl.SSLContext:
        """A TLS context with a fresh certificate for the host. HTTP/1.1 is all it offers."""
        issuer = x509.load_pem_x509_certificate(self.certificate)
        issuer_key = serialization.load_pem_private_key(self.private_key, None)
        if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
            raise CertificateError("the authority's key is not an elliptic curve key")
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(host), issuer.subject, key.public_key(), _LEAF_VALIDITY_DAYS)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
            .add_extension(_key_usage(ca=False), critical=True)
            .sign(issuer_key, hashes.SHA256())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        # OpenSSL takes files only; this one lies in memory, for no directory need be writable.
        descriptor = os.memfd_create("server.pem")
        with os.fdopen(descriptor, "wb") as file:
            file.write(certificate.public_bytes(serialization.Encoding.PEM) + _pem(key))
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        return context


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    start = datetime.datetime.now(datetime.UTC) - _BACKDATED
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
