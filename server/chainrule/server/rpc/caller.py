"""Who makes the call that is being answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from chainrule.server.callers import SCOPES
from chainrule.server.store.schema import DEFAULT_TENANT

__all__ = ["ANYBODY", "SCOPES", "Caller", "caller", "calling"]


@dataclass(frozen=True)
class Caller:
    """Who calls, as far as the server knows."""

    tenant: str = DEFAULT_TENANT
    """Whose models, datasets, jobs and blobs they see."""
    token: str = ""
    """Resource name of the token they have shown; empty: the server asks for none."""
    scopes: frozenset[str] = frozenset(SCOPES)
    """What they may do."""


ANYBODY = Caller()
"""Who calls a server that asks for no tokens: may do everything."""

_current: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)


def caller() -> Caller:
    """Who makes the call that this coroutine answers."""
    return _current.get()


@contextmanager
def calling(who: Caller) -> Iterator[None]:
    """What is done inside is done for this caller."""
    before = _current.set(who)
    try:
        yield
    finally:
        _current.reset(before)
