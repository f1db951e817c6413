"""Certificates for a throwaway cluster, made by the openssl program (3.0 or later)."""

import base64
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError

VALID_DAYS = 365
_EC_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass(frozen=True)
class KeyPair:
    certificate: Path
    key: Path


class Authority:
    """A certificate authority and what it has signed, in one directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self.pair = KeyPair(directory / "ca.crt", directory / "ca.key")
        if not self.pair.certificate.exists():
            extensions = [
                "basicConstraints = critical, CA:true",
                "keyUsage = critical, keyCertSign, cRLSign, digitalSignature",
            ]
            self._request("ca", "local-ca", None, extensions, [])

    @property
    def certificate(self) -> Path:
        return self.pair.certificate

    def issue(self, name: str, common_name: str, organization: str | None = None, hosts: Sequence[str] = ()) -> KeyPair:
        """A key and a certificate for clients, and for servers too if there are `hosts` (`DNS:name`, `IP:address`)."""
        usages = "clientAuth, serverAuth" if hosts else "clientAuth"
        extensions = [
            "basicConstraints = critical, CA:false",
            "keyUsage = critical, digitalSignature",
            f"extendedKeyUsage = {usages}",
            "authorityKeyIdentifier = keyid",
        ]
        if hosts:
            extensions.append(f"subjectAltName = {', '.join(hosts)}")
        signer = ["-CA", str(self.pair.certificate), "-CAkey", str(self.pair.key)]
        return self._request(name, common_name, organization, extensions, signer)

    def signing_key(self, name: str) -> KeyPair:
        """A bare key for service account tokens; `certificate` is its public half."""
        pair = KeyPair(self.directory / f"{name}.pub", self.directory / f"{name}.key")
        curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        _openssl(["genpkey", *curve, "-out", str(pair.key)])
        _openssl(["pkey", "-in", str(pair.key), "-pubout", "-out", str(pair.certificate)])
        return pair

    def _request(
        self, name: str, common_name: str, organization: str | None, extensions: Sequence[str], signer: Sequence[str]
    ) -> KeyPair:
        pair = KeyPair(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        configuration = self.directory / f"{name}.cnf"
        subject = [f"CN = {common_name}", *([f"O = {organization}"] if organization else [])]
        sections = ["[req]", "prompt = no", "distinguished_name = subject", "x509_extensions = extensions"]
        sections += ["[subject]", *subject, "[extensions]", "subjectKeyIdentifier = hash", *extensions]
        configuration.write_text("\n".join([*sections, ""]))
        output = ["-keyout", str(pair.key), "-out", str(pair.certificate), "-days", str(VALID_DAYS)]
        _openssl(["req", "-x509", "-config", str(configuration), *_EC_KEY, *signer, *output])
        return pair


def kubeconfig(server: str, name: str, authority: Path, client: KeyPair) -> str:
    """A self-contained kubeconfig with one context, `name`, in JSON, which is YAML."""

    def encoded(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": name, "cluster": {"server": server, "certificate-authority-data": encoded(authority)}}
            ],
            "users": [
                {
                    "name": name,
                    "user": {
                        "client-certificate-data": encoded(client.certificate),
                        "client-key-data": encoded(client.key),
                    },
                }
            ],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        },
        indent=2,
    )


def _openssl(arguments: Sequence[str]) -> None:
    result = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ClusterError(f"openssl {arguments[0]} failed:\n{result.stderr.strip()}")
