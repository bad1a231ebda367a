"""`utils.data`: the place where PyTorch's programs look for datasets."""

from __future__ import annotations

import importlib

import chainrule.engine as cr


def test_datasets_and_loaders_are_found_where_pytorch_has_them() -> None:
    module = importlib.import_module("chainrule.engine.utils.data")
    assert module is cr.utils.data
    assert module.__all__ == cr.data.__all__
    assert all(getattr(module, name) is getattr(cr.data, name) for name in module.__all__)
