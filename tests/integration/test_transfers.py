"""Uploads and downloads through a network that cuts connections and damages what it carries."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from chainrule.client import Client, DataLoss, RetryPolicy, Settings
from tests.integration.conftest import ServerProcess

MIB = 1024**2
CONTENT = np.random.default_rng(7).bytes(47 * MIB)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SETTINGS = Settings(retry=RetryPolicy(max_delay_s=0.2))


class Network:
    """Stands between a client and a server. After `cut_bytes` in one direction a connection is cut; `damage` may change
    what goes by, once.

    Args:
        way: "up", to the server, or "down": the direction that is counted and damaged.
    """

    def __init__(self, address: str, way: str, *, cut_bytes: int | None = None, damage_at: int | None = None) -> None:
        host, _, port = address.rpartition(":")
        self._server = (host, int(port))
        self._way = way
        self._cut_bytes = cut_bytes
        self._damage_at = damage_at
        self._passed = 0
        self.cuts = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connected in self._open:
            _hang_up(connected)
        for thread in self._threads:
            thread.join(20)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):  # it has been closed
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(self._server)
                self._open += [near, far]
                self._start(partial(self._carry, near, far, counts=self._way == "up"))
                self._start(partial(self._carry, far, near, counts=self._way == "down"))

    def _carry(self, source: socket.socket, target: socket.socket, *, counts: bool) -> None:
        carried = 0
        with suppress(OSError):
            while data := source.recv(64 * 1024):
                if counts:
                    data = self._damaged(data)
                    carried += len(data)
                target.sendall(data)
                if counts and self._cut_bytes is not None and carried >= self._cut_bytes:
                    self.cuts += 1
                    break
        _hang_up(source)
        _hang_up(target)

    def _damaged(self, data: bytes) -> bytes:
        place = -1 if self._damage_at is None else self._damage_at - self._passed
        self._passed += len(data)
        if not 0 <= place < len(data):
            return data
        self.cuts += 1
        return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


def _hang_up(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
    connected.close()


@pytest.fixture
def through(server: ServerProcess) -> Iterator[Callable[..., tuple[Client, Network]]]:
    """Makes clients of the session's server behind a network."""
    made: list[tuple[Client, Network]] = []

    def make(way: str, **faults: int) -> tuple[Client, Network]:
        network = Network(server.address, way, **faults)
        made.append((Client.connect(network.address, settings=SETTINGS), network))
        return made[-1]

    yield make
    for client, network in made:
        client.close()
        network.close()


def blobs_of(server: ServerProcess) -> Path:
    return server.data_dir / "blobs"


def forget(server: ServerProcess) -> None:
    """Have the server not know the blob."""
    (blobs_of(server) / DIGEST[:2] / DIGEST).unlink(missing_ok=True)
    (blobs_of(server) / "incoming" / DIGEST).unlink(missing_ok=True)


def know(server: ServerProcess) -> Path:
    """Have the server know the blob."""
    path = blobs_of(server) / DIGEST[:2] / DIGEST
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(CONTENT)
    return path


def test_an_upload_cut_every_4_mib_goes_on(
    server: ServerProcess, through: Callable[..., tuple[Client, Network]]
) -> None:
    forget(server)
    client, network = through("up", cut_bytes=4 * MIB)
    seen: list[int] = []
    assert client.blobs.upload(CONTENT, transferred=lambda done, _: seen.append(done)) == DIGEST
    assert network.cuts >= 10
    assert hashlib.sha256((blobs_of(server) / DIGEST[:2] / DIGEST).read_bytes()).hexdigest() == DIGEST
    assert max(seen) == len(CONTENT)
    assert not (blobs_of(server) / "incoming" / DIGEST).exists()


def test_a_download_cut_every_4_mib_goes_on(
    server: ServerProcess, through: Callable[..., tuple[Client, Network]]
) -> None:
    know(server)
    client, network = through("down", cut_bytes=4 * MIB)
    assert client.blobs.download(DIGEST) == CONTENT
    assert network.cuts >= 10


def test_a_byte_damaged_on_the_way_up_is_sent_again(
    server: ServerProcess, through: Callable[..., tuple[Client, Network]]
) -> None:
    forget(server)
    client, network = through("up", damage_at=20 * MIB)
    assert client.blobs.upload(CONTENT) == DIGEST
    assert network.cuts == 1
    assert (blobs_of(server) / DIGEST[:2] / DIGEST).read_bytes() == CONTENT


def test_a_byte_damaged_on_the_way_down_is_fetched_again(
    server: ServerProcess, through: Callable[..., tuple[Client, Network]]
) -> None:
    know(server)
    client, network = through("down", damage_at=20 * MIB)
    assert client.blobs.download(DIGEST) == CONTENT
    assert network.cuts == 1


@pytest.mark.parametrize("cut_bytes", [None, 4 * MIB])
def test_a_byte_damaged_on_disk_is_data_loss_and_never_returned(
    server: ServerProcess, through: Callable[..., tuple[Client, Network]], cut_bytes: int | None
) -> None:
    path = know(server)
    with path.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(bytes([CONTENT[5 * MIB] ^ 1]))
    client, _ = through("down") if cut_bytes is None else through("down", cut_bytes=cut_bytes)
    with pytest.raises(DataLoss) as caught:
        client.blobs.download(DIGEST)
    assert caught.value.reason == "DIGEST_MISMATCH"


def test_an_upload_goes_on_in_another_process_and_after_a_restart(make_server: Callable[..., ServerProcess]) -> None:
    server = make_server()
    server.start()
    with Client.connect(server.address) as client:
        network = Network(server.address, "up", cut_bytes=10 * MIB)
        impatient = Settings(retry=RetryPolicy(window_s=0))
        with Client.connect(network.address, settings=impatient) as cut, pytest.raises(ConnectionError):
            cut.blobs.upload(CONTENT)
        network.close()
        assert client.blobs.missing([DIGEST]) == [DIGEST]
    server.kill()
    assert (arrived := (blobs_of(server) / "incoming" / DIGEST).stat().st_size) > MIB
    server.start()
    with Client.connect(server.address) as client:
        seen: list[int] = []
        client.blobs.upload(CONTENT, transferred=lambda done, _: seen.append(done))
        assert seen[0] == arrived + MIB
        assert client.blobs.download(DIGEST) == CONTENT
