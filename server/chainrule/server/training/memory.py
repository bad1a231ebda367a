"""Memory that processes of one machine share: the weights of a partition, and what a worker sends it.

The memory is anonymous (`memfd_create`): its descriptor is handed over a socket, and it is gone when the last process
that has it ends, however that ends. So nothing has to be unlinked or swept, and the size of /dev/shm is no limit.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chainrule.engine import ChainruleError
from chainrule.server.training.layout import PartitionLayout, Place, views
from chainrule.server.training.plan import AVERAGED
from chainrule.server.training.state import Array, Arrays

HEADER_BYTES = 64
"""Of the weights' memory: the version of each moving region; of a slot's: the tick it is of."""
WRITING = -1
"""Version of a region that is being written."""
IN_PLACE = -2
"""Version of a region that holds the weights of every step, written while they are read."""
EMPTY = -3
"""Version of the regions of a copy on another machine that has nothing yet, not even what never changes."""


class SharedMemoryError(ChainruleError):
    """There is no memory to share, or not enough of it."""


class Segment:
    """A piece of shared memory."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self._map = mmap.mmap(descriptor, size)
        self.memory = memoryview(self._map)

    @classmethod
    def make(cls, name: str, size: int) -> Segment:
        """A new segment of zeros; the name shows in /proc. Raises SharedMemoryError if there is not so much memory."""
        size = max(size, 1)
        if size > (available := available_bytes()):  # the system would not refuse it, but end processes
            raise SharedMemoryError(f"cannot share {size:,} bytes of memory for {name}: {available:,} are available")
        descriptor = _anonymous(name)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, size)  # now, instead of a bus error when it is first written to
            else:
                os.ftruncate(descriptor, size)
            return cls(descriptor, size)
        except OSError as error:
            os.close(descriptor)
            raise SharedMemoryError(f"cannot share {size:,} bytes of memory for {name}: {error}") from error

    @classmethod
    def of(cls, descriptor: int) -> Segment:
        """The segment behind a descriptor that came over a socket."""
        return cls(descriptor, os.fstat(descriptor).st_size)

    def close(self) -> None:
        """Give up its descriptor; the memory stays as long as arrays in it do."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Slot:
    """What a worker sends for a block: a header with the tick it is of, and the push region.

    A worker uses it again once it has gone on to another tick. Where it was not waited for, that may be while what it
    has sent is still being read: whoever reads looks at the header afterwards.
    """

    def __init__(self, segment: Segment, layout: PartitionLayout) -> None:
        self.segment = segment
        self.tick: NDArray[np.int64] = np.frombuffer(segment.memory, np.int64, 1)
        self.memory = segment.memory[HEADER_BYTES : HEADER_BYTES + layout.push_bytes]

    @classmethod
    def make(cls, name: str, layout: PartitionLayout) -> Slot:
        """Raises SharedMemoryError."""
        return cls(Segment.make(name, HEADER_BYTES + layout.push_bytes), layout)

    @classmethod
    def of(cls, descriptor: int, layout: PartitionLayout) -> Slot:
        """The slot behind a descriptor that came over a socket."""
        return cls(Segment.of(descriptor), layout)

    def begin(self, tick: int) -> None:
        """Use it for a block of a tick."""
        self.tick[0] = tick

    def close(self) -> None:
        """Give up its descriptor."""
        self.segment.close()


class Weights:
    """The weights of a partition in shared memory: a header, the moving regions, and the constant one.

    The weights of step s lie in region s mod 2. They are overwritten by those of step s + 2, that is when step s + 1 is
    complete; the header's versions tell a reader who was slower than that. The average of the weights, if there is one,
    has a third region. Its version says it is complete only while it is evaluated.
    """

    def __init__(self, segment: Segment, layout: PartitionLayout) -> None:
        self.segment = segment
        self.versions: NDArray[np.int64] = np.frombuffer(segment.memory, np.int64, layout.num_moving)
        stride = -(-layout.moving_bytes // HEADER_BYTES) * HEADER_BYTES
        starts = [HEADER_BYTES + number * stride for number in range(layout.num_moving)]
        self.regions = [segment.memory[start : start + layout.moving_bytes] for start in starts]
        self.moving: list[Arrays] = [views(layout.moving, region) for region in self.regions]
        self.constants: Arrays = views(layout.constants, segment.memory[starts[-1] + stride :])

    @staticmethod
    def size(layout: PartitionLayout) -> int:
        """Bytes that the weights of a partition take."""
        stride = -(-layout.moving_bytes // HEADER_BYTES) * HEADER_BYTES
        return HEADER_BYTES + layout.num_moving * stride + layout.constant_bytes

    def region(self, version: int) -> int:
        """Number of the region of a version: that of a step, or the average of one."""
        if version >= AVERAGED:
            return 2
        return 0 if self.versions[0] == IN_PLACE else version % 2

    def holds(self, version: int) -> bool:
        """Whether the weights of a version are there, whole."""
        return int(self.versions[self.region(version)]) in (version, IN_PLACE)

    def arrays(self, version: int) -> Arrays:
        """The arrays of a version by name."""
        return self.moving[self.region(version)]

    def flat(self, version: int, place: Place) -> Array:
        """A flat array of the region of a version."""
        return place.view(self.regions[self.region(version)])


def available_bytes() -> int:
    """Memory that the system can still give out, where it says so."""
    try:
        facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    except OSError:  # another system than Linux
        return sys.maxsize
    return int(facts["MemAvailable"].split()[0]) * 1024


def _anonymous(name: str) -> int:
    """A descriptor of memory without a name in any folder; on systems without such, of a file that is unlinked."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name[:200])
    descriptor, path = tempfile.mkstemp()
    os.unlink(path)
    return descriptor
