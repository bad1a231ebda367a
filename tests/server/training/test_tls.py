"""Who belongs to an attempt is known by its certificate, and nobody else is let in."""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
import threading
from pathlib import Path

import pytest

from chainrule.server.training.tls import Identity, client_context, make_identity, server_context

OURS = make_identity("chainrule-1")
OTHERS = make_identity("chainrule-1")


def talk(server: ssl.SSLContext, client: ssl.SSLContext, *, name: str = "chainrule-1") -> tuple[str, str]:
    """What both sides make of each other: "hello" for what was said, or the kind of error."""
    near, far = socket.socketpair()
    near.settimeout(20.0)
    far.settimeout(20.0)
    heard = ["", ""]

    def serve() -> None:
        try:
            with server.wrap_socket(far, server_side=True) as secured:
                secured.sendall(b"hello")
                heard[0] = secured.recv(5).decode()
        except OSError as error:
            heard[0] = type(error).__name__
        finally:
            far.close()

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        with client.wrap_socket(near, server_hostname=name) as secured:
            heard[1] = secured.recv(5).decode()
            secured.sendall(b"hello")
    except OSError as error:
        heard[1] = type(error).__name__
    finally:
        near.close()
    serving.join()
    return heard[0], heard[1]


def trusting(identity: Identity, *, certificate: Identity | None) -> ssl.SSLContext:
    """A client that believes in one identity and shows the certificate of another, or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=identity.certificate.decode())
    if certificate is not None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate.key + certificate.certificate)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def test_both_sides_of_an_attempt_understand_each_other() -> None:
    assert talk(server_context(OURS), client_context(OURS)) == ("hello", "hello")


def test_a_server_with_another_certificate_is_refused() -> None:
    _, client = talk(server_context(OTHERS), client_context(OURS))
    assert client == "SSLCertVerificationError"


@pytest.mark.parametrize("certificate", [None, OTHERS])
def test_a_client_without_the_certificate_is_refused(certificate: Identity | None) -> None:
    """Even one that takes ours for good."""
    server, client = talk(server_context(OURS), trusting(OURS, certificate=certificate))
    assert server == ("SSLCertVerificationError" if certificate else "SSLError")
    assert client == "SSLError"


def test_a_certificate_of_another_name_is_refused() -> None:
    _, client = talk(server_context(OURS), client_context(OURS), name="chainrule-2")
    assert client == "SSLCertVerificationError"


def test_nothing_older_than_tls_1_3_is_spoken() -> None:
    old = trusting(OURS, certificate=OURS)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "hello" not in talk(server_context(OURS), old)


def test_after_the_handshake_there_is_nothing_to_read() -> None:
    """No tickets, that is, which would wake up whoever waits for what the server says."""
    near, far = socket.socketpair()
    accepted: list[ssl.SSLSocket] = []
    serving = threading.Thread(target=lambda: accepted.append(server_context(OURS).wrap_socket(far, server_side=True)))
    serving.start()
    with client_context(OURS).wrap_socket(near, server_hostname="chainrule-1") as secured:
        serving.join()
        assert secured.pending() == 0
        secured.setblocking(False)
        with pytest.raises(BlockingIOError):
            socket.socket.recv(secured, 1)
    accepted[0].close()


def test_every_identity_is_new() -> None:
    assert OURS.name == OTHERS.name == "chainrule-1"
    assert len({OURS.certificate, OTHERS.certificate}) == 2
    assert len({OURS.key, OTHERS.key}) == 2
    assert len({OURS.token, OTHERS.token}) == 2
    assert len(OURS.token) == 64


def test_secrets_are_not_printed() -> None:
    assert repr(OURS) == "Identity(name='chainrule-1')"


def test_the_key_is_left_in_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server_context(OURS)
    client_context(OURS)
    assert os.listdir(tmp_path) == []
