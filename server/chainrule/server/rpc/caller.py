"""Who makes the call that is being answered."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from chainrule.server.store.schema import DEFAULT_TENANT

SCOPES = ("read", "submit", "admin")
"""What a caller may do, each including those before it."""


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
