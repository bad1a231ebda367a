"""Programs that look for an accelerator find none, and run on the CPU."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import chainrule.engine as cr


def test_programs_that_choose_a_device_choose_the_cpu() -> None:
    assert (
        cr.device("cuda" if cr.cuda.is_available() else "mps" if cr.backends.mps.is_available() else "cpu").type
        == "cpu"
    )
    assert not cr.accelerator.is_available()
    assert cr.accelerator.current_accelerator() is None
    assert cr.cuda.device_count() == cr.accelerator.device_count() == 0
    assert not cr.backends.cudnn.is_available()
    assert not cr.backends.mps.is_built()


def test_seeding_other_devices_leaves_the_cpus_draws_as_they_are() -> None:
    cr.manual_seed(3)
    before = cr.get_rng_state()
    cr.cuda.manual_seed(1)
    cr.cuda.manual_seed_all(2)
    cr.cuda.empty_cache()
    assert cr.get_rng_state() == before


@pytest.mark.torch
def test_settings_of_cudnn_begin_as_pytorchs(torch: Any) -> None:
    cudnn = importlib.import_module("chainrule.engine.backends.cudnn")
    assert cudnn is cr.backends.cudnn
    for name in ("benchmark", "deterministic", "enabled"):
        assert getattr(cudnn, name) == getattr(torch.backends.cudnn, name)
