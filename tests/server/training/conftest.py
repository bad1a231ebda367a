"""Workers and partitions compute on one thread each; so do their tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import chainrule.engine as cr


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = cr.get_num_threads()
    cr.set_num_threads(1)
    yield
    cr.set_num_threads(before)
