"""Who a caller is, and for how long: without gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from chainrule.server.access import NewToken, TokenCatalog, digest_of, draw_secret
from chainrule.server.errors import IllegalStateError, TooManyCallsError, UnauthenticatedError
from chainrule.server.limits import Rate
from chainrule.server.rpc.authentication import Doorkeeper, Lease, Limits, address_of, is_loopback
from chainrule.server.rpc.caller import ANYBODY, Caller, caller, calling
from chainrule.server.store import Store

HERE, ELSEWHERE = "ipv4:127.0.0.1:47000", "ipv4:10.0.0.7:47000"
READ, MANAGE = "/chainrule.v1.JobService/GetJob", "/chainrule.v1.AccessService/CreateToken"


def make(tokens: TokenCatalog, name: str = "t", **changes: Any) -> tuple[tuple[str, str], ...]:
    """A token; returns what shows it."""
    secret = draw_secret()
    tokens.create(NewToken(name, "team", ("read",), digest_of(secret), **changes), tenant="default")
    return (("authorization", f"Bearer {secret}"),)


async def wait(lease: Lease, first: Callable[[], object] = lambda: None) -> None:
    """Do something in a thread, and then wait for ever."""
    async with lease.waiting():
        await asyncio.to_thread(first)
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("peer", "address", "is_here"),
    [
        ("ipv4:127.0.0.1:47000", "127.0.0.1", True),
        ("ipv4:10.0.0.7:47000", "10.0.0.7", False),
        ("ipv6:%5B::1%5D:47000", "::1", True),
        ("ipv6:[2001:db8::1]:47000", "2001:db8::1", False),
        ("ipv6:%5B::ffff:127.0.0.1%5D:47000", "::ffff:127.0.0.1", True),
        ("unix:/run/chainrule.sock", "unix:/run/chainrule.sock", True),
        ("", "", False),
    ],
)
def test_the_address_of_a_peer(peer: str, address: str, is_here: bool) -> None:
    assert (address_of(peer), is_loopback(address)) == (address, is_here)


async def test_without_tokens_they_are_not_managed_from_elsewhere(store: Store) -> None:
    keeper = Doorkeeper(TokenCatalog(store), asks=False, limits=Limits())
    admitted = keeper.identify(tuple, ELSEWHERE)
    assert admitted.caller is ANYBODY
    keeper.check(READ, admitted, ELSEWHERE)
    keeper.check(MANAGE, admitted, HERE)
    with pytest.raises(IllegalStateError, match=r"the server asks for no tokens.*start it with --tokens"):
        keeper.check(MANAGE, admitted, ELSEWHERE)


async def test_without_tokens_addresses_are_counted(store: Store) -> None:
    keeper = Doorkeeper(TokenCatalog(store), asks=False, limits=Limits(Rate(1, 1)), clock=lambda: 0.0)
    for peer in (HERE, ELSEWHERE):
        keeper.check(READ, keeper.identify(tuple, peer), peer)
    with pytest.raises(TooManyCallsError, match=r"too many calls come from 10\.0\.0\.7; wait 1 s") as caught:
        keeper.check(READ, keeper.identify(tuple, "ipv4:10.0.0.7:1"), ELSEWHERE)
    assert caught.value.retry_after_s == 1


async def test_failures_are_counted_by_address_and_wait_for_the_clock(store: Store) -> None:
    now = [0.0]
    tokens = TokenCatalog(store)
    keeper = Doorkeeper(tokens, asks=True, limits=Limits(), clock=lambda: now[0])
    good = make(tokens)
    for _ in range(20):
        with pytest.raises(UnauthenticatedError):
            keeper.identify(tuple, ELSEWHERE)
    with pytest.raises(TooManyCallsError):
        keeper.identify(tuple, ELSEWHERE)
    assert keeper.identify(lambda: good, ELSEWHERE).caller == Caller("team", "tokens/t", frozenset(["read"]))
    with pytest.raises(UnauthenticatedError):
        keeper.identify(tuple, HERE)
    now[0] = 0.1
    with pytest.raises(UnauthenticatedError):
        keeper.identify(tuple, ELSEWHERE)


async def test_who_waits_is_woken_when_the_token_is_revoked_in_any_thread(store: Store) -> None:
    tokens = TokenCatalog(store)
    keeper = Doorkeeper(tokens, asks=True, limits=Limits())
    admitted = keeper.identify(partial(make, tokens), HERE)
    assert admitted.token is not None
    with keeper.lease(admitted.token) as lease:
        with pytest.raises(UnauthenticatedError, match="was revoked while this went on"):
            await wait(lease, lambda: tokens.revoke("tokens/t"))
        with pytest.raises(UnauthenticatedError, match="is not known here, or was revoked"):
            await wait(lease)
    assert not keeper._leases


async def test_who_waits_is_woken_when_the_token_expires(store: Store) -> None:
    tokens = TokenCatalog(store)
    keeper = Doorkeeper(tokens, asks=True, limits=Limits())
    shown = make(tokens, expire_time=datetime.now(UTC) + timedelta(seconds=0.5))
    admitted = keeper.identify(lambda: shown, HERE)
    assert admitted.token is not None
    with keeper.lease(admitted.token) as lease, pytest.raises(UnauthenticatedError):
        await wait(lease)


async def test_a_time_out_of_what_is_waited_for_stays_one(store: Store) -> None:
    tokens = TokenCatalog(store)
    keeper = Doorkeeper(tokens, asks=True, limits=Limits())
    admitted = keeper.identify(partial(make, tokens), HERE)
    assert admitted.token is not None
    with keeper.lease(admitted.token) as lease, pytest.raises(TimeoutError):
        async with lease.waiting(), asyncio.timeout(0):
            await asyncio.Event().wait()


def test_the_caller_is_known_inside_only() -> None:
    with calling(Caller("a")):
        with calling(Caller("b")):
            assert caller().tenant == "b"
        assert caller().tenant == "a"
    assert caller() is ANYBODY
