"""Who a caller is, whether it may make a call, and for how long."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from chainrule.server.access import TokenCatalog
from chainrule.server.callers import SCOPES, Token
from chainrule.server.errors import (
    IllegalStateError,
    PermissionDeniedError,
    TooManyCallsError,
    UnauthenticatedError,
)
from chainrule.server.limits import Places, Rate, RateLimit
from chainrule.server.rpc.caller import ANYBODY, Caller
from chainrule.server.rpc.scopes import SCOPE_OF

FAILURES = Rate(per_s=10, burst=20)
"""How often an address may call without a good token before it is told to wait."""
STREAM_RETRY_S = 5.0
"""After how long a caller with too many streams is told to try again."""

Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Limits:
    """How much one caller may ask for: a token or, without tokens, an address."""

    calls: Rate | None = None
    """How often; None: as often as it likes."""
    streams: int | None = None
    """Most streams at a time, uploads included; None: any number."""


@dataclass(frozen=True)
class Admitted:
    """A caller that was let in."""

    caller: Caller
    token: Token | None
    """What it has shown; None: the server asks for none."""
    key: str
    """What its calls are counted under."""


class Doorkeeper:
    """Tells who may make a call. To be made in the loop that serves.

    Args:
        asks: whether a token is asked for.
        clock: seconds from any origin, never going back.
        sleep: waits so many of them.
    """

    def __init__(
        self,
        tokens: TokenCatalog,
        *,
        asks: bool,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._tokens = tokens
        self._asks = asks
        self._clock = clock
        self._sleep = sleep
        self._calls = None if limits.calls is None else RateLimit(limits.calls)
        self._places = None if limits.streams is None else Places(limits.streams)
        self._failures = RateLimit(FAILURES)
        self._leases: defaultdict[str, set[Lease]] = defaultdict(set)
        self._loop = asyncio.get_running_loop()
        tokens.listen(self._revoked)

    def identify(self, metadata: Callable[[], Metadata], peer: str) -> Admitted:
        """Who calls. Raises UnauthenticatedError, or TooManyCallsError from an address that often fails."""
        address = address_of(peer)
        if not self._asks:
            return Admitted(ANYBODY, None, address)
        try:
            token = self._tokens.resolve(_secret(metadata()))
        except UnauthenticatedError as error:
            self._count(self._failures, address, f"calls without a good token come from {address}")
            raise error
        scopes = SCOPES[: max(map(SCOPES.index, token.scopes)) + 1]
        return Admitted(Caller(token.tenant, token.name, frozenset(scopes)), token, token.name)

    def check(self, method: str, admitted: Admitted, peer: str) -> None:
        """Raises TooManyCallsError, PermissionDeniedError, or IllegalStateError: about tokens where none are needed."""
        if self._calls is not None:
            self._count(self._calls, admitted.key, f"calls come from {admitted.key}")
        scope = SCOPE_OF[method]
        if scope not in admitted.caller.scopes:
            raise PermissionDeniedError(
                f'"{admitted.key}" does not have the scope "{scope}", which {method[1:]} needs; ask an administrator '
                "of the server for a token that has it",
                scope=scope,
            )
        if scope == "admin" and not self._asks and not is_loopback(address_of(peer)):
            raise IllegalStateError(
                "the server asks for no tokens, so these are managed from its own machine only; start it with --tokens"
            )

    async def turn(self, admitted: Admitted) -> None:
        """Count a request of a stream as a call. One that comes too early waits, instead of being refused: nothing more
        is read of its stream meanwhile."""
        if self._calls is not None:
            while wait_s := self._calls.take(admitted.key, now_s=self._clock()):
                await self._sleep(wait_s)

    @contextmanager
    def place(self, admitted: Admitted) -> Iterator[None]:
        """What a stream has while it is open. Raises TooManyCallsError."""
        if self._places is None:
            yield
            return
        if not self._places.take(admitted.key):
            raise TooManyCallsError(
                f"{admitted.key} has {self._places.most} streams open; end some, or have the server serve with a "
                "larger --stream-limit",
                retry_after_s=STREAM_RETRY_S,
            )
        try:
            yield
        finally:
            self._places.give_back(admitted.key)

    @contextmanager
    def lease(self, token: Token) -> Iterator[Lease]:
        """For what goes on for longer: it ends with the token."""
        lease = Lease(self._tokens, token)
        self._leases[token.name].add(lease)
        try:
            yield lease
        finally:
            self._leases[token.name].discard(lease)
            if not self._leases[token.name]:
                del self._leases[token.name]

    def _revoked(self, name: str) -> None:
        self._loop.call_soon_threadsafe(self._end_leases, name)

    def _end_leases(self, name: str) -> None:
        for lease in tuple(self._leases.get(name, ())):
            lease.end()

    def _count(self, limit: RateLimit, key: str, what: str) -> None:
        if wait_s := limit.take(key, now_s=self._clock()):
            raise TooManyCallsError(f"too many {what}; wait {wait_s:.2g} s", retry_after_s=wait_s)


class Lease:
    """For how long a stream may go on."""

    def __init__(self, tokens: TokenCatalog, token: Token) -> None:
        self._tokens = tokens
        self._token = token
        self._waiting: asyncio.Timeout | None = None

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Wait inside for as long as the token is good. Raises UnauthenticatedError as soon as it is not."""
        self._tokens.check(self._token)
        try:
            async with asyncio.timeout(self._tokens.left_s(self._token)) as waiting:
                self._waiting = waiting
                yield
        except TimeoutError as error:
            if waiting.expired():
                raise UnauthenticatedError(
                    f'the token "{self._token.name}" has expired or was revoked while this went on'
                ) from error
            raise
        finally:
            self._waiting = None

    def end(self) -> None:
        """The token is not good any more."""
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())


def _secret(metadata: Metadata) -> str:
    shown = [value for key, value in metadata if key == "authorization"]
    scheme, _, secret = (str(shown[0]) if len(shown) == 1 else "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise UnauthenticatedError(
            'this server asks for a token; show one as "authorization: Bearer SECRET" (CHAINRULE_TOKEN, or '
            "--token-file)"
        )
    return secret.strip()


@lru_cache(1024)  # many calls come through each connection
def address_of(peer: str) -> str:
    """The address of a peer as gRPC writes it, without the port.

    >>> address_of("ipv6:%5B::1%5D:47266")
    '::1'
    """
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else peer


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address.startswith("unix:")
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
