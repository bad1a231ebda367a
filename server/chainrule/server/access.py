"""Tokens: which can be made, and who is let in with one."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock

from chainrule.server import names
from chainrule.server.annotations import MAX_DESCRIPTION_LENGTH
from chainrule.server.callers import SCOPES, AuditEntry, Token
from chainrule.server.errors import InvalidRequestError, UnauthenticatedError, Violation, echo
from chainrule.server.store import NO_REQUEST, PageRequest, Request, Store

SECRET_PREFIX = "chainrule_"
"""What secrets begin with, so that they are found where they should not be."""
SECRET_BYTES = 32
KEPT_S = 90 * 24 * 3600.0
"""How long tokens are still listed that are not good any more."""
MAX_EXPIRE_TIME = datetime(9999, 1, 1, tzinfo=UTC)

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class NewToken:
    """A token as asked for."""

    token_id: str
    tenant: str
    scopes: tuple[str, ...]
    secret_digest: str
    description: str = ""
    expire_time: datetime | None = None
    """In UTC; None: never."""
    request: Request = NO_REQUEST


def draw_secret() -> str:
    """A new secret."""
    return SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def digest_of(secret: str) -> str:
    """What is stored of a secret: its SHA-256. A secret is 256 random bits, so it needs no salt and no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


class TokenCatalog:
    """Makes, finds and revokes tokens; those methods block. `resolve` and `check` do not: all tokens that were not
    revoked are in memory.

    Args:
        clock: seconds since 1970 UTC.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._lock = Lock()
        self._by_digest = store.tokens_by_digest()
        self._good = {token.name for token in self._by_digest.values()}
        self._listeners: list[Callable[[str], None]] = []

    # --- who is let in -----------------------------------------------------------------------------------------

    def resolve(self, secret: str) -> Token:
        """The token of a secret. Raises UnauthenticatedError if there is none, or it is not good any more."""
        token = self._by_digest.get(digest_of(secret))
        if token is None:
            raise _not_good()
        self.check(token)
        return token

    def check(self, token: Token) -> None:
        """Raises UnauthenticatedError if a token is not good any more."""
        if token.name not in self._good:
            raise _not_good()
        if token.expire_time is not None and token.expire_time.timestamp() <= self._clock():
            raise UnauthenticatedError(
                f'the token "{token.name}" expired at {token.expire_time:%Y-%m-%d %H:%M:%S} UTC; ask an administrator '
                "of the server for a new one"
            )

    def left_s(self, token: Token) -> float | None:
        """For how long a token is still good; None: for ever."""
        return None if token.expire_time is None else token.expire_time.timestamp() - self._clock()

    def listen(self, listener: Callable[[str], None]) -> None:
        """Have a function called with the name of each token that is revoked, once it is, in whatever thread."""
        self._listeners.append(listener)

    # --- what administrators do --------------------------------------------------------------------------------

    def create(self, new: NewToken, *, tenant: str, validate_only: bool = False) -> Token:
        """Check and store a token; the same once more is the one that is there.

        Args:
            tenant: who asks, whose request id it is.
            validate_only: check only.

        Raises InvalidRequestError, AlreadyExistsError, also if it is one that was revoked, or NotFoundError if what the
        request has made was removed.
        """
        token = self._checked(new)
        with self._lock:
            made = self._store.create_token(
                token, new.secret_digest, tenant=tenant, request=new.request, validate_only=validate_only
            )
            if not validate_only:
                self._by_digest = {**self._by_digest, new.secret_digest: made}
                self._good.add(made.name)
        return made

    def get(self, name: str) -> Token:
        """Raises NotFoundError or InvalidRequestError."""
        return self._store.get_token(names.existing("tokens", name))

    def page(self, asked: PageRequest) -> tuple[list[Token], str]:
        """A page, newest first, and the token of the next page."""
        return self._store.list_tokens(asked)

    def revoke(self, name: str) -> Token:
        """Make a token good for nothing, at once, also for those who have shown it before. Raises NotFoundError or
        InvalidRequestError."""
        with self._lock:
            revoked = self._store.revoke_token(names.existing("tokens", name))
            self._good.discard(revoked.name)
            self._by_digest = {digest: token for digest, token in self._by_digest.items() if token.name != revoked.name}
        for listener in self._listeners:
            listener(revoked.name)
        return revoked

    def forget(self, *, older_than_s: float = KEPT_S) -> None:
        """Remove the tokens that were revoked, or expired, longer ago."""
        with self._lock:
            gone = set(self._store.drop_tokens(older_than_s=older_than_s))
            self._good -= gone
            self._by_digest = {digest: token for digest, token in self._by_digest.items() if token.name not in gone}

    def audit_page(self, asked: PageRequest) -> tuple[list[AuditEntry], str]:
        """A page of the audit log, newest first, and the token of the next page."""
        return self._store.list_audit_entries(asked)

    # --- private -----------------------------------------------------------------------------------------------

    def _checked(self, new: NewToken) -> Token:
        name = names.new_name("tokens", new.token_id, field="token_id")
        now = datetime.fromtimestamp(self._clock(), UTC)
        if wrong := _violations(new, now):
            raise InvalidRequestError(wrong)
        return Token(
            name=name,
            tenant=new.tenant,
            scopes=tuple(scope for scope in SCOPES if scope in new.scopes),
            description=new.description,
            create_time=now,
            expire_time=new.expire_time,
        )


def _violations(new: NewToken, now: datetime) -> list[Violation]:
    length = len(new.description)
    checks = (
        (
            bool(names.ID.fullmatch(new.tenant)),
            "token.tenant",
            f"is {echo(new.tenant)}; use lower-case letters, digits and hyphens, at most 63, beginning with a letter "
            "and not ending with a hyphen",
        ),
        (
            bool(new.scopes) and set(new.scopes) <= set(SCOPES),
            "token.scopes",
            f"are {echo(list(new.scopes))}; use at least one of {', '.join(SCOPES)}",
        ),
        (
            bool(_DIGEST.fullmatch(new.secret_digest)),
            "token.secret_digest",
            "is not a SHA-256: 64 lower-case hexadecimal digits; draw a secret and send its digest, never the secret",
        ),
        (
            new.expire_time is None or now < new.expire_time < MAX_EXPIRE_TIME,
            "token.expire_time",
            f"is {new.expire_time}; use a time to come, or none for ever",
        ),
        (
            length <= MAX_DESCRIPTION_LENGTH,
            "token.description",
            f"has {length:,} characters; use at most {MAX_DESCRIPTION_LENGTH:,}",
        ),
    )
    return [Violation(field, description) for is_right, field, description in checks if not is_right]


def _not_good() -> UnauthenticatedError:
    return UnauthenticatedError(
        "the token is not known here, or was revoked; ask an administrator of the server for one, and show it as "
        '"authorization: Bearer SECRET" (CHAINRULE_TOKEN, or --token-file)'
    )
