"""A certificate authority that lives as long as one sandbox: it signs for whatever host a program there asks for.

Nothing outside the sandbox trusts it, and its key never leaves it. It is there so that programs which insist on TLS can
speak it to the proxy; the TLS that counts, with the world's certificates, is spoken and checked by the core.
"""

import datetime
import hashlib
import ipaddress
import os
import ssl
from base64 import b64encode
from collections import OrderedDict
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LASTS = datetime.timedelta(days=2)  # no run is longer
REMEMBERED = 256  # hosts whose certificate is kept
EARLIER = datetime.timedelta(hours=1)  # for clocks that differ


class Authority:
    """Signs for hosts. `file` holds its certificate as PEM, for programs that are told whom to trust."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())  # one for all hosts: they are all this process
        self._name = _named("madlab sandbox")
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        self._certificate = (
            _begun(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self._contexts: OrderedDict[str, ssl.SSLContext] = OrderedDict()
        self.file = directory / "ca.pem"
        self.file.write_bytes(_pem(self._certificate))

    @property
    def spki(self) -> str:
        """Base64 of the SHA-256 of the hosts' public key: how Chromium is told to accept it without a store."""
        public = self._leaf_key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return b64encode(hashlib.sha256(public).digest()).decode()

    def context(self, host: str) -> ssl.SSLContext:
        """What a TLS server that is `host` needs.

        Raises:
            ValueError: no certificate can name this host.
        """
        if host in self._contexts:
            self._contexts.move_to_end(host)
            return self._contexts[host]
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        chain = self._directory / "host.pem"  # read at once and gone: the library takes files only
        descriptor = os.open(chain, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_private(self._leaf_key) + _pem(self._signed(host)) + _pem(self._certificate))
        try:
            context.load_cert_chain(chain)
        finally:
            chain.unlink()
        self._contexts[host] = context
        if len(self._contexts) > REMEMBERED:
            self._contexts.popitem(last=False)
        return context

    def _signed(self, host: str) -> x509.Certificate:
        return (
            _begun(_named(host[:64]), self._name, self._leaf_key.public_key())
            .add_extension(x509.SubjectAlternativeName([_general(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _begun(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + LASTS)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
