"""Transfers show a bar on a terminal and nothing elsewhere; Ctrl-C says what becomes of what has arrived."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import Result

from chainrule.client import Client
from chainrule.client.blobs import Blobs
from chainrule.client.cli.exits import ExitCode
from chainrule.client.cli.output import Format, Output
from chainrule.client.cli.session import Session
from chainrule.client.cli.transfer import KEPT, download_shown, transfer_shown
from chainrule.engine import io as files
from chainrule.v1 import job_pb2, model_pb2
from tests.client.fake_server import FakeServer

Run = Callable[..., Result]
MIB = 1024 * 1024


def session_on(client: Client, *, terminal: bool) -> tuple[Session, io.StringIO]:
    """A session whose stderr is kept."""
    kept = io.StringIO()
    output = Output(Format.TABLE)
    output.stderr = Console(file=kept, force_terminal=terminal, width=100)
    return Session(client, output, None), kept


def test_a_terminal_shows_the_bytes(client: Client) -> None:
    session, shown = session_on(client, terminal=True)
    with transfer_shown(session, "weights") as transferred:
        transferred(2 * MIB, 8 * MIB)
    assert "sending weights" in shown.getvalue()
    assert "2.0/8.0 MiB" in shown.getvalue()
    with download_shown(session, "weights") as received:
        received(3 * MIB)
    assert "fetching weights" in shown.getvalue()
    assert "3.0/? MiB" in shown.getvalue()


def test_elsewhere_there_is_nothing(client: Client) -> None:
    session, shown = session_on(client, terminal=False)
    with transfer_shown(session, "weights") as transferred, download_shown(session, "weights") as received:
        transferred(1, 2)
        received(1)
    assert shown.getvalue() == ""


@pytest.mark.parametrize(("sent", "told"), [(True, f"{KEPT}\n"), (False, "")])
def test_ctrl_c_says_that_what_has_arrived_is_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bool, told: str
) -> None:
    def interrupted(_blobs: Blobs, content: bytes, *, transferred: Callable[[int, int], None]) -> str:
        if sent:
            transferred(len(content) // 2, len(content))
        raise KeyboardInterrupt

    monkeypatch.setattr(Blobs, "upload", interrupted)
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3), np.float32), y=np.array([0, 1]))
    result = run("datasets", "push", "d", str(tmp_path / "d.npz"))
    assert (result.exit_code, result.stdout, result.stderr) == (ExitCode.INTERRUPTED, "", told)


def test_weights_of_a_job_and_of_versions_are_fetched(run: Run, server: FakeServer, tmp_path: Path) -> None:
    contents = [files.save({"weight": np.full(2, value, np.float32)}) for value in (1, 2)]
    digests = [files.digest(content) for content in contents]
    server.blobs.update(zip(digests, contents, strict=True))
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_SUCCEEDED, weights_digest=digests[0])
    for number, digest in enumerate(digests, start=1):
        name = f"models/m/versions/{number}"
        server.versions[name] = model_pb2.ModelVersion(name=name, weights_digest=digest)
    for source, content in (
        ("jobs/1", contents[0]),
        ("models/m/versions/1", contents[0]),
        ("m/versions/2", contents[1]),
        ("models/m", contents[1]),
    ):
        assert run("weights", "get", source, "-o", str(tmp_path / "w")).exit_code == 0
        assert (tmp_path / "w").read_bytes() == content
