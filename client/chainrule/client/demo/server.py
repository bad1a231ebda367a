"""A server for the length of a demonstration: a process in a temporary directory, stopped whatever happens."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from chainrule.engine import ChainruleError

START_TIMEOUT_S = 120.0  # Ray alone may take 18 s on a busy machine
STOP_TIMEOUT_S = 30.0
POLL_S = 0.05
SHOWN_LINES = 20
KEPT = ("CHAINRULE_KERNELS", "CHAINRULE_ONEDNN")  # with what the engine computes, here as there


class ServerStartError(ChainruleError):
    """The server ended, or was not ready in time; the message ends with what it printed."""


def serve_command(data_dir: Path, address_file: Path, *, num_cpus: int) -> list[str]:
    """The command that starts a server on a free port of this machine, with places for `num_cpus` workers."""
    return [
        *(sys.executable, "-m", "chainrule.client", "serve"),
        *("--port", "0", "--data-dir", str(data_dir), "--address-file", str(address_file)),
        *("--num-cpus", str(num_cpus)),
    ]


def own_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What of an environment a server for a demonstration gets: no settings of another, whose store it would open.

    >>> own_environment({"HOME": "/home/ann", "CHAINRULE_STORE_URL": "postgresql://db", "CHAINRULE_KERNELS": "onednn"})
    {'HOME': '/home/ann', 'CHAINRULE_KERNELS': 'onednn'}
    """
    return {name: value for name, value in environment.items() if name in KEPT or not name.startswith("CHAINRULE_")}


@contextmanager
def temporary_server(
    *,
    command: Callable[[Path, Path], Sequence[str]],
    start_timeout_s: float = START_TIMEOUT_S,
    stop_timeout_s: float = STOP_TIMEOUT_S,
) -> Iterator[str]:
    """The address of a server that lives as long as the block, in a directory that goes with it.

    Args:
        command: the command line for a data directory and the file that the server writes its address into.
        start_timeout_s: the longest to wait until it is ready.
        stop_timeout_s: the longest to wait for it to stop when asked to; then it is killed.

    Raises:
        ServerStartError: the server ended, or was not ready in time.
    """
    with tempfile.TemporaryDirectory(prefix="chainrule-demo-") as directory:
        data_dir, address_file, log_file = (Path(directory) / name for name in ("data", "address", "server.log"))
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                command(data_dir, address_file),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=own_environment(),
                start_new_session=True,  # Ctrl-C is for this process, which then stops the server in order
            )
            try:
                yield _wait_for_address(process, address_file, log_file, start_timeout_s)
            except (KeyboardInterrupt, SystemExit):  # whoever asked for the end sees that it is on its way
                print("stopping the server ...", file=sys.stderr, flush=True)
                raise
            finally:
                _stop(process, stop_timeout_s)


def _wait_for_address(process: subprocess.Popen[bytes], address_file: Path, log_file: Path, timeout_s: float) -> str:
    end = time.monotonic() + timeout_s
    while not address_file.exists():
        if time.monotonic() >= end:
            raise ServerStartError(f"the server was not ready within {timeout_s:g} s; {_tail(log_file)}")
        try:
            code = process.wait(timeout=POLL_S)
        except subprocess.TimeoutExpired:
            continue
        raise ServerStartError(f"the server ended with exit code {code} before it was ready; {_tail(log_file)}")
    return address_file.read_text().strip()


def _tail(log_file: Path) -> str:
    lines = log_file.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
    return "it printed:\n" + "\n".join(f"  {line}" for line in lines) if lines else "it printed nothing"


def _stop(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Ask the server to stop and wait for it; if that does not go well, kill all that it has started."""
    try:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        print(f"the server did not stop within {timeout_s:g} s of being asked to; it was killed", file=sys.stderr)
    finally:
        if process.returncode != 0:
            with suppress(ProcessLookupError):  # nothing of it is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
