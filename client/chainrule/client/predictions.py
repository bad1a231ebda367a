"""Predictions: what the network of a model makes of inputs, computed by the server."""
# Derived from aio/predictions.py by client/derive.py. Change that, and run `make client`.

from collections.abc import Mapping

from numpy.typing import ArrayLike

from chainrule.client.channel import Connection
from chainrule.client.prediction import Answers, Prediction, pieces_of, to_inputs, to_request, to_stream
from chainrule.client.wire import Named, name_of
from chainrule.v1 import predict_pb2_grpc


class Predictions:
    """Asks a server for predictions."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = predict_pb2_grpc.PredictServiceStub(connection.channel)

    def predict(
        self,
        model: Named | str,
        x: ArrayLike | Mapping[str, ArrayLike],
        *,
        tokens: bool = False,
        batch_size: int | None = None,
        alone: bool = False,
        prepared: bool = False,
    ) -> Prediction:
        """What a version of a model, or the newest one of a model, makes of some examples; see `Client.predict`,
        of which these are the arguments."""
        inputs = self._connection.compute(to_inputs, x, tokens=tokens)
        pieces = pieces_of(inputs, batch_size)
        name = name_of("models", model)
        request = to_request(name, pieces[0], alone=alone, prepared=prepared, with_class_labels=True)
        first = self._connection.call(self._stub.Predict, request)
        answers = Answers(first)
        rest = pieces[1:]
        if rest:  # of the same version, also if there is a newer one by now
            stream = self._connection.exchange(
                self._stub.StreamPredict,
                lambda answered: to_stream(first.version, rest[answered:], alone=alone, prepared=prepared),
                count=len(rest),
            )
            for response in stream:
                answers.add(response)
        return self._connection.compute(answers.prediction)
