"""Memory that is freed is kept for the next step, of which a thousand take no more than fifty."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SLACK_KB = 2048
"""What the interpreter's own bookkeeping may add; a leak of one array a step would be 10,000 kB and more."""

TRAINING = """
import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.models.resnet import BasicBlock

def resident_kb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

cr.set_num_threads(1)
cr.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
    BasicBlock(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
)
optimizer = cr.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
x, y = cr.randn(4, 3, 16, 16), cr.arange(4)
for step in range(1, 1001):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    if step in (50, 1000):
        print(resident_kb())
"""  # the arrays of a step take some 200 kB: after 950 more, none may be left over


def outcome(code: str, **variables: str) -> str:
    """What a fresh process prints."""
    own = ("GLIBC_TUNABLES", "MALLOC_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)} | variables
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the system does not say how much memory is used")
def test_a_thousand_steps_take_no_more_memory_than_fifty() -> None:
    after_50, after_1000 = map(int, outcome(TRAINING).split())
    assert after_1000 <= after_50 + SLACK_KB


# ---- Who is in charge of it ----

KEEPS = "from chainrule.engine.memory import keep_freed_memory; print(keep_freed_memory())"


of_glibc = pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="the allocator is not glibc's")


@of_glibc
def test_freed_memory_is_kept() -> None:
    assert outcome(KEEPS) == "True\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=65536"),
        ("MALLOC_MMAP_MAX_", "65536"),
        ("MALLOC_MMAP_THRESHOLD_", "131072"),
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
    ],
)
def test_settings_of_the_environment_are_left_alone(name: str, value: str) -> None:
    assert outcome(KEEPS, **{name: value}) == "False\n"


def test_another_allocator_is_left_alone() -> None:
    code = f"""
import ctypes
class Other:
    def __init__(self, name):
        pass
import chainrule.engine.memory
ctypes.CDLL = Other
{KEEPS}
"""
    assert outcome(code) == "False\n"


MAPPED = """
import resource
import numpy as np
import chainrule.engine

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(3):
    np.ones(8 << 20, np.uint8)
before = faults()
for _ in range(10):
    np.ones(8 << 20, np.uint8)
print(faults() - before)
"""


@of_glibc
def test_the_memory_of_a_large_array_is_that_of_the_one_before() -> None:
    pages = 10 * (8 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert int(outcome(MAPPED)) < pages / 100
