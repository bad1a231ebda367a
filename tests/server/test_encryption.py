"""TLS between clients and the service: who is let in, and what is said to who is not."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from chainrule.client import Client, InvalidInputError, RetryPolicy, Settings, Tls, Unavailable
from chainrule.client.channel import Connection
from chainrule.server import admin
from chainrule.server.certificates import FILES, add_client, make_certificates
from chainrule.server.cli import serve
from chainrule.server.config import ServerConfig
from chainrule.server.config import Tls as ServerTls
from chainrule.server.encryption import server_credentials
from chainrule.server.errors import StartupError
from chainrule.server.service import check_startable
from chainrule.v1 import cluster_pb2, cluster_pb2_grpc

IMPATIENT = Settings(call_timeout_s=10.0, retry=RetryPolicy(window_s=0))
VERSION = "of the test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of an authority."""
    found = tmp_path_factory.mktemp("certificates")
    make_certificates(found, hosts=["localhost", "127.0.0.1"], days=2)
    return found


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of another authority."""
    found = tmp_path_factory.mktemp("other")
    make_certificates(found, hosts=["localhost", "127.0.0.1"], days=2)
    return found


class _Cluster(cluster_pb2_grpc.ClusterServiceServicer):
    def GetServerInfo(  # noqa: N802 — gRPC names it
        self, request: cluster_pb2.GetServerInfoRequest, context: grpc.ServicerContext
    ) -> cluster_pb2.ServerInfo:
        return cluster_pb2.ServerInfo(version=VERSION)

    def ListNodes(  # noqa: N802 — gRPC names it
        self, request: cluster_pb2.ListNodesRequest, context: grpc.ServicerContext
    ) -> cluster_pb2.ListNodesResponse:
        return cluster_pb2.ListNodesResponse()


@contextmanager
def listening(folder: Path, *, asks: bool) -> Iterator[str]:
    """A server with the credentials of the service; gives its address."""
    server = grpc.server(ThreadPoolExecutor(2))
    cluster_pb2_grpc.add_ClusterServiceServicer_to_server(_Cluster(), server)
    tls = ServerTls(folder / "server.pem", folder / "server.key", folder / "ca.pem" if asks else None)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(tls))
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def tls_of(folder: Path, *, proves: bool = True) -> Tls:
    if proves:
        return Tls(ca=folder / "ca.pem", cert=folder / "client.pem", key=str(folder / "client.key"))
    return Tls(ca=folder / "ca.pem")


def ask(address: str, tls: Tls | None) -> str:
    with Client(address, settings=IMPATIENT, tls=tls) as client:
        return client.server_info().version


# --- who is let in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asks", [False, True])
def test_who_trusts_the_authority_and_has_its_certificate_is_let_in(folder: Path, asks: bool) -> None:
    with listening(folder, asks=asks) as address:
        assert ask(address, tls_of(folder)) == VERSION


def test_without_being_asked_a_client_needs_no_certificate(folder: Path) -> None:
    with listening(folder, asks=False) as address:
        assert ask(address, tls_of(folder, proves=False)) == VERSION


def test_a_client_without_a_certificate_is_not_let_in_where_one_is_asked_for(folder: Path) -> None:
    with listening(folder, asks=True) as address, pytest.raises(Unavailable, match="asks for a certificate of yours"):
        ask(address, tls_of(folder, proves=False))


def test_a_client_with_the_certificate_of_another_authority_is_not_let_in(folder: Path, other: Path) -> None:
    stranger = Tls(ca=folder / "ca.pem", cert=other / "client.pem", key=other / "client.key")
    with listening(folder, asks=True) as address, pytest.raises(Unavailable):
        ask(address, stranger)


def test_a_servers_certificate_is_no_clients(folder: Path) -> None:
    borrowed = Tls(ca=folder / "ca.pem", cert=folder / "server.pem", key=folder / "server.key")
    with listening(folder, asks=True) as address, pytest.raises(Unavailable):
        ask(address, borrowed)


def test_a_server_of_another_authority_is_not_trusted(folder: Path, other: Path) -> None:
    with (
        listening(folder, asks=False) as address,
        pytest.raises(Unavailable, match=r"its certificate is not of an authority in --tls-ca"),
    ):
        ask(address, tls_of(other))


def test_a_server_of_another_name_is_not_trusted(folder: Path, tmp_path: Path) -> None:
    make_certificates(tmp_path / "named", hosts=["elsewhere.example"], days=2)
    with listening(tmp_path / "named", asks=False) as address, pytest.raises(Unavailable):
        ask(address, tls_of(tmp_path / "named"))


def test_plain_text_is_not_understood(folder: Path) -> None:
    with listening(folder, asks=False) as address, pytest.raises(Unavailable, match="asks for TLS"):
        ask(address, None)


def test_the_environment_names_the_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, file in (("CA", "ca.pem"), ("CERT", "client.pem"), ("KEY", "client.key")):
        monkeypatch.setenv(f"CHAINRULE_TLS_{name}", str(folder / file))
    with listening(folder, asks=True) as address, Client.connect(address, settings=IMPATIENT) as client:
        assert client.server_info().version == VERSION


# --- files that cannot be used ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tls", "message"),
    [
        (Tls(cert="c"), "a client certificate needs its key"),
        (Tls(key="k"), "a client certificate needs its key"),
        (Tls(ca="/none/ca.pem"), "cannot read /none/ca.pem: no such file"),
    ],
)
def test_a_client_says_which_of_its_files_is_wrong(tls: Tls, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Connection("localhost:1", IMPATIENT, tls)


def test_a_key_of_another_certificate_is_refused(folder: Path, other: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"client\.key is not the key of the certificate in .*client\.pem"):
        Connection("localhost:1", IMPATIENT, Tls(cert=folder / "client.pem", key=other / "client.key"))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca").write_bytes(b"\x30\x82")
    with pytest.raises(InvalidInputError, match="ca is not in PEM form"):
        Connection("localhost:1", IMPATIENT, Tls(ca=tmp_path / "ca"))


@pytest.mark.parametrize(
    ("cert", "key", "client_ca", "message"),
    [
        ("none.pem", "server.key", None, "--tls-cert .*none.pem cannot be read: no such file"),
        ("server.pem", "none.key", None, "--tls-key .*none.key cannot be read: no such file"),
        ("server.pem", "client.key", None, "are not a certificate and its key in PEM form"),
        ("server.key", "server.key", None, "are not a certificate and its key in PEM form"),
        ("server.pem", "server.key", "none.pem", "--tls-client-ca .*none.pem cannot be read"),
        ("server.pem", "server.key", "client.key", "--tls-client-ca .*client.key holds no certificate"),
    ],
)
def test_a_server_says_which_of_its_files_is_wrong(
    folder: Path, tmp_path: Path, cert: str, key: str, client_ca: str | None, message: str
) -> None:
    config = ServerConfig(
        tmp_path,
        port=0,
        tls_cert=folder / cert,
        tls_key=folder / key,
        tls_client_ca=None if client_ca is None else folder / client_ca,
    )
    with pytest.raises(StartupError, match=message):
        check_startable(config)


# --- addresses that others reach -------------------------------------------------------------------------------


@pytest.mark.parametrize("has_tls", [False, True])
def test_without_proof_of_clients_only_this_machine_is_served(folder: Path, tmp_path: Path, has_tls: bool) -> None:
    cert, key = (folder / "server.pem", folder / "server.key") if has_tls else (None, None)
    with pytest.raises(StartupError, match=r"--host 0\.0\.0\.0 is not a loopback address.*--tls-client-ca"):
        check_startable(ServerConfig(tmp_path, host="0.0.0.0", port=0, tls_cert=cert, tls_key=key))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tls-cert", "c"], "needs its key"),
        (["--tls-key", "k"], "needs its key"),
        (["--tls-client-ca", "a"], "is of no use without"),
        (["--tenant-storage-limit", "1"], "is of no use without --tokens"),
    ],
)
def test_options_that_do_not_go_without_each_other_are_said_so(arguments: list[str], message: str) -> None:
    import typer

    app = typer.Typer()
    app.command()(serve)
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 2
    assert message in " ".join(found.stderr.replace("│", " ").split())


# --- certificates ----------------------------------------------------------------------------------------------


def test_keys_are_private_and_nothing_is_written_over(tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(admin.certs)
    found = CliRunner().invoke(app, ["--out", str(tmp_path / "certs"), "--host", "example.org"])
    assert found.exit_code == 0
    assert f"--tls-ca {tmp_path}/certs/ca.pem" in found.stdout
    assert sorted(path.name for path in (tmp_path / "certs").iterdir()) == sorted(FILES)
    for name in FILES:
        path = tmp_path / "certs" / name
        if name.endswith(".key"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = (tmp_path / "certs" / "ca.key").read_bytes()
    again = CliRunner().invoke(app, ["--out", str(tmp_path / "certs")])
    assert again.exit_code == 1
    assert "is there already; choose another --out" in again.stderr
    assert (tmp_path / "certs" / "ca.key").read_bytes() == before


@pytest.mark.parametrize("arguments", [["--host", "müller.example"], ["--days", "4000000"]])
def test_what_a_certificate_cannot_have_is_said_and_nothing_written(tmp_path: Path, arguments: list[str]) -> None:
    import typer

    app = typer.Typer()
    app.command()(admin.certs)
    found = CliRunner().invoke(app, ["--out", str(tmp_path / "certs"), *arguments])
    assert found.exit_code == 1
    assert "no certificate can have this --host or --days" in found.stderr
    assert not list(tmp_path.glob("certs/*"))


# --- further clients -------------------------------------------------------------------------------------------


def test_a_further_client_is_let_in(tmp_path: Path) -> None:
    make_certificates(tmp_path, hosts=["localhost", "127.0.0.1"], days=2)
    cert, key = add_client(tmp_path, "ann", days=2)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with listening(tmp_path, asks=True) as address:
        assert ask(address, Tls(ca=tmp_path / "ca.pem", cert=cert, key=str(key))) == VERSION


def run_certs(*arguments: str) -> tuple[int, str]:
    import typer

    app = typer.Typer()
    app.command()(admin.certs)
    found = CliRunner().invoke(app, arguments)
    return found.exit_code, found.stdout + found.stderr


def test_a_further_client_is_added_to_an_authority_of_before(tmp_path: Path) -> None:
    out = str(tmp_path / "certs")
    code, text = run_certs("--out", out, "--client", "ann")
    assert (code, list(tmp_path.iterdir())) == (1, [])
    assert "make the authority first" in text
    assert run_certs("--out", out)[0] == 0
    code, text = run_certs("--out", out, "--client", "ann")
    assert (code, text) == (
        0,
        f"chainrule --tls-ca {out}/ca.pem --tls-cert {out}/client-ann.pem --tls-key {out}/client-ann.key jobs ls\n",
    )
    before = (tmp_path / "certs" / "client-ann.key").read_bytes()
    code, text = run_certs("--out", out, "--client", "ann")
    assert code == 1
    assert "is there already; choose another --client" in text
    assert (tmp_path / "certs" / "client-ann.key").read_bytes() == before
    assert run_certs("--out", out, "--client", "bob", "--host", "x")[0] == 2


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden", "x" * 41, "a b"])
def test_a_name_that_no_file_should_have_is_refused(tmp_path: Path, name: str) -> None:
    make_certificates(tmp_path, hosts=["localhost"], days=2)
    before = sorted(tmp_path.iterdir())
    code, text = run_certs("--out", str(tmp_path), "--client", name)
    assert code == 1
    assert "is no name for a client" in text
    assert sorted(tmp_path.iterdir()) == before


def test_an_authority_without_its_own_key_is_refused(folder: Path, other: Path, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes((folder / "ca.pem").read_bytes())
    (tmp_path / "ca.key").write_bytes((other / "ca.key").read_bytes())
    with pytest.raises(ValueError, match=r"ca.key is not the key of .*ca.pem"):
        add_client(tmp_path, "ann", days=2)
