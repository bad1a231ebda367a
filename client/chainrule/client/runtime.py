"""What is not the same with asyncio and with threads, here for threads: `chainrule.client.aio.runtime` is its twin."""

import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import grpc

from chainrule.client.encryption import Tls
from chainrule.client.transport import channel_options

P = ParamSpec("P")
T = TypeVar("T")

Event = threading.Event

ENDED_HERE: tuple[type[BaseException], ...] = ()
"""How a call ends that was ended on this side: always with an error of gRPC."""


def is_cancelled() -> bool:
    """Whether somebody wants the present thread to end, which nobody can."""
    return False


def open_channel(address: str, tls: Tls | None) -> grpc.Channel:
    """A channel to `address`."""
    options = channel_options(address)
    if tls is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, tls.credentials(), options=options)


def compute(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that takes a while."""
    return function(*args, **kwargs)
