"""Which shards are computed twice to be compared, drawn by lot; known to all without a word."""

from __future__ import annotations

from collections.abc import Collection

import chainrule.engine as cr
from chainrule.server.training.plan import Plan, Tick

_STREAM = 0xA0D1
"""Sets these draws apart from those of dropout and shuffling."""


def audited_shards(plan: Plan, tick: Tick, *, suspects: Collection[int] = ()) -> frozenset[int]:
    """The shards of a tick that two results must agree on before they count: a function of seed, step and shard; and
    all shards of a tick whose results were disputed."""
    fraction = plan.config.audit_fraction
    shards = plan.occupied_shards(tick)
    if tick.number in suspects:
        return frozenset(range(shards))
    if fraction <= 0 or tick.evaluates:
        return frozenset()
    drawn = cr.random.raw_stream(plan.config.seed, tick.step, _STREAM, size=shards)
    return frozenset(shard for shard in range(shards) if int(drawn[shard]) < fraction * 2.0**64)
