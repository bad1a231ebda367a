"""The SDK and the command line, on a service that asks for tokens."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from chainrule.client import AlreadyExists, Client, InvalidInputError, PermissionDenied, Unauthenticated
from chainrule.client.cli.app import app
from chainrule.client.cli.exits import ExitCode
from chainrule.server import admin_tokens
from chainrule.server.config import ServerConfig
from chainrule.server.data_folder import own
from tests.server.guarded import make_token, serving

admin_app = typer.Typer()
for command in (admin_tokens.token_create, admin_tokens.token_ls, admin_tokens.token_revoke):
    admin_app.command()(command)


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, str]]:
    """Address of a service, and the secret of its administrator."""
    monkeypatch.delenv("CHAINRULE_TOKEN", raising=False)
    secret = make_token(tmp_path / "data", "root", tenant="default", scopes=["admin"])
    async with serving(ServerConfig(tmp_path / "data", require_tokens=True)) as service:
        yield service.address, secret


async def test_a_token_is_made_listed_and_revoked(server: tuple[str, str]) -> None:
    def work() -> None:
        address, secret = server
        with Client.connect(address, token=secret) as client:
            ends = datetime.now(UTC) + timedelta(days=1)
            made = client.access.create("ci", scopes=["submit"], tenant="team", expire_time=ends, description="builds")
            assert (made.name, made.tenant, made.scopes, made.description) == (
                "tokens/ci",
                "team",
                ("submit",),
                "builds",
            )
            assert made.expire_time == ends
            assert made.secret not in repr(made)
            with Client.connect(address, token=made.secret) as ci:
                with pytest.raises(PermissionDenied, match='does not have the scope "admin"'):
                    ci.access.list()
                assert ci.models.list() == ()
                assert client.access.revoke("ci").revoke_time is not None
                with pytest.raises(Unauthenticated, match="not known here, or was revoked"):
                    ci.server_info()
            assert [token.name for token in client.access.list()] == ["tokens/ci", "tokens/root"]
            assert client.access.get("ci").revoke_time is not None
            with pytest.raises(AlreadyExists, match="choose another token_id"):
                client.access.create("ci", scopes=["read"])
            with pytest.raises(InvalidInputError, match="without a time zone"):
                client.access.create("other", scopes=["read"], expire_time=datetime(2100, 1, 1))
            [latest, *_] = client.access.audit(limit=1)
            assert (latest.method, latest.code) == ("chainrule.v1.AccessService/CreateToken", "ALREADY_EXISTS")
            assert len(client.access.audit(limit=None)) == 5

    await asyncio.to_thread(work)


async def test_uploads_downloads_and_streams_show_the_token(server: tuple[str, str]) -> None:
    def work() -> None:
        address, secret = server
        with Client.connect(address, token=secret) as client:
            digest = client.blobs.upload(b"content")
            assert client.blobs.download(digest) == b"content"

    await asyncio.to_thread(work)


async def test_without_a_token_nobody_connects(server: tuple[str, str]) -> None:
    with pytest.raises(Unauthenticated, match=r"this server asks for a token.*CHAINRULE_TOKEN"):
        await asyncio.to_thread(Client.connect, server[0])


# --- the command line ------------------------------------------------------------------------------------------


async def test_the_command_line_manages_tokens(
    server: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, secret = server
    root = tmp_path / "root-token"
    root.touch(mode=0o600)
    root.write_text(secret)
    monkeypatch.setenv("CHAINRULE_ADDRESS", address)

    async def run(*words: str, token_file: Path | None = root) -> Result:
        given = [] if token_file is None else ["--token-file", str(token_file)]
        return await asyncio.to_thread(CliRunner().invoke, app, [*given, "--format", "json", *words])

    def output(result: Result) -> Any:
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    kept = tmp_path / "ci-token"
    made = output(await run("tokens", "create", "ci", "--scope", "read", "--tenant", "team", "--out", str(kept)))
    assert (made["token"], made["tenant"], made["scopes"], made["file"]) == ("tokens/ci", "team", ["read"], str(kept))
    assert "secret" not in made
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert output(await run("models", "ls", token_file=kept)) == []
    again = await run("tokens", "create", "ci2", "--scope", "read", "--out", str(kept))
    assert again.exit_code == ExitCode.USAGE
    assert "choose another --out" in again.stderr
    printed = output(await run("tokens", "create", "shown", "--scope", "read"))
    assert printed["secret"].startswith("chainrule_")
    assert output(await run("tokens", "revoke", "ci"))["revoke_time"]
    refused = await run("models", "ls", token_file=kept)
    assert (refused.exit_code, json.loads(refused.stderr)["error"]["type"]) == (ExitCode.SERVICE, "Unauthenticated")
    assert [token["name"] for token in output(await run("tokens", "ls"))] == [
        "tokens/shown",
        "tokens/ci",
        "tokens/root",
    ]
    assert output(await run("audit", "ls", "--limit", "1"))[0]["code"] == "UNAUTHENTICATED"
    lost = tmp_path / "lost"
    assert (await run("tokens", "create", "CI", "--scope", "read", "--out", str(lost))).exit_code == ExitCode.SERVICE
    assert not lost.exists()


def test_the_first_token_is_made_before_the_server_runs(tmp_path: Path) -> None:
    def run(*words: str) -> Result:
        return CliRunner().invoke(admin_app, [*words, "--data-dir", str(tmp_path / "data")])

    file = tmp_path / "secret"
    made = run("token-create", "root", "--out", str(file))
    assert (made.exit_code, made.stdout) == (0, f"tokens/root of tenant default; its secret is in {file}\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith("chainrule_")
    again = run("token-create", "other", "--out", str(file))
    assert again.exit_code == 1
    assert "File exists" in again.stderr
    printed = json.loads(
        run("token-create", "ci", "--scope", "read", "--expires-in-days", "1", "--format", "json").stdout
    )
    assert (printed["name"], printed["scopes"], printed["secret"][:10]) == ("tokens/ci", ["read"], "chainrule_")
    assert run("token-revoke", "ci").stdout.startswith("tokens/ci was revoked at ")
    listed = json.loads(run("token-ls", "--format", "json").stdout)
    assert [(token["name"], token["revoke_time"] is None) for token in listed] == [
        ("tokens/ci", False),
        ("tokens/root", True),
    ]
    assert "tokens/root  tenant default  admin  expires never" in run("token-ls").stdout
    wrong = run("token-create", "x", "--scope", "write")
    assert wrong.exit_code == 1
    assert "token.scopes: are ['write']; use at least one of read, submit, admin" in wrong.stderr
    with own(tmp_path / "data"):
        assert "is in use by another server" in run("token-create", "late").stderr


@pytest.mark.parametrize("words", [("token-ls",), ("token-revoke", "ci")])
def test_a_folder_that_is_not_there_is_said_so_and_not_made(tmp_path: Path, words: tuple[str, ...]) -> None:
    missing = tmp_path / "mistyped"
    result = CliRunner().invoke(admin_app, [*words, "--data-dir", str(missing)])
    assert result.exit_code == 1
    assert f"--data-dir {missing} is no data folder of a server" in result.stderr
    assert not missing.exists()


def test_a_token_that_is_refused_leaves_no_secret_behind(tmp_path: Path) -> None:
    def create(file: Path, *words: str) -> Result:
        return CliRunner().invoke(
            admin_app, ["token-create", "ci", "--out", str(file), *words, "--data-dir", str(tmp_path / "data")]
        )

    assert create(tmp_path / "first").exit_code == 0
    taken = create(tmp_path / "second")
    assert taken.exit_code == 1
    assert 'there is already a token "tokens/ci"' in taken.stderr
    assert not (tmp_path / "second").exists()
    for days in ("36501", "1e300"):
        assert create(tmp_path / "third", "--expires-in-days", days).exit_code == 2
