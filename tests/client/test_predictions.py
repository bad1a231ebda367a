"""Predictions: what is sent, in how many requests, and what becomes of the answers."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

from chainrule.client import (
    AsyncClient,
    Client,
    InvalidArgument,
    InvalidInputError,
    NotFound,
    Prediction,
    RankedClass,
    RetryPolicy,
    Settings,
    Unavailable,
)
from chainrule.client.prediction import pieces_of, to_inputs
from chainrule.engine import models
from chainrule.v1 import model_pb2
from tests.client.fake_server import BREAK, Failure, FakeServer

X = np.asarray([[1.0, 2.0], [3.0, -5.0]])


def sizes(server: FakeServer) -> list[int]:
    """How many examples each request had."""
    asked = [*server.requests("Predict"), *server.requests("StreamPredict request")]
    return [request.inputs[0].shape[0] for request in asked]


def test_a_prediction_is_arrays_and_classes(server: FakeServer, client: Client) -> None:
    prediction = client.predict("digits", X)
    assert prediction.version == "models/digits/versions/3"
    np.testing.assert_array_equal(prediction, [[3, -3], [-2, 2]])
    np.testing.assert_array_equal(prediction.outputs["output"], prediction.output)
    assert len(prediction) == 2
    [[best], [other]] = prediction.classes()
    assert (best.index, best.label) == (0, "up")
    assert best.probability == pytest.approx(1 / (1 + np.exp(-6)))
    assert (other.index, other.label) == (1, "down")
    assert [ranked.index for ranked in prediction.classes(k=5)[1]] == [1, 0]
    [request] = server.requests("Predict")
    assert (request.model, request.alone, request.with_class_labels) == ("models/digits", False, True)
    assert (request.inputs[0].name, request.inputs[0].dtype) == ("", "float32")


async def test_the_client_for_asyncio_predicts_too(aio: AsyncClient) -> None:
    prediction = await aio.predict("models/digits/versions/2", X, batch_size=1)
    assert prediction.version == "models/digits/versions/2"
    np.testing.assert_array_equal(prediction, [[3, -3], [-2, 2]])


@pytest.fixture
async def aio(server: FakeServer) -> Any:
    async with await AsyncClient.connect(server.address) as client:
        yield client


def test_a_version_predicts(server: FakeServer, client: Client) -> None:
    name = "models/digits/versions/2"
    server.versions[name] = model_pb2.ModelVersion(name=name)
    assert client.models.version("digits", 2).predict(X).version == "models/digits/versions/2"


def test_many_examples_are_sent_in_several_requests_of_one_version(server: FakeServer, client: Client) -> None:
    x = np.arange(200.0).reshape(100, 2)
    prediction = client.predict("digits", x, batch_size=30)
    np.testing.assert_array_equal(prediction.output[:, 0], x.sum(axis=1))
    assert sizes(server) == [30, 30, 30, 10]
    asked = server.requests("StreamPredict request")
    assert {request.model for request in asked} == {"models/digits/versions/3"}
    assert prediction.class_labels == ("up", "down")
    assert not any(request.with_class_labels for request in asked)


@pytest.mark.parametrize("failure", [BREAK, Failure(code=grpc.StatusCode.CANCELLED, message="cut off")])
def test_a_stream_that_breaks_goes_on_with_what_is_not_answered(
    server: FakeServer, client: Client, failure: Failure
) -> None:
    server.stream_breaks.extend([(2, failure), (0, failure), (1, failure)])
    x = np.arange(20.0).reshape(10, 2)
    prediction = client.predict("digits", x, batch_size=1)
    np.testing.assert_array_equal(prediction.output[:, 0], x.sum(axis=1))
    assert len(sizes(server)) == 10


def test_a_stream_that_is_refused_raises_that(server: FakeServer, client: Client) -> None:
    server.stream_breaks.append((2, Failure(code=grpc.StatusCode.INVALID_ARGUMENT, message="no such shape")))
    with pytest.raises(InvalidArgument, match="no such shape"):
        client.predict("digits", np.zeros((10, 2)), batch_size=1)


def test_a_server_that_stays_away_is_not_waited_for_for_ever(server: FakeServer) -> None:
    settings = Settings(retry=RetryPolicy(window_s=0.05, first_delay_s=0.01, max_delay_s=0.01))
    with Client.connect(server.address, settings=settings) as client:
        server.stream_breaks.extend([(0, BREAK)] * 1000)
        with pytest.raises(Unavailable):
            client.predict("digits", np.zeros((10, 2)), batch_size=1)


def test_what_the_server_refuses_is_raised(server: FakeServer, client: Client) -> None:
    server.fail("Predict", Failure(code=grpc.StatusCode.NOT_FOUND, message="there is no models/x"))
    with pytest.raises(NotFound, match="there is no models/x"):
        client.predict("x", X)


def test_to_be_computed_alone_is_asked_for_of_every_request(server: FakeServer, client: Client) -> None:
    client.predict("digits", np.zeros((3, 2)), batch_size=2, alone=True)
    assert [request.alone for request in server.requests("Predict")] == [True]
    assert [request.alone for request in server.requests("StreamPredict request")] == [True]


# --- what is sent ----------------------------------------------------------------------------------------------


def test_numbers_are_sent_as_float32_and_tokens_as_int64() -> None:
    assert to_inputs([[1, 2]])[""].dtype == np.float32
    assert to_inputs([[1, 2]], tokens=True)[""].dtype == np.int64
    assert to_inputs(np.zeros((1, 2), np.uint8))[""].dtype == np.uint8
    assert to_inputs(np.zeros((1, 2), np.uint8), tokens=True)[""].dtype == np.int64
    with pytest.raises(InvalidInputError, match="tokens must be whole numbers"):
        to_inputs([[1.5]], tokens=True)


def test_named_inputs_keep_their_dtypes() -> None:
    inputs = to_inputs({"ids": np.zeros((2, 3), np.int32), "mask": np.ones((2, 3), bool), "x": np.zeros((2, 1))})
    assert {name: array.dtype.name for name, array in inputs.items()} == {
        "ids": "int32",
        "mask": "bool",
        "x": "float32",
    }


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (1.0, r"shapes x \(\); the first dimension is that of the examples"),
        (np.zeros((0, 3)), r"x \(0, 3\)"),
        ({}, "of nothing"),
        ({"a": np.zeros((2, 1)), "b": np.zeros((3, 1))}, r"a \(2, 1\), b \(3, 1\)"),
        ({"a": np.asarray(["text"])}, 'input "a" has dtype <U4'),
        (np.asarray(["text"]), "must be real numbers"),
    ],
)
def test_what_are_no_inputs_is_told(x: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        to_inputs(x)


def test_requests_are_of_moderate_size() -> None:
    assert [len(piece["x"]) for piece in pieces_of({"x": np.zeros((150, 1), np.float32)})] == [64, 64, 22]
    large = {"x": np.zeros((3, 1500, 1000), np.uint8)}
    assert [len(piece["x"]) for piece in pieces_of(large)] == [2, 1]
    huge = {"x": np.zeros((2, 6000, 1000), np.uint8)}
    assert [len(piece["x"]) for piece in pieces_of(huge)] == [1, 1]
    with pytest.raises(InvalidInputError, match="batch_size is 0"):
        pieces_of(large, 0)


def test_classes_need_an_output_that_tells_them_apart() -> None:
    sequence = Prediction(version="models/m/versions/1", outputs={"output": np.zeros((1, 2, 3))})
    with pytest.raises(InvalidInputError, match=r"has shape \(1, 2, 3\)"):
        sequence.classes()
    two = Prediction(version="models/m/versions/1", outputs={"a": np.zeros((1, 2)), "b": np.zeros((1, 2))})
    with pytest.raises(InvalidInputError, match="has 2 outputs, a, b"):
        two.classes()
    one = Prediction(version="models/m/versions/1", outputs={"a": np.zeros((1, 2))})
    assert one.classes()[0][0] == RankedClass(index=0, label=None, probability=0.5)
    with pytest.raises(InvalidInputError, match="k is 0"):
        one.classes(0)


def test_a_model_predicts_with_its_newest_version(server: FakeServer, client: Client) -> None:
    model = client.models.create("digits", models.small_cnn())
    assert model.predict(X).version == "models/digits/versions/3"
    assert [request.model for request in server.requests("Predict")] == ["models/digits"]
