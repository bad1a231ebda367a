"""What is not the same with asyncio and with threads, here for asyncio: `chainrule.client.runtime` is its twin."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import grpc

from chainrule.client.encryption import Tls
from chainrule.client.transport import channel_options

P = ParamSpec("P")
T = TypeVar("T")

Event = asyncio.Event

ENDED_HERE: tuple[type[BaseException], ...] = (asyncio.CancelledError,)
"""How a call ends that was ended on this side, by its task or by the closing of the channel."""


def is_cancelled() -> bool:
    """Whether somebody wants the present task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def open_channel(address: str, tls: Tls | None) -> grpc.aio.Channel:
    """A channel to `address`, which belongs to the running loop."""
    options = channel_options(address)
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, tls.credentials(), options=options)


async def compute(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that takes a while in a thread, so that the loop goes on."""
    return await asyncio.to_thread(function, *args, **kwargs)
