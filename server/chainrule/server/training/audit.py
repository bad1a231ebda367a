"""Which shards are computed twice to be compared, drawn by lot; known to all without a word."""

from __future__ import annotations

import chainrule.engine as cr
from chainrule.server.training.plan import Plan, Tick

_STREAM = 0xA0D1
"""Sets these draws apart from those of dropout and shuffling."""


def audited_shards(plan: Plan, tick: Tick) -> frozenset[int]:
    """The shards of a tick that two results must agree on before they count: a function of seed, step and shard."""
    fraction = plan.config.audit_fraction
    if fraction <= 0 or tick.evaluates:
        return frozenset()
    shards = plan.occupied_shards(tick)
    drawn = cr.random.raw_stream(plan.config.seed, tick.step, _STREAM, size=shards)
    return frozenset(shard for shard in range(shards) if int(drawn[shard]) < fraction * 2.0**64)
