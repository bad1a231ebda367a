"""Models that are Python code: where they run, that they have the same bits, and how a server that does not allow them
refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import chainrule.engine as cr
from chainrule.client import Client, FailedPrecondition, InvalidInputError, Job, JobFailedError, JobStatus, Model
from chainrule.client.cli.app import app
from chainrule.server.architecture import RUNS_CODE
from tests.integration.conftest import ServerProcess

NET = '''
import json, os, sys
from pathlib import Path
from typing import Any

import numpy as np

import chainrule.engine as cr
from chainrule.engine import nn

NOTE = Path({folder!r}) / str(os.getpid())
NOTE.write_text(json.dumps({{"argv": sys.argv, "runs": os.environ.get({variable!r})}}))  # where it was run


class Settling(nn.Module):
    """Goes through its layer until the outputs are small: how often depends on the inputs."""

    def __init__(self, hidden=8, most=4):
        super().__init__()
        self.first = nn.Linear(6, hidden)
        self.again = nn.Linear(hidden, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.last = nn.Linear(hidden, 3)
        self.dropout = nn.Dropout(0.1)
        self.most = most
        with cr.no_grad():
            self.again.bias.copy_(cr.tensor(np.random.rand(hidden).astype("float32")))

    def forward(self, x):
        h = self.norm(self.first(x))
        times = 0
        while h.abs().mean().item() > 0.3 and times < self.most:
            h = (self.again(h) * 0.5).tanh()
            times += 1
        if x.sum().item() > 0:
            h = h.relu()
        if self.training and os.environ.get("PYTHONHASHSEED") != "0":
            raise RuntimeError("sets have another order in each process")
        order = {{"a", "b", "c", "d"}}
        for name in order:
            h = h * (1 + 0.01 * (ord(name) - 97))
        return self.last(self.dropout(h) + float(np.random.rand()) * 1e-3)


def build(**settings):
    return Settling(**settings)
'''


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A file of code, which notes in the folder "ran" beside it who runs it."""
    (tmp_path / "ran").mkdir()
    file = tmp_path / "net.py"
    file.write_text(NET.format(folder=str(tmp_path / "ran"), variable=RUNS_CODE))
    return file


@pytest.fixture(scope="module")
def allowing(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that takes code."""
    folder = tmp_path_factory.mktemp("code") / "data"
    server = ServerProcess(folder, "--ray-address", ray_address, "--allow-code")
    server.start()
    yield server
    server.stop()


def train(client: Client, model: Model | str, **config: Any) -> Job:
    rng = np.random.default_rng(3)
    inputs, targets = rng.normal(size=(48, 6)).astype(np.float32), rng.integers(0, 3, size=48)
    data = client.datasets.create("code-data", inputs=inputs, targets=targets)
    defaults: dict[str, Any] = {"epochs": 2, "batch_size": 12, "shards": 4, "optimizer": {"lr": 0.1}}
    return client.jobs.create(model=model, dataset=data, **{**defaults, **config})


def failed(job: Job) -> JobStatus:
    with pytest.raises(JobFailedError):
        job.wait(timeout_s=120)
    return job.status()


def test_code_runs_in_workers_only_and_gives_the_same_bits_with_any_number_of_them(
    allowing: ServerProcess, net: Path
) -> None:
    ran = net.parent / "ran"
    with Client.connect(allowing.address) as client:
        model = client.models.create("settling", net, config={"hidden": 8})
        assert (model.factory, model.file_name, model.config) == ("build", "net.py", {"hidden": 8})
        assert {int(note.name) for note in ran.iterdir()} == {os.getpid()}  # to learn its weights, here
        digests = set()
        for workers in (1, 3):
            job = train(client, model, workers=workers, min_workers=workers)
            assert job.wait(timeout_s=120).state == "SUCCEEDED", job.status().error
            digests.add(job.status().weights_digest)
        assert len(digests) == 1
        notes = {int(note.name): json.loads(note.read_text()) for note in ran.iterdir()}
        del notes[os.getpid()]
        assert len(notes) == 1 + 3  # each worker once, each in a process of its own
        assert allowing.pid not in notes
        assert {note["runs"] for note in notes.values()} == {model.code_digest}
        assert {Path(note["argv"][0]).name for note in notes.values()} == {"default_worker.py"}  # of Ray

        with pytest.raises(InvalidInputError, match=r'give the file .* module\(code="net.py"\)'):
            job.module()
        module = job.module(code=net).eval()
        weights = job.weights()
        assert {name: value.data.tobytes() for name, value in module.state_dict().items()} == {
            name: value.tobytes() for name, value in weights.items()
        }
        assert model.source() == net.read_text()
        assert cr.isfinite(module(cr.zeros(2, 6))).all()
        with pytest.raises(FailedPrecondition, match="workers of jobs run and nobody else"):
            client.predict(model, np.zeros((1, 6), np.float32))


FAILING = """
from chainrule.engine import nn


def build(fail_at_home=False):
    import os

    if {at_build!r} and {variable!r} in os.environ:
        raise KeyError("no such layer")
    return Net()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear({inputs}, 3)

    def forward(self, x):
        return self.shaped(self.layer(x))

    def shaped(self, y):
        if {in_forward!r}:
            raise LookupError(f"it is {{id(object())}} in a process {{__import__('os').getpid()}}")
        return y
"""


ERRORS = [
    pytest.param({"at_build": True}, "net.py, line 9: KeyError: 'no such layer'", id="in the factory"),
    pytest.param({"in_forward": True}, "net.py, line 23: LookupError: it is ", id="forward", marks=pytest.mark.whole),
    pytest.param({"inputs": 5}, "net.py, line 19: ShapeError: ", id="shape", marks=pytest.mark.whole),
]


@pytest.mark.parametrize(("changes", "said"), ERRORS)
def test_an_error_of_the_code_fails_the_job_with_its_file_and_line(
    allowing: ServerProcess, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    file = tmp_path / "net.py"
    common = {"variable": RUNS_CODE, "at_build": False, "in_forward": False, "inputs": 6}
    file.write_text(FAILING.format(**{**common, **changes}))
    with Client.connect(allowing.address) as client:
        job = train(client, client.models.create(f"failing-{'-'.join(changes).replace('_', '-')}", file), workers=1)
        error = failed(job).error
        assert error is not None
        assert (error.reason, said in error.message) == ("TRAINING_ERROR", True), error
        assert 'File "net.py", line ' in error.traceback
        assert said in "\n".join(entry.message for entry in job.logs())


def test_a_server_refuses_code_unless_it_is_told_to_take_it(server: ServerProcess, net: Path) -> None:
    said = "was started without --allow-code"
    with Client.connect(server.address) as client:
        with pytest.raises(FailedPrecondition, match=said) as refused:
            client.models.create("code-refused", net)
        assert refused.value.reason == "CODE_NOT_ALLOWED"
    result = CliRunner().invoke(
        app, ["models", "create", "code-refused", "--code", str(net), "--address", server.address]
    )
    assert result.exit_code != 0
    assert said in " ".join(result.stderr.split())
    assert {int(note.name) for note in (net.parent / "ran").iterdir()} == {os.getpid()}


@pytest.mark.whole
def test_a_server_that_takes_code_no_more_runs_none_and_keeps_what_there_is(
    make_server: Callable[..., ServerProcess], net: Path
) -> None:
    server = make_server("changed", "--allow-code")
    server.start()
    with Client.connect(server.address) as client:
        model = client.models.create("settling", net)
        done = train(client, model, epochs=1)
        digest = done.wait(timeout_s=120).weights_digest
        going = train(client, model, epochs=100_000)
        next(iter(going.stream_metrics()))
        going.pause()
    assert server.terminate() == 0
    again = ServerProcess(server.data_dir, *[word for word in server._arguments if word != "--allow-code"])
    again.start()
    try:
        with Client.connect(again.address) as client:
            found = client.models.get("settling")
            assert (found.code_digest, found.latest_version) == (model.code_digest, "models/settling/versions/2")
            assert client.models.version("settling", 2).weights_digest == digest
            assert found.weights().keys() == client.models.version("settling", 1).weights().keys()
            assert found.source() == net.read_text()
            with pytest.raises(FailedPrecondition, match=r"models/settling.* without --allow-code"):
                train(client, found)
            resumed = client.jobs.get(going.name)
            resumed.resume()
            error = failed(resumed).error
            assert error is not None
            assert (error.reason, "without --allow-code" in error.message) == ("CODE_NOT_ALLOWED", True)
    finally:
        again.stop()
