"""Networks as a predictor has them, and how many it keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import io, models
from chainrule.server.models import state_of
from chainrule.server.predictions.messages import Answered, Asked, Batch, Predicted, Reason, Refused, packed, unpacked
from chainrule.server.predictions.network import InputError, Named, Network, NetworkSpec, WeightsError, load_network
from chainrule.server.predictions.predictor import Predictor, PredictorSettings
from chainrule.server.predictions.shelf import Shelf


def stored(folder: Path, family: str = "small_cnn", seed: int = 1, **config: object) -> NetworkSpec:
    module = models.build(family, config, generator=cr.Generator(seed))
    content = io.save(state_of(module))
    file = folder / io.digest(content)
    file.write_bytes(content)
    return NetworkSpec("models/m", family, config, weights_digest=file.name, weights_file=str(file))


def images(rows: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, 1, 8, 8)).astype(np.float32)


def test_a_network_computes_in_evaluation_mode_what_the_engine_does(tmp_path: Path) -> None:
    [(name, output)] = load_network(stored(tmp_path, dropout=0.5))((("input", images(3)),))
    module = models.build("small_cnn", {"dropout": 0.5}, generator=cr.Generator(1)).eval()
    with cr.no_grad():
        expected = module(cr.from_numpy(images(3))).numpy()
    assert name == "output"
    np.testing.assert_array_equal(output, expected)


def test_weights_that_are_missing_or_damaged_are_refused(tmp_path: Path) -> None:
    spec = stored(tmp_path)
    Path(spec.weights_file).write_bytes(b"something else")
    with pytest.raises(WeightsError, match="do not have their digest"):
        load_network(spec)
    Path(spec.weights_file).unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        load_network(spec)


@pytest.mark.parametrize(
    ("inputs", "field", "said"),
    [
        ((("input", images(1)), ("mask", images(1))), "inputs", 'are 2 ("input", "mask"); "models/m" has one, "input"'),
        ((("x", images(1)),), "inputs[0].name", 'is "x"; the input of "models/m" is "input"'),
        (
            (("input", images(2).astype(np.float64)),),
            "inputs[0].dtype",
            'is float64, of shape (2, 1, 8, 8); the input "input" of "models/m" is float32',
        ),
        (
            (("", images(2)[:, :, :4]),),
            "inputs[0]",
            '"input" of shape (2, 1, 4, 8) does not fit "models/m": small_cnn takes images of shape (N, 1, 8, 8)',
        ),
    ],
)
def test_inputs_that_do_not_fit_are_told_what_would(tmp_path: Path, inputs: Named, field: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_network(stored(tmp_path))(inputs)
    assert caught.value.field == field
    assert said in caught.value.description


def test_a_network_of_tokens_takes_whole_numbers(tmp_path: Path) -> None:
    network = load_network(stored(tmp_path, "gpt", vocab_size=16, context=4, dim=8, heads=1, layers=1))
    [(_, output)] = network((("input", np.zeros((2, 3), np.int64)),))
    assert output.shape == (2, 3, 16)
    with pytest.raises(InputError, match="is int64"):
        network((("input", np.zeros((2, 3), np.float32)),))
    with pytest.raises(InputError, match="does not fit"):
        network((("input", np.full((2, 3), 16, np.int64)),))


def test_keys_tell_networks_apart(tmp_path: Path) -> None:
    one, same = stored(tmp_path), stored(tmp_path)
    other_weights, other_shape = stored(tmp_path, seed=2), stored(tmp_path, width=4)
    assert one.key == same.key
    assert len({one.key, other_weights.key, other_shape.key}) == 3


# --- how many are kept -----------------------------------------------------------------------------------------


class Loads:
    """Networks of a size, without weights."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.loaded: list[str] = []

    def __call__(self, spec: NetworkSpec) -> Network:
        self.loaded.append(spec.model)
        network = Network.__new__(Network)
        network.size_bytes = self.size_bytes
        return network


def named(model: str) -> NetworkSpec:
    return NetworkSpec(model, "mlp", {}, weights_digest=model, weights_file="/nowhere")


def test_the_network_goes_that_was_not_used_for_the_longest() -> None:
    loads = Loads(40)
    shelf = Shelf(100, load=loads)
    for model in ("a", "b", "a", "c", "a", "b"):
        shelf.get(named(model))
    assert loads.loaded == ["a", "b", "c", "b"]
    assert shelf.keys == {named("a").key, named("b").key}


def test_a_network_larger_than_the_memory_is_kept_alone() -> None:
    loads = Loads(200)
    shelf = Shelf(100, load=loads)
    for model in ("a", "a", "b"):
        shelf.get(named(model))
    assert loads.loaded == ["a", "b"]
    assert shelf.keys == {named("b").key}


# --- the predictor without its process -------------------------------------------------------------------------


def test_a_predictor_answers_and_says_what_it_holds(tmp_path: Path) -> None:
    spec = stored(tmp_path)
    answered = Predictor(PredictorSettings(10**9, 32)).answer(Batch(spec, (Asked((("", images(2)),)),)))
    [result] = answered.results
    assert isinstance(result, Predicted)
    assert answered.held == {spec.key}


def test_weights_that_cannot_be_read_refuse_the_batch_and_no_other(tmp_path: Path) -> None:
    predictor = Predictor(PredictorSettings(10**9, 32))
    asked = Asked((("", images(1)),))
    refused = predictor.answer(Batch(named("models/gone"), (asked, asked)))
    assert [result.reason for result in refused.results if isinstance(result, Refused)] == [Reason.WEIGHTS] * 2
    [result] = predictor.answer(Batch(stored(tmp_path), (asked,))).results
    assert isinstance(result, Predicted)


def test_messages_cross_with_their_arrays() -> None:
    batch = Batch(named("models/m"), (Asked((("x", images(3)), ("y", np.zeros((3, 0), np.int64))), top_k=2),))
    again = unpacked(b"".join(packed(batch)))
    assert again.network == batch.network
    [asked] = again.requests
    assert (asked.rows, asked.top_k) == (3, 2)
    for (name, array), (known, expected) in zip(asked.inputs, batch.requests[0].inputs, strict=True):
        assert name == known
        np.testing.assert_array_equal(array, expected)
    answered = Answered((Refused(Reason.MEMORY, "m"),), frozenset({"k"}))
    assert unpacked(b"".join(packed(answered))) == answered
