"""Networks as a predictor has them, and how many it keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import graph, io, models, nn
from chainrule.engine.graph import exporting
from chainrule.engine.nn.replay import Replay
from chainrule.server.architecture import Builtin, GraphArchitecture
from chainrule.server.models import state_of
from chainrule.server.predictions.messages import (
    Answered,
    Asked,
    Batch,
    Predicted,
    Reason,
    Refused,
    pack_answered,
    pack_batch,
    unpack_answered,
    unpack_batch,
)
from chainrule.server.predictions.network import (
    MAX_SHAPES,
    OFTEN,
    InputError,
    Named,
    Network,
    NetworkSpec,
    Replays,
    WeightsError,
    load_network,
)
from chainrule.server.predictions.predictor import Predictor, PredictorSettings
from chainrule.server.predictions.shelf import Shelf
from chainrule.server.training.augmentation import Augmentation, Normalize, Resize
from chainrule.server.training.examples import as_features


def stored(folder: Path, family: str = "small_cnn", seed: int = 1, **config: object) -> NetworkSpec:
    module = models.build(family, config, generator=cr.Generator(seed))
    content = io.save(state_of(module))
    file = folder / io.digest(content)
    file.write_bytes(content)
    return NetworkSpec("models/m", Builtin(family, config), weights_digest=file.name, weights_file=str(file))


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
    with pytest.raises(WeightsError, match="does not have the digest"):
        load_network(spec)
    Path(spec.weights_file).unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        load_network(spec)


@pytest.mark.parametrize(
    ("inputs", "field", "said"),
    [
        (
            (("input", images(1)), ("mask", images(1))),
            "inputs",
            'are 2 ("input", "mask"); "models/m" has 1: "input"; give each',
        ),
        ((("x", images(1)),), "inputs[0].name", 'is "x"; "models/m" takes, each once: "input"'),
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


def test_bytes_are_the_numbers_that_the_dataset_had_of_them(tmp_path: Path) -> None:
    spec, pixels = stored(tmp_path), np.arange(2 * 64, dtype=np.uint8).reshape(2, 1, 8, 8)
    raw = replace(spec, raw_bytes=True)
    assert raw.key != spec.key
    for network, numbers in ((load_network(spec), as_features(pixels)), (load_network(raw), pixels.astype(np.float32))):
        [(_, output)] = network((("input", pixels),))
        np.testing.assert_array_equal(output, network((("input", numbers),))[0][1])


def test_a_network_of_tokens_takes_whole_numbers(tmp_path: Path) -> None:
    network = load_network(stored(tmp_path, "gpt", vocab_size=16, context=4, dim=8, heads=1, layers=1))
    [(_, output)] = network((("input", np.zeros((2, 3), np.int64)),))
    assert output.shape == (2, 3, 16)
    with pytest.raises(InputError, match="is int64"):
        network((("input", np.zeros((2, 3), np.float32)),))
    with pytest.raises(InputError, match="does not fit"):
        network((("input", np.full((2, 3), 16, np.int64)),))


class TwoInputs(nn.Module):
    """Two and three features of each example, to two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, x: cr.Tensor, y: cr.Tensor) -> tuple[cr.Tensor, cr.Tensor]:
        both = self.linear(x) + y
        return both, both.relu()


def graph_of(folder: Path) -> tuple[NetworkSpec, nn.Module]:
    module = TwoInputs()
    content = exporting.export(
        module, (cr.zeros(2, 2), cr.zeros(2, 3)), input_names=["x", "y"], output_names=["sum", "positive"]
    )
    loaded = graph.load(content)
    files = []
    for part in (loaded.architecture, io.save(state_of(loaded))):
        files.append(folder / io.digest(part))
        files[-1].write_bytes(part)
    architecture, weights = files
    spec = NetworkSpec(
        "models/g", GraphArchitecture(architecture.name), weights.name, str(weights), graph_file=str(architecture)
    )
    return spec, module


def test_a_graph_takes_its_inputs_by_name_and_gives_its_outputs_so(tmp_path: Path) -> None:
    spec, module = graph_of(tmp_path)
    network = load_network(spec)
    x, y = np.asarray([[1, 2], [3, -4], [0, 1]], np.float32), np.arange(9, dtype=np.float32).reshape(3, 3)
    outputs = network((("y", y), ("x", x)))
    assert [name for name, _ in outputs] == ["sum", "positive"]
    with cr.no_grad():
        for (_, found), expected in zip(outputs, module(cr.from_numpy(x), cr.from_numpy(y)), strict=True):
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)
    assert [array.shape for _, array in network((("", x), ("", y)))] == [(3, 3), (3, 3)]
    with pytest.raises(InputError, match='"models/g" takes, each once: "x", "y"'):
        network((("x", x), ("x", y)))
    with pytest.raises(InputError, match='the input "y" of "models/g" is float32'):
        network((("x", x), ("y", y.astype(np.int64))))
    with pytest.raises(InputError, match=r'"y" of shape .* does not fit "models/g"'):
        network((("x", x), ("y", x)))
    Path(spec.graph_file).write_bytes(b"something else")
    with pytest.raises(WeightsError, match='the graph of "models/g" does not have the digest'):
        load_network(spec)


def test_what_comes_often_is_replayed_with_the_same_bits(tmp_path: Path) -> None:
    spec = stored(tmp_path)
    network = load_network(spec)
    assert network._replays is not None
    network._replays._clock = lambda: 0.0  # nothing takes long
    outputs = [network((("", images(2)),))[0][1] for _ in range(OFTEN + 2)]
    assert isinstance(network._replays._known[2, 1, 8, 8], Replay)
    assert {output.tobytes() for output in outputs} == {outputs[0].tobytes()}
    with pytest.raises(InputError, match="does not fit"):
        network((("", images(2)[:, :, :4]),))


def test_what_takes_long_is_not_recorded_and_few_shapes_are_known() -> None:
    seconds = iter(range(1000))
    slow = Replays(nn.Linear(2, 2).eval(), clock=lambda: float(next(seconds)))
    for rows in range(1, MAX_SHAPES + 10):
        for _ in range(OFTEN + 1):
            slow(np.zeros((rows, 2), np.float32))
    assert len(slow._known) == MAX_SHAPES
    assert not any(isinstance(found, Replay) for found in slow._known.values())


def test_images_are_prepared_as_in_training(tmp_path: Path) -> None:
    transforms = (Resize(8, 8), Normalize((0.25,), (2.0,)))
    plain = stored(tmp_path)
    spec = replace(plain, preparation=transforms)
    network = load_network(spec)
    assert spec.key != plain.key
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 10, 12), np.uint8)
    by_hand = Augmentation(transforms).evaluate(as_features(pixels))
    [(_, expected)] = load_network(plain)((("", by_hand),))
    np.testing.assert_array_equal(network((("", pixels),))[0][1], expected)
    np.testing.assert_array_equal(network((("", as_features(pixels)),))[0][1], expected)
    np.testing.assert_array_equal(network.without_preparation((("", by_hand),))[0][1], expected)
    for wrong in (images(2)[0], images(2).repeat(3, axis=1)):
        with pytest.raises(
            InputError, match=r"prepares images of shape \(N, 1, height, width\), float32 or uint8"
        ) as caught:
            network((("", wrong),))
        assert caught.value.field == "inputs[0]"


def test_bytes_are_numbers_from_0_to_1_where_a_network_takes_numbers(tmp_path: Path) -> None:
    network = load_network(stored(tmp_path))
    pixels = np.full((1, 1, 8, 8), 51, np.uint8)
    [(_, output)] = network((("", pixels),))
    np.testing.assert_array_equal(output, network((("", np.full(pixels.shape, 0.2, np.float32)),))[0][1])


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
    return NetworkSpec(model, Builtin("mlp"), weights_digest=model, weights_file="/nowhere")


def test_the_network_goes_that_was_not_used_for_the_longest() -> None:
    loads = Loads(40)
    shelf = Shelf(100, load=loads)
    for model in ("a", "b", "a", "c", "a", "b"):
        shelf.get(named(model).key, named(model))
    assert loads.loaded == ["a", "b", "c", "b"]
    assert shelf.keys == {named("a").key, named("b").key}


def test_a_network_larger_than_the_memory_is_kept_alone() -> None:
    loads = Loads(200)
    shelf = Shelf(100, load=loads)
    for model in ("a", "a", "b"):
        shelf.get(named(model).key, named(model))
    assert loads.loaded == ["a", "b"]
    assert shelf.keys == {named("b").key}


# --- the predictor without its process -------------------------------------------------------------------------


def batch(spec: NetworkSpec, *requests: Asked, is_held: bool = False) -> Batch:
    return unpack_batch(pack_batch(spec, requests, is_held=is_held))


def test_a_predictor_answers_and_says_what_it_holds_once(tmp_path: Path) -> None:
    spec, asked = stored(tmp_path), Asked((("", images(2)),))
    predictor = Predictor(PredictorSettings(10**9, 32))
    answered = predictor.answer(batch(spec, asked))
    [result] = answered.results
    assert isinstance(result, Predicted)
    assert answered.held == frozenset({spec.key})
    again = predictor.answer(batch(spec, asked, is_held=True))
    assert isinstance(again.results[0], Predicted)
    assert again.held is None


def test_a_network_that_a_predictor_was_never_told_of_is_a_defect(tmp_path: Path) -> None:
    predictor = Predictor(PredictorSettings(10**9, 32))
    [result] = predictor.answer(batch(stored(tmp_path), Asked((("", images(1)),)), is_held=True)).results
    assert isinstance(result, Refused)
    assert result.reason is Reason.DEFECT


def test_weights_that_cannot_be_read_refuse_the_batch_and_no_other(tmp_path: Path) -> None:
    predictor = Predictor(PredictorSettings(10**9, 32))
    asked = Asked((("", images(1)),))
    refused = predictor.answer(batch(named("models/gone"), asked, asked))
    assert [result.reason for result in refused.results if isinstance(result, Refused)] == [Reason.WEIGHTS] * 2
    [result] = predictor.answer(batch(stored(tmp_path), asked)).results
    assert isinstance(result, Predicted)


def test_requests_cross_joined() -> None:
    spec = named("models/m")
    y = np.asarray([True, False, True])
    first = Asked((("x", images(3)[:, :, ::2]), ("y", y), ("", np.zeros((3, 0), np.int64))), top_k=2)
    second = Asked((("x", images(1)[:, :, ::2]), ("y", y[:1]), ("", np.zeros((1, 0), np.int64))), omit_outputs=True)
    crossed = batch(spec, first, second)
    assert (crossed.key, crossed.network) == (spec.key, spec)
    assert batch(spec, first, is_held=True).network is None
    assert [(q.rows, q.top_k, q.omit_outputs) for q in crossed.questions] == [(3, 2, False), (1, 0, True)]
    for (name, array), (known, one), (_, other) in zip(crossed.inputs, first.inputs, second.inputs, strict=True):
        assert name == known
        assert array.dtype == one.dtype
        assert array.flags.aligned
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, np.concatenate([one, other]))


def test_what_comes_of_them_crosses() -> None:
    scores = ("output", images(2).astype(np.float16)[:, 0])
    classes, probabilities = np.asarray([[3], [1]]), np.asarray([[0.5], [0.25]], np.float32)
    results = (Predicted((scores,)), Refused(Reason.MEMORY, "m"), Predicted((), classes, probabilities))
    answered = unpack_answered(pack_answered(Answered(results, frozenset({"k"}))))
    assert answered.held == frozenset({"k"})
    plain, refused, ranked = answered.results
    assert isinstance(plain, Predicted)
    assert plain.outputs[0][0] == "output"
    np.testing.assert_array_equal(plain.outputs[0][1], scores[1])
    assert plain.classes is plain.probabilities is None
    assert refused == results[1]
    assert isinstance(ranked, Predicted)
    assert ranked.outputs == ()
    np.testing.assert_array_equal(ranked.classes, classes)
    np.testing.assert_array_equal(ranked.probabilities, probabilities)
