"""A fingerprint tells apart what computes other bits, and nothing else."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.server.training.fingerprint import differences, fingerprint, from_json, to_json

ONEDNN = cr.kernels.info().name == "onednn"
SETTINGS = ("CHAINRULE_KERNELS", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES")
SIMD = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the settings name instruction sets of x86-64")

CODE = """
import sys
import chainrule.engine as cr
from chainrule.server.training.fingerprint import fingerprint, to_json
cr.set_num_threads(int(sys.argv[1]))
print(to_json(fingerprint()))
print("ray" in sys.modules)
"""


@cache
def elsewhere(num_threads: int = 1, **settings: str) -> dict[str, str]:
    """The fingerprint of another process, with these settings of the environment and none of the others."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(num_threads)],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, **settings},
    )
    assert done.returncode == 0, done.stderr
    found, has_ray = done.stdout.splitlines()
    assert has_ray == "False"
    return from_json(found)


def names(lines: list[str]) -> list[str]:
    return [line.split(":")[0] for line in lines]


def test_it_says_what_there_is() -> None:
    found, info = fingerprint(), cr.kernels.info()
    assert found["kernels"].split()[0] == info.name
    assert found["numpy"].split()[0] == np.__version__
    assert (found["blas"], found["threads"]) == (info.blas, str(info.num_threads))
    assert found["byte_order"] == sys.byteorder
    assert all(found.values())


def test_the_same_process_has_one_fingerprint() -> None:
    assert fingerprint() == fingerprint()


def test_two_processes_with_the_same_settings_have_the_same() -> None:
    assert differences(elsewhere(CHAINRULE_KERNELS="reference"), elsewhere(1, CHAINRULE_KERNELS="reference")) == []
    unset = {name: value for name, value in elsewhere().items() if name != "threads"}
    again = {name: value for name, value in elsewhere(1, CHAINRULE_KERNELS="").items() if name != "threads"}
    assert unset == again


def test_the_number_of_threads_is_part_of_it() -> None:
    assert "threads: 1 here, 2 there" in differences(elsewhere(1), elsewhere(2))


@pytest.mark.skipif(not ONEDNN, reason="there is one kind of kernels here")
def test_the_kernels_are_part_of_it() -> None:
    usual, reference = elsewhere(), elsewhere(CHAINRULE_KERNELS="reference")
    assert reference["kernels"] == "reference"
    assert names(differences(usual, reference)) == ["kernels", "probe"]


@on_x86
@pytest.mark.skipif(not ONEDNN, reason="there is no oneDNN here")
def test_the_instruction_set_of_onednn_is_seen() -> None:
    usual, least = elsewhere(), elsewhere(ONEDNN_MAX_CPU_ISA="SSE41")
    assert least["kernels"].endswith(" sse41")
    assert names(differences(usual, least))[0] == "kernels"


@on_x86
def test_the_core_type_of_blas_is_seen() -> None:
    one, other = elsewhere(OPENBLAS_CORETYPE="Nehalem"), elsewhere(OPENBLAS_CORETYPE="Haswell")
    if "openblas" not in one["blas"]:
        pytest.skip("numpy has another BLAS here")
    assert ("(Nehalem)" in one["blas"], "(Haswell)" in other["blas"]) == (True, True)
    assert names(differences(one, other)) == ["blas", "probe"]


@pytest.mark.skipif(not SIMD, reason="numpy has no instructions to choose from here")
def test_the_instructions_of_numpy_are_seen() -> None:
    usual, without = elsewhere(), elsewhere(NPY_DISABLE_CPU_FEATURES=" ".join(SIMD))
    assert names(differences(usual, without))[0] == "numpy"
    assert set(SIMD).isdisjoint(without["numpy"].split())


def test_differences_are_told_in_words() -> None:
    mine = {"kernels": "onednn 3.2.0 avx512_core", "threads": "1", "caches": "32K"}
    assert differences(mine, mine) == []
    assert differences(mine, {"kernels": "reference", "threads": "1", "probe": "ab"}) == [
        "kernels: onednn 3.2.0 avx512_core here, reference there",
        "caches: 32K here, unknown there",
        "probe: unknown here, ab there",
    ]


def test_it_goes_through_json_unchanged() -> None:
    found = fingerprint()
    assert from_json(to_json(found)) == found
    assert to_json(dict(reversed(found.items()))) == to_json(found)


@pytest.mark.parametrize("text", ["", "[]", '"onednn"', json.dumps({"threads": 1})])
def test_json_of_something_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting value|a fingerprint is a JSON object of strings, not "):
        from_json(text)
