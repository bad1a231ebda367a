"""What importing the engine takes beyond numpy's own import, in fresh processes: `python benchmarks/import_time.py`.

Compiled modules are kept in a folder of this run's own: the first import, which compiles them, does not count.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

RUNS = 15
SCRIPT = """
import time
start = time.perf_counter()
import numpy
middle = time.perf_counter()
import chainrule.engine
print(middle - start, time.perf_counter() - middle)
"""


def main() -> None:
    """Prints the medians and the ratio."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache
        runs = [measure(environment) for _ in range(RUNS + 1)][1:]
    numpy, engine = (statistics.median(run[part] for run in runs) for part in (0, 1))
    print(f"numpy {numpy:.3f} s, the engine beyond it {engine:.3f} s (medians of {RUNS}), ratio {engine / numpy:.2f}")


def measure(environment: dict[str, str]) -> tuple[float, ...]:
    """Seconds for numpy, and for the engine after it."""
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, check=True)
    return tuple(map(float, run.stdout.split()))


if __name__ == "__main__":
    main()
