"""`python -m tests.chaos`: jobs under random schedules of kills, until there were enough of both kills and time."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import random
import signal
import sys
import time

from tests.chaos.schedule import make_round, play


def main() -> int:
    """Play rounds; 1 if one came to other bits than without faults."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the schedules; without, one is drawn")
    parser.add_argument("--duration", type=float, default=0.0, help="seconds to go on for at least")
    parser.add_argument("--kills", type=int, default=50, help="kills to go on for at least")
    parser.add_argument("--round", type=int, help="play this round of the seed only")
    parser.add_argument("--show", action="store_true", help="print the schedules")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # each loss is one
    faulthandler.register(signal.SIGUSR1)  # to see where it stands
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    print(f"seed {seed}; to play it again: python -m tests.chaos --seed {seed}", flush=True)
    began_s = time.monotonic()
    number = first = arguments.round or 0
    kills = 0
    while number == first or (
        arguments.round is None and (kills < arguments.kills or time.monotonic() - began_s < arguments.duration)
    ):
        of = make_round(seed, number)
        if arguments.show:
            print(of, flush=True)
        try:
            tally = asyncio.run(play(of))
        except (AssertionError, TimeoutError) as error:
            print(f"round {number} failed: {type(error).__name__}: {error}\n{of}", file=sys.stderr)
            print(f"to play it again: python -m tests.chaos --seed {seed} --round {number}", file=sys.stderr)
            return 1
        kills += tally.kills
        now_s = time.monotonic() - began_s
        print(f"round {number}: {of.model}, {len(tally.done)} actions; {kills} kills in {now_s:.0f} s", flush=True)
        number += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
