"""Predictions of a whole server: with the version that a job has just made, and nothing left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import chainrule.engine as cr
from chainrule.client import Client
from chainrule.client.cli.app import app
from chainrule.engine import models
from chainrule.server.training.augmentation import Augmentation, Normalize, Resize
from chainrule.server.training.examples import as_features
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


def test_what_was_trained_on_a_folder_of_images_names_what_it_is_shown(client: Client, tmp_path: Path) -> None:
    """With the preparation of its job, whether images come as arrays, as bytes or as files."""
    pil = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 100, (16, 8, 8), np.uint8)
    pixels[8:] += 150
    for number, image in enumerate(pixels):
        file = tmp_path / "pictures" / ("bright" if number >= 8 else "dark") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pil.fromarray(image).save(file)
    dataset = client.datasets.create("seen-pictures", tmp_path / "pictures", gray=True)
    model = client.models.create_from_family("seen", "small_cnn", {"num_classes": 2, "image_size": 12})
    normalize = {"name": "normalize", "mean": [0.5], "std": [0.25]}
    resize = {"name": "resize", "height": 12, "width": 12}
    job = client.jobs.create(
        model=model, dataset=dataset, epochs=5, batch_size=8, augmentation=["random_flip", resize, normalize]
    )
    job.wait()

    version = client.models.version("seen")
    assert [transform["name"] for transform in version.preparation] == ["resize", "normalize"]
    assert version.class_labels == ("bright", "dark")
    shown = pixels[:, None]
    prediction = version.predict(shown)
    assert [best.label for [best] in prediction.classes()] == ["dark"] * 8 + ["bright"] * 8
    np.testing.assert_allclose(version.predict(shown / 255).output, prediction.output, rtol=1e-4, atol=1e-5)

    prepared = Augmentation((Resize(12, 12), Normalize((0.5,), (0.25,)))).evaluate(as_features(shown))
    module = models.build("small_cnn", {"num_classes": 2, "image_size": 12}).eval()
    module.load_state_dict(version.weights())
    with cr.no_grad():
        expected = module(cr.from_numpy(prepared)).numpy()
    np.testing.assert_allclose(prediction.output, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(version.predict(prepared, prepared=True).output, expected, rtol=1e-4, atol=1e-5)

    printed = CliRunner().invoke(app, ["predict", "seen", str(file), "--address", client.address])
    assert printed.exit_code == 0, printed.output
    assert "bright" in printed.output


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
