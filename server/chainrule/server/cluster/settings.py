"""How Ray is told to behave: environment variables, which it reads when it is first imported."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # its fork handlers deadlock beside Ray's
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

NAMESPACE = "chainrule"
"""Ray namespace of all that the service starts."""
TOKEN = "token"
"""File in a cluster's folder whose content Ray asks of everybody who connects."""
MARK = "CHAINRULE_RAY_FOLDER"
"""Variable in the environment of every process that belongs to a cluster of ours: the folder it belongs to. Whatever a
cluster starts inherits it, so that nothing of it is overlooked when it ends."""
RECONNECT_TIMEOUT_S = 1_000_000
"""How long Ray looks for a cluster that has gone away before it ends the process: in effect, for ever."""
MIN_CPUS = 2
"""A cluster of our own offers at least this many worker places, even on a smaller machine."""


def make_token(folder: Path) -> Path:
    """A new token in a folder, which its owner alone can read."""
    token = folder / TOKEN
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    return token


def of_our_own(token: Path) -> dict[str, str]:
    """What a process needs to start a cluster with that token that listens on loopback only, or to join one."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        # On Linux too this is what makes Ray take 127.0.0.1 for its address and listen nowhere else.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def marked(folder: Path) -> dict[str, str]:
    """What a process that belongs to a cluster's folder needs to be found, and what it starts."""
    return {MARK: str(folder), "SPT_NOENV": "1"}  # else the titles of Ray's processes overwrite their environment


def without_token(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the token of some other cluster: one in a variable would win over one in a file."""
    return {name: value for name, value in environment.items() if not name.startswith("RAY_AUTH_TOKEN")}


def has_token(environment: Mapping[str, str]) -> bool:
    """Whether an environment says with which token to connect."""
    return any(name.startswith("RAY_AUTH_TOKEN") for name in environment)
