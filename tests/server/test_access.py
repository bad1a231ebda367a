"""Which tokens can be made, and who is let in with one; on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chainrule.server.access import NewToken, TokenCatalog, digest_of, draw_secret
from chainrule.server.callers import AuditEntry
from chainrule.server.errors import AlreadyExistsError, InvalidRequestError, NotFoundError, UnauthenticatedError
from chainrule.server.store import NO_REQUEST, PageRequest, Request, Store
from tests.server.conftest import refusal

SECRET = draw_secret()
NEW = NewToken("ci", "team", ("submit", "read"), digest_of(SECRET), description="builds")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    now_s = NOW.timestamp()

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stored(url: str, clock: Clock) -> Iterator[Store]:
    store = Store(url, clock=clock)
    yield store
    store.close()


@pytest.fixture
def tokens(stored: Store, clock: Clock) -> TokenCatalog:
    return TokenCatalog(stored, clock=clock)


def test_a_token_lets_in_who_has_its_secret(tokens: TokenCatalog, stored: Store) -> None:
    made = tokens.create(NEW, tenant="default")
    assert (made.name, made.tenant, made.scopes, made.description) == (
        "tokens/ci",
        "team",
        ("read", "submit"),
        "builds",
    )
    assert made.create_time == NOW
    assert tokens.resolve(SECRET) == made == tokens.get("tokens/ci")
    assert stored.tokens_by_digest() == {NEW.secret_digest: made}
    with pytest.raises(UnauthenticatedError):
        tokens.resolve(NEW.secret_digest)


def test_tokens_survive_a_restart_and_so_does_their_revocation(tokens: TokenCatalog, stored: Store) -> None:
    tokens.create(NEW, tenant="default")
    assert TokenCatalog(stored).resolve(SECRET).name == "tokens/ci"
    tokens.revoke("tokens/ci")
    with pytest.raises(UnauthenticatedError):
        TokenCatalog(stored).resolve(SECRET)


def test_revoking_counts_at_once_and_is_told(tokens: TokenCatalog, clock: Clock) -> None:
    told: list[str] = []
    tokens.listen(told.append)
    made = tokens.create(NEW, tenant="default")
    clock.now_s += 1
    revoked = tokens.revoke("tokens/ci")
    clock.now_s += 1
    assert tokens.revoke("tokens/ci") == revoked == replace(made, revoke_time=NOW + timedelta(seconds=1))
    assert told == ["tokens/ci", "tokens/ci"]
    for check in (lambda: tokens.check(made), lambda: tokens.resolve(SECRET)):
        with pytest.raises(UnauthenticatedError, match="is not known here, or was revoked"):
            check()
    with pytest.raises(AlreadyExistsError, match='"tokens/ci" was revoked; choose another token_id'):
        tokens.create(NEW, tenant="default")  # it does not come back
    with pytest.raises(UnauthenticatedError):
        tokens.resolve(SECRET)


def test_a_token_is_good_until_it_expires(tokens: TokenCatalog, clock: Clock) -> None:
    made = tokens.create(replace(NEW, expire_time=NOW + timedelta(seconds=10)), tenant="default")
    assert tokens.left_s(made) == 10
    clock.now_s += 9.9
    assert tokens.resolve(SECRET) == made
    clock.now_s += 0.1
    with pytest.raises(UnauthenticatedError, match='"tokens/ci" expired at 2026-01-01 00:00:10 UTC; ask an admin'):
        tokens.resolve(SECRET)


def asked(new: NewToken, request_id: str) -> NewToken:
    """The token with the id of the call that asks for it."""
    return replace(new, request=Request.of(request_id, content=repr(replace(new, request=NO_REQUEST))))


@pytest.mark.parametrize("request_id", ["", "r"])
def test_the_same_once_more_is_the_one_that_is_there(tokens: TokenCatalog, request_id: str) -> None:
    new = asked(NEW, request_id)
    assert tokens.create(new, tenant="default") == tokens.create(new, tenant="default")
    assert len(tokens.page(PageRequest(10))[0]) == 1


@pytest.mark.parametrize(
    "other",
    [
        replace(NEW, tenant="other"),
        replace(NEW, scopes=("admin",)),
        replace(NEW, secret_digest="0" * 64),
        replace(NEW, description="x"),
        replace(NEW, expire_time=NOW + timedelta(days=1)),
        replace(NEW, token_id="other"),
    ],
)
def test_another_one_of_the_name_the_secret_or_the_request_is_refused(tokens: TokenCatalog, other: NewToken) -> None:
    made = tokens.create(asked(NEW, "r"), tenant="default")
    for validate_only in (True, False):
        with pytest.raises(AlreadyExistsError):
            tokens.create(other, tenant="default", validate_only=validate_only)
    with pytest.raises(AlreadyExistsError, match='request_id "r" has already made "tokens/ci" from another payload'):
        tokens.create(asked(other, "r"), tenant="default")
    assert tokens.page(PageRequest(10)) == ([made], "")


def test_a_token_that_is_checked_only_is_not_made(tokens: TokenCatalog) -> None:
    assert tokens.create(NEW, tenant="default", validate_only=True).name == "tokens/ci"
    with pytest.raises(NotFoundError):
        tokens.get("tokens/ci")
    with pytest.raises(UnauthenticatedError):
        tokens.resolve(SECRET)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"token_id": "CI"}, "token_id"),
        ({"tenant": "../x"}, "token.tenant"),
        ({"tenant": ""}, "token.tenant"),
        ({"tenant": "a" * 64}, "token.tenant"),
        ({"scopes": ()}, "token.scopes"),
        ({"scopes": ("read", "write")}, "token.scopes"),
        ({"secret_digest": SECRET}, "token.secret_digest"),
        ({"secret_digest": "A" * 64}, "token.secret_digest"),
        ({"expire_time": NOW}, "token.expire_time"),
        ({"expire_time": datetime(9999, 12, 31, tzinfo=UTC)}, "token.expire_time"),
        ({"description": "x" * 1001}, "token.description"),
    ],
)
def test_what_is_wrong_is_named(tokens: TokenCatalog, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        tokens.create(replace(NEW, **changes), tenant="default")
    assert refusal(caught).field == field
    assert SECRET not in str(caught.value)


def test_tokens_are_listed_in_pages_newest_first(tokens: TokenCatalog) -> None:
    for name in ("a", "b", "c"):
        tokens.create(NewToken(name, "t", ("read",), digest_of(name)), tenant="default")
    first, after = tokens.page(PageRequest(2))
    rest, end = tokens.page(PageRequest(2, after))
    assert [token.name for token in (*first, *rest)] == ["tokens/c", "tokens/b", "tokens/a"]
    assert end == ""


def test_the_audit_log_is_kept_for_a_while(tokens: TokenCatalog, stored: Store, clock: Clock) -> None:
    entry = AuditEntry("tokens/ci", "team", "ipv4:127.0.0.1:1", "chainrule.v1.JobService/CreateJob", "jobs/x", "OK")
    for _ in range(3):
        clock.now_s += 10
        stored.add_audit_entry(entry)
    first, after = tokens.audit_page(PageRequest(2))
    assert first == [
        replace(entry, sequence=3, time=NOW + timedelta(seconds=30)),
        replace(entry, sequence=2, time=NOW + timedelta(seconds=20)),
    ]
    assert [found.sequence for found in tokens.audit_page(PageRequest(2, after))[0]] == [1]
    assert stored.drop_audit_entries(older_than_s=15, most=10) == 1
    assert [found.sequence for found in tokens.audit_page(PageRequest(10))[0]] == [3, 2]


def test_the_audit_log_has_an_end_and_refusals_do_not_drive_out_what_was_done(stored: Store) -> None:
    entry = AuditEntry("", "", "ipv4:127.0.0.1:1", "chainrule.v1.JobService/CreateJob", "jobs/x", "OK")
    for code in ("OK", "OK", *("UNAUTHENTICATED",) * 3, "OK", "PERMISSION_DENIED"):
        stored.add_audit_entry(replace(entry, code=code))
    assert stored.drop_audit_entries(older_than_s=60, most=7) == 0
    assert stored.drop_audit_entries(older_than_s=60, most=3) == 1
    found = [found.sequence for found in stored.list_audit_entries(PageRequest(10))[0]]
    assert found == [7, 6, 5, 4, 2, 1]


def test_tokens_that_are_not_good_any_more_are_forgotten_after_a_while(
    tokens: TokenCatalog, stored: Store, clock: Clock
) -> None:
    lasting = tokens.create(NEW, tenant="default")
    tokens.create(replace(NEW, token_id="revoked", secret_digest="1" * 64), tenant="default")
    ends = NOW + timedelta(seconds=10)
    tokens.create(replace(NEW, token_id="expired", secret_digest=digest_of("x"), expire_time=ends), tenant="default")
    clock.now_s += 10
    tokens.revoke("tokens/revoked")
    tokens.forget()
    assert len(tokens.page(PageRequest(10))[0]) == 3
    clock.now_s += 90 * 24 * 3600 + 1
    tokens.forget()
    assert tokens.page(PageRequest(10))[0] == [lasting]
    assert tokens.resolve(SECRET) == lasting
    with pytest.raises(UnauthenticatedError, match="is not known here"):  # it is not in memory either
        tokens.resolve("x")
