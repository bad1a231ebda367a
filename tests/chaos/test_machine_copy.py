"""The worker that keeps its machine's copy of the weights is killed: the others read another's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tests.chaos.jobs import SLOW, assert_same_bits, cnn, disturbed
from tests.server.training.runs import Run

COPY = re.compile(r" (\d+) +/memfd:chainrule weights of another machine")


async def test_a_killed_keeper_of_the_copy_of_weights_that_came_over_tls_changes_no_bits(tmp_path: Path) -> None:
    job = cnn(epochs=4)
    copies: list[set[str]] = []
    keepers: list[int] = []

    async def kill_the_keeper(found: Run) -> None:
        await found.until_step(6)
        copies.append(copies_of(pids(found)))
        [keeper] = [lease for lease, process in found.placement.workers.items() if keeps(process.pid or 0)]
        keepers.append(keeper)
        found.placement.workers[keeper].kill()
        await found.until(lambda: bool(found.incidents_of("recovery")))
        await found.until_workers(3)
        await found.until_step(max(found.steps) + 2)
        copies.append(copies_of(pids(found)))
        keepers.extend(lease for lease, process in found.placement.workers.items() if keeps(process.pid or 0))

    found = await disturbed(job, tmp_path, SLOW, workers=3, meddle=kill_the_keeper, links="tls")
    await assert_same_bits(found, job)
    before, after = copies
    assert (len(before), len(after)) == (1, 1)
    assert before.isdisjoint(after)
    first, second = keepers
    assert first != second


def pids(found: Run) -> list[int]:
    return [process.pid or 0 for process in found.placement.workers.values()]


def copies_of(processes: Iterable[int]) -> set[str]:
    """The pieces of shared memory with weights that all of these have."""
    return set.intersection(*(set(COPY.findall(Path(f"/proc/{pid}/maps").read_text())) for pid in processes))


def keeps(pid: int) -> bool:
    """Whether a process listens for others that want its copy."""
    sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    listening = {fields[6] for fields in sockets if fields[3] == "00010000" and "@chainrule/copy/" in fields[-1]}
    held = {path.readlink().name for path in Path(f"/proc/{pid}/fd").iterdir()}
    return bool(held & {f"socket:[{inode}]" for inode in listening})
