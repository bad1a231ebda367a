"""Predictions of a whole server: with the version that a job has just made, and nothing left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import chainrule.engine as cr
from chainrule.client import Client
from tests.integration.conftest import Images, ServerProcess, network, submit, wait_for

MakeServer = Callable[..., ServerProcess]


def test_what_a_job_has_made_is_what_predicts(client: Client, images: Images) -> None:
    inputs, _ = images
    submit(client, images, epochs=1).wait()
    before = client.predict("test", inputs[:1])
    job = submit(client, images)
    job.wait()
    prediction = client.predict("test", inputs)
    assert prediction.version != before.version
    module = network().eval()
    module.load_state_dict(job.weights())
    with cr.no_grad():
        expected = module(cr.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(prediction.output, expected, rtol=1e-4, atol=1e-5)
    assert [best.index for [best] in prediction.classes()] == expected.argmax(axis=1).tolist()
    first = client.models.version("test", 1)
    assert np.abs(first.predict(inputs).output - expected).max() > 1e-3


def predictors(server: ServerProcess) -> list[int]:
    """Ids of the processes that compute a server's predictions."""
    found = []
    for folder in Path(f"/proc/{server.pid}/task").iterdir():
        found += [int(child) for child in (folder / "children").read_text().split()]
    return [pid for pid in found if b"predictions.predictor" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def has_ended(pid: int) -> bool:
    """Whether there is no such process any more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_predictors_end_with_their_server_however_that_ends(make_server: MakeServer, images: Images) -> None:
    inputs, _ = images
    server = make_server()
    for end in (server.terminate, server.kill):
        server.start()
        with Client.connect(server.address) as client:
            model = client.models.create("m", network())
            client.predict(model, inputs[:1])
        [predictor] = predictors(server)
        end()
        wait_for(partial(has_ended, predictor), 30, "the predictor to end")


def test_a_predictor_that_is_killed_is_replaced(make_server: MakeServer, images: Images) -> None:
    inputs, _ = images
    server = make_server()
    server.start()
    with Client.connect(server.address) as client:
        model = client.models.create("m", network())
        before = client.predict(model, inputs, alone=True)
        [predictor] = predictors(server)
        os.kill(predictor, signal.SIGKILL)
        np.testing.assert_array_equal(client.predict(model, inputs, alone=True), before)
        assert predictors(server) != [predictor]
