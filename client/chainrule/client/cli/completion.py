"""Completion of names in a shell: the server is asked, for a moment; where it does not answer there is nothing."""

import logging
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import typer

from chainrule.client.cli.connecting import VARIABLES

if TYPE_CHECKING:
    from chainrule.client.client import Client

TIMEOUT_S = 1.0
MOST = 100


def complete_job(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of jobs, newest first."""
    return _matching(ctx, incomplete, "jobs", lambda client: (job.name for job in client.jobs.list(limit=MOST)))


def complete_model(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of models, newest first."""
    return _matching(ctx, incomplete, "models", lambda client: (model.name for model in client.models.list(limit=MOST)))


def complete_dataset(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of datasets, newest first."""
    return _matching(
        ctx, incomplete, "datasets", lambda client: (dataset.name for dataset in client.datasets.list(limit=MOST))
    )


def complete_weights(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of what has weights: jobs, and models once "models/" stands there."""
    return (complete_model if incomplete.startswith("m") else complete_job)(ctx, incomplete)


def _matching(
    ctx: typer.Context, incomplete: str, collection: str, names: "Callable[[Client], Iterable[str]]"
) -> list[str]:
    """The names that begin so; without their collection where it is not being written."""
    known = _asked(ctx, names)
    short = (name.removeprefix(f"{collection}/") for name in known)
    return [name for name in known if name.startswith(incomplete)] or [n for n in short if n.startswith(incomplete)]


def _asked(ctx: typer.Context, names: "Callable[[Client], Iterable[str]]") -> list[str]:
    from chainrule.client.client import Client
    from chainrule.client.credentials import read_token
    from chainrule.client.encryption import Tls
    from chainrule.client.retry import RetryPolicy
    from chainrule.client.transport import Settings
    from chainrule.engine import ChainruleError

    logging.getLogger("chainrule.client").addHandler(logging.NullHandler())  # a warning would stand in the line
    settings = Settings(call_timeout_s=TIMEOUT_S, retry=RetryPolicy(window_s=0.0))
    ca, cert, key = (_given(ctx, name) for name in ("tls_ca", "tls_cert", "tls_key"))
    tls = Tls(ca=ca, cert=cert, key=key) if ca or cert or key else None
    address, file = _given(ctx, "address"), _given(ctx, "token_file")
    try:
        token = None if file is None else read_token(file)
        with Client.connect(address, timeout_s=TIMEOUT_S, settings=settings, tls=tls, token=token) as client:
            return list(names(client))
    except ChainruleError:  # a shell that completes has no place for it
        return []


def _given(ctx: typer.Context, option: str) -> Any:
    """An option that stands in the line so far, of the command or before it; else what the environment has for it."""
    here: Any = ctx
    while here is not None:
        if here.params.get(option) is not None:
            return here.params[option]
        here = here.parent
    return os.environ.get(VARIABLES[option]) or None if option in VARIABLES else None
