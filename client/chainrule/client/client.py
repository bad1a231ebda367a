"""The client: where everything that the service offers begins."""
# Derived from aio/client.py by client/derive.py. Change that, and run `make client`.

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from numpy.typing import ArrayLike

from chainrule.client.access import Access
from chainrule.client.blobs import Blobs
from chainrule.client.channel import Connection
from chainrule.client.cluster import Cluster
from chainrule.client.credentials import token_from_environment
from chainrule.client.datasets import Datasets
from chainrule.client.encryption import Tls
from chainrule.client.errors import DeadlineExceeded, Unavailable, unreachable_message
from chainrule.client.jobs import Jobs
from chainrule.client.models import Models
from chainrule.client.prediction import Prediction
from chainrule.client.predictions import Predictions
from chainrule.client.resources import Node, ServerInfo
from chainrule.client.transport import ADDRESS_VARIABLE, DEFAULT_ADDRESS, Settings, check_address
from chainrule.client.wire import Named


class Client:
    """A connection to one chainrule server; close it, or use it in a block:

        with Client.connect() as client:
            ...

    It may be shared by threads.

    Attributes:
        models: the models of the server.
        datasets: its datasets.
        jobs: its jobs.
        blobs: its blobs; the three above use it, it is seldom needed directly.
        access: its tokens and its audit log.

    Args:
        address: host:port of the server.
        settings: deadlines and retries.
        tls: how to encrypt; None: not at all.
        token: the secret to show, where the server asks for tokens; it is sent encrypted, or within this machine, only.

    Raises:
        InvalidInputError: `address` is not host:port, with a port from 1 to 65535; or a file of `tls` cannot be used;
            or `token` cannot be one, or would be sent in the open.
    """

    def __init__(
        self,
        address: str,
        *,
        settings: Settings | None = None,
        tls: Tls | None = None,
        token: str | None = None,
    ) -> None:
        check_address(address)
        self._connection = Connection(address, settings or Settings(), tls, token=token)
        self._cluster = Cluster(self._connection)
        self.access = Access(self._connection)
        self.blobs = Blobs(self._connection)
        self._predictions = Predictions(self._connection)
        self.models = Models(self._connection, self.blobs)
        self.datasets = Datasets(self._connection, self.blobs)
        self.jobs = Jobs(self._connection, self.blobs)

    @classmethod
    def connect(
        cls,
        address: str | None = None,
        *,
        timeout_s: float = 10.0,
        settings: Settings | None = None,
        tls: Tls | None = None,
        token: str | None = None,
    ) -> Self:
        """A client of the server at `address`, which has answered.

        Args:
            address: host:port; by default $CHAINRULE_ADDRESS, and localhost:50051 where that is not set.
            timeout_s: the longest to wait for the server's answer.
            settings: deadlines and retries of the calls to come.
            tls: how to encrypt; by default as $CHAINRULE_TLS_CA, _CERT and _KEY have it, and not at all where none of
                these is set.
            token: the secret to show; by default $CHAINRULE_TOKEN, and none where that is not set.

        Raises:
            Unavailable: no server answers there; the message says what to do.
            InvalidInputError: `address` is not host:port, a file of `tls` cannot be used, or `token` cannot be one, or
                would be sent in the open.
            Unauthenticated: the server asks for a token, and does not know this one.
        """
        address = address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
        client = cls(
            address, settings=settings, tls=tls or Tls.from_environment(), token=token or token_from_environment()
        )
        try:
            client.server_info(timeout_s=timeout_s)
        except DeadlineExceeded as error:
            client.close()
            raise Unavailable(unreachable_message(client.address, f"no answer within {timeout_s:g} s")) from error
        except BaseException:
            client.close()
            raise
        return client

    @property
    def address(self) -> str:
        """host:port of the server."""
        return self._connection.address

    def server_info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """What the server is and what it can do.

        Args:
            timeout_s: the longest to wait for the answer; by default that of every call.
        """
        return self._cluster.server_info(timeout_s=timeout_s)

    def nodes(self) -> tuple[Node, ...]:
        """The nodes of the cluster that the server trains on."""
        return self._cluster.nodes()

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
        """What the network of a model makes of some examples, in evaluation mode, computed by the server.

        Many examples are sent in several requests, each within settings.call_timeout_s; a request that the server has
        no room for is made again.

        Args:
            model: a version, "models/digits/versions/2", or a model, "digits", which stands for its newest version.
            x: (N, ...) the inputs of N examples: numbers, sent as float32, bytes, which are divided by 255 as in
                training, or tokens; or, by their names, those of a network with several inputs, which keep their
                dtypes, but for float64. Images are prepared as in training.
            tokens: whether `x` holds tokens: whole numbers, sent as int64.
            batch_size: most examples of one request; by default at most 64, fewer where they are large.
            alone: whether no request is computed in a batch with those of others: then its answers have the same bits
                whenever they are asked for on one machine, instead of about the same values.
            prepared: whether `x` is as the network takes it, so that what `ModelVersion.preparation` says is not done
                to it.

        Raises:
            InvalidInputError: the inputs cannot be sent.
            NotFound: there is no such model or version.
            InvalidArgument: the network does not take such inputs.
            ResourceExhausted: the server has too little memory for them.
        """
        return self._predictions.predict(model, x, tokens=tokens, batch_size=batch_size, alone=alone, prepared=prepared)

    def close(self) -> None:
        """Close the connection; calls under way end with ClientClosedError. Closing twice is fine."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
