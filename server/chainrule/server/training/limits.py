"""What the processes of a job may use of the system."""

from __future__ import annotations

import resource

DESCRIPTORS = 65_536
"""Enough for a partition: every piece of shared memory that is mapped keeps a descriptor, one for each slot of each
worker."""


def allow_descriptors() -> None:
    """Let this process have as many descriptors as the system allows it, up to DESCRIPTORS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
