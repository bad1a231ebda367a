"""The certificate by which the processes of one attempt at a job know each other."""

from __future__ import annotations

import datetime
import os
import ssl
import tempfile
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LIFETIME = datetime.timedelta(days=3650)


@dataclass(frozen=True)
class Identity:
    """A key and its certificate; whoever has it belongs to the attempt. Handed to its actors, and kept in memory."""

    name: str
    """What the certificate is issued to."""
    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)
    token: str = field(repr=False)
    """Secret that a process says to be let in over a Unix socket."""


def make_identity(name: str) -> Identity:
    """A new identity: an elliptic-curve key and a certificate signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Identity(
        name,
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        os.urandom(32).hex(),
    )


def server_context(identity: Identity) -> ssl.SSLContext:
    """For the side that listens; it asks for the same certificate."""
    context = _context(identity, ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = (
        0  # nobody resumes a session, and tickets would make sockets readable without anything to read
    )
    return context


def client_context(identity: Identity) -> ssl.SSLContext:
    """For the side that connects."""
    return _context(identity, ssl.PROTOCOL_TLS_CLIENT)


def _context(identity: Identity, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=identity.certificate.decode())
    descriptor, path = tempfile.mkstemp()  # the library reads files only; this one is private and gone at once
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(identity.key + identity.certificate)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)
    return context
