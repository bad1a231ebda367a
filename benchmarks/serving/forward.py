"""The forward pass of a small network by itself, in a process of its own: `python -m benchmarks.serving.forward`.

It reads a number of passes from its standard input, a line each, and writes the median time of one in ms.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

import numpy as np

import chainrule.engine as cr
from benchmarks.single.host import ROOT, environment
from chainrule.engine import models

WARM_UP = 50


def example() -> np.ndarray:
    """One 8×8 image."""
    return np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)


class Forward:
    """The process, on one thread, as a predictor has; a context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving.forward"],
            cwd=ROOT,
            env=environment(1),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def median_ms(self, passes: int) -> float:
        """Of so many forward passes of one example."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(passes, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


def main() -> None:
    """What runs in the process."""
    cr.set_num_threads(1)
    module = models.build("small_cnn", generator=cr.Generator(0)).eval()
    module.requires_grad_(False)
    x = example()

    def once_s() -> float:
        began_s = time.perf_counter()
        with cr.no_grad():
            module(cr.from_numpy(x)).numpy()
        return time.perf_counter() - began_s

    for _ in range(WARM_UP):
        once_s()
    for line in sys.stdin:
        print(1e3 * statistics.median(once_s() for _ in range(int(line))), flush=True)


if __name__ == "__main__":
    main()
