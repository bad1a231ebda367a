"""Certificates of an authority of one's own, for trying TLS and for small installations."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

FILES = ("ca.pem", "ca.key", "server.pem", "server.key", "client.pem", "client.key")
"""What `make_certificates` writes: of the authority, of a server, and of a client; keys are private to the user."""

_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


@dataclass(frozen=True)
class _Issuer:
    name: x509.Name
    key: ec.EllipticCurvePrivateKey


def make_certificates(folder: Path, *, hosts: Sequence[str], days: int) -> None:
    """Write the certificates of a new authority, of a server with these host names and addresses, and of a client.

    Raises FileExistsError, with nothing changed, if one of FILES is there already; ValueError or OverflowError, with
    nothing written, for a host or days that a certificate cannot have; OSError.
    """
    names = x509.SubjectAlternativeName([_host(host) for host in hosts])
    folder.mkdir(parents=True, exist_ok=True)
    if there := [name for name in FILES if (folder / name).exists()]:
        raise FileExistsError(f"{folder / there[0]} is there already")
    key = ec.generate_private_key(ec.SECP256R1())
    authority = _Issuer(_name("chainrule test authority"), key)
    usage = x509.BasicConstraints(ca=True, path_length=0)
    made = {"ca": (_certificate(authority, authority.name, key, days, usage), key)}
    made["server"] = _leaf(authority, "server", ExtendedKeyUsageOID.SERVER_AUTH, days, names)
    made["client"] = _leaf(authority, "client", ExtendedKeyUsageOID.CLIENT_AUTH, days)
    for name, (certificate, key) in made.items():
        _write(folder, name, certificate, key)


def add_client(folder: Path, name: str, *, days: int) -> tuple[Path, Path]:
    """Write a certificate of a further client, and its key, as client-NAME.pem and .key, signed by the authority that
    `make_certificates` has made in a folder. Returns their paths.

    Raises FileExistsError, with nothing changed, if that client has one; ValueError if the name is none that a file can
    have, or the authority's files are damaged; OverflowError for the days; FileNotFoundError if there is no authority.
    """
    if not _CLIENT.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a client: use letters, digits, '.', '_' and '-', at most 40")
    files = folder / f"client-{name}.pem", folder / f"client-{name}.key"
    if there := [path for path in files if path.exists()]:
        raise FileExistsError(f"{there[0]} is there already")
    certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ValueError(f"{folder}/ca.key is not the key of {folder}/ca.pem")
    authority = _Issuer(certificate.subject, key)
    _write(folder, f"client-{name}", *_leaf(authority, name, ExtendedKeyUsageOID.CLIENT_AUTH, days))
    return files


def _leaf(
    authority: _Issuer, name: str, purpose: x509.ObjectIdentifier, days: int, *extensions: x509.ExtensionType
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    constraints = x509.BasicConstraints(ca=False, path_length=None)
    usage = x509.ExtendedKeyUsage([purpose])
    return _certificate(authority, _name(f"chainrule {name}"), key, days, constraints, usage, *extensions), key


def _certificate(
    issuer: _Issuer,
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    days: int,
    constraints: x509.BasicConstraints,
    *extensions: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(constraints, critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer.key, hashes.SHA256())


def _write(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    descriptor = os.open(folder / f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
