"""The demonstration's server lives as long as its block, whatever happens in it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chainrule.client.demo.server import ServerStartError, serve_command, temporary_server

READY = """
import os, signal, sys, time
data_dir, address_file = sys.argv[1:]
def ready():
    with open(address_file + ".part", "w") as file:
        file.write(f"127.0.0.1:{os.getpid()}\\n")
    os.rename(address_file + ".part", address_file)
"""
OBEDIENT = READY + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); ready(); signal.pause()"
STUBBORN = READY + "signal.signal(signal.SIGTERM, signal.SIG_IGN); ready(); time.sleep(600)"
BROKEN = READY + "print('the port is taken'); sys.exit(3)"
SLOW = READY + "print('starting', flush=True); time.sleep(600)"


def running(script: str, seen: list[Path] | None = None) -> Callable[[Path, Path], list[str]]:
    """The command for a server that is a few lines of Python; its address is its process id."""

    def command(data_dir: Path, address_file: Path) -> list[str]:
        if seen is not None:
            seen.append(address_file.parent)
        return [sys.executable, "-c", script, str(data_dir), str(address_file)]

    return command


def is_alive(address: str) -> bool:
    try:
        os.kill(int(address.removeprefix("127.0.0.1:")), 0)
    except ProcessLookupError:
        return False
    return True


def test_a_server_is_stopped_and_its_directory_removed() -> None:
    directories: list[Path] = []
    with temporary_server(command=running(OBEDIENT, directories)) as address:
        assert is_alive(address)
        assert directories[0].is_dir()
    assert not is_alive(address)
    assert not directories[0].exists()


def test_a_server_has_no_settings_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_STORE_URL", "postgresql+psycopg://db.example.org/chainrule")
    monkeypatch.setenv("CHAINRULE_SERVE_TOKENS", "true")
    monkeypatch.setenv("CHAINRULE_KERNELS", "reference")
    monkeypatch.setenv("OTHER", "kept")
    told = "print(sorted(n for n in os.environ if n.startswith('CHAINRULE_')), os.environ['OTHER']); sys.exit(3)"
    with (
        pytest.raises(ServerStartError, match=r"\['CHAINRULE_KERNELS'\] kept$"),
        temporary_server(command=running(READY + told)),
    ):
        pytest.fail("there is no server")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_a_server_is_stopped_when_the_block_fails(error: type[BaseException]) -> None:
    with pytest.raises(error), temporary_server(command=running(OBEDIENT)) as address:
        raise error
    assert not is_alive(address)


def test_ctrl_c_says_at_once_that_the_server_is_being_stopped(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), temporary_server(command=running(OBEDIENT)) as address:
        raise KeyboardInterrupt
    assert capfd.readouterr().err == "stopping the server ...\n"
    assert not is_alive(address)


def test_a_server_that_does_not_stop_is_killed_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with temporary_server(command=running(STUBBORN), stop_timeout_s=0.1) as address:
        assert is_alive(address)
    assert not is_alive(address)
    assert "the server did not stop within 0.1 s of being asked to; it was killed" in capsys.readouterr().err


def test_a_server_that_dies_shows_what_it_printed() -> None:
    with pytest.raises(ServerStartError) as caught, temporary_server(command=running(BROKEN)):
        pytest.fail("there is no server")
    assert str(caught.value) == (
        "the server ended with exit code 3 before it was ready; it printed:\n  the port is taken"
    )


def test_a_server_that_is_never_ready_is_given_up() -> None:
    with (
        pytest.raises(ServerStartError, match=r"the server was not ready within 0\.2 s; it printed"),
        temporary_server(command=running(SLOW), start_timeout_s=0.2),
    ):
        pytest.fail("there is no server")


def test_the_server_runs_in_this_python_on_a_free_port_with_room_for_the_workers() -> None:
    assert serve_command(Path("/d/data"), Path("/d/address"), num_cpus=3) == [
        *(sys.executable, "-m", "chainrule.client", "serve"),
        *("--port", "0", "--data-dir", "/d/data", "--address-file", "/d/address"),
        *("--num-cpus", "3"),
    ]
