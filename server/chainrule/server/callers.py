"""Who calls, what lets them in, and the record of what they asked: values that the store and the service share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

SCOPES = ("read", "submit", "admin")
"""What a caller may do, each including those before it."""


@dataclass(frozen=True)
class Token:
    """What lets a caller in. The digest of its secret stays in the store."""

    name: str
    """Resource name: tokens/{token}."""
    tenant: str
    """Whose models, datasets, jobs and blobs it opens."""
    scopes: tuple[str, ...]
    """What it allows, as of SCOPES, in their order."""
    description: str
    """What it is for."""
    create_time: datetime
    """When it was made, in UTC."""
    expire_time: datetime | None = None
    """Until when it is good; None: for ever."""
    revoke_time: datetime | None = None
    """When it was revoked; None: it was not."""


@dataclass(frozen=True)
class AuditEntry:
    """Something that was asked of the service."""

    token: str
    """Resource name of the token that was shown; empty: none, or one that is not known."""
    tenant: str
    """Its tenant; empty: none."""
    peer: str
    """Address of the caller, as gRPC gives it."""
    method: str
    """What was asked, for example "chainrule.v1.JobService/CreateJob"."""
    resource: str
    """Resource name of what it was asked of, or of what came of it; may be empty."""
    code: str
    """Name of the gRPC code of the answer."""
    sequence: int = 0
    """Position in the record, from 1; 0 until it is stored."""
    time: datetime | None = None
    """When, in UTC; None until it is stored."""
