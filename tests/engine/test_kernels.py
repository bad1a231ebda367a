"""The choice of kernels, their report, and their threads."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.kernels import onednn, reference
from chainrule.engine.kernels.geometry import ConvGeometry, PoolGeometry


def has_onednn() -> bool:
    try:
        onednn.load()
    except onednn.LibraryError:
        return False
    return True


def run(kernels: str, **variables: str) -> subprocess.CompletedProcess[str]:
    code = "import chainrule.engine as cr; print(cr.kernels.info().name)"
    environment = {**os.environ, "CHAINRULE_KERNELS": kernels, **variables}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


ONEDNN = has_onednn()
NAME = os.environ.get("CHAINRULE_KERNELS") or ("onednn" if ONEDNN else "reference")


def test_info_reports_what_computes() -> None:
    info = cr.kernels.info()
    assert (info.name, info.numpy) == (NAME, np.__version__)
    version = f" {info.onednn} ({info.isa})" if NAME == "onednn" else ""
    assert str(info).startswith(f"{NAME}{version} kernels: numpy {np.__version__}, ")


def test_the_environment_chooses_the_kernels() -> None:
    assert run("reference").stdout == "reference\n"
    assert run("").stdout == ("onednn\n" if ONEDNN else "reference\n")


def test_kernels_that_there_are_not_are_refused() -> None:
    assert "CHAINRULE_KERNELS='cuda': there are no such kernels" in run("cuda").stderr


def test_without_the_library_numpy_computes_unless_onednn_is_asked_for() -> None:
    assert run("", CHAINRULE_ONEDNN="libabsent.so.3").stdout == "reference\n"
    refused = run("onednn", CHAINRULE_ONEDNN="libabsent.so.3").stderr
    assert "CHAINRULE_KERNELS='onednn': libabsent.so.3 cannot be loaded" in refused
    assert "install onednn-cpu-gomp or oneDNN 3, or unset it" in refused


def test_the_number_of_threads_persists() -> None:
    before = cr.get_num_threads()
    try:
        cr.set_num_threads(1)
        assert cr.get_num_threads() == 1
        assert str(cr.kernels.info()).endswith(", 1 thread")
    finally:
        cr.set_num_threads(before)
    with pytest.raises(cr.ConfigError, match="num_threads=0: set_num_threads expects a positive integer"):
        cr.set_num_threads(0)


def test_convolution_is_the_sum_it_says() -> None:
    draws = np.random.default_rng(0)
    x, w = draws.standard_normal((2, 4, 6, 5)), draws.standard_normal((6, 2, 3, 2))
    stride, padding, dilation, groups = geometry = ConvGeometry((2, 1), (1, 2), (1, 2), 2)
    y = reference.conv2d(x, w, None, geometry)
    padded = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    for o in range(6):
        channels = slice(o // 3 * 2, o // 3 * 2 + 2)
        for i in range(y.shape[2]):
            for j in range(y.shape[3]):
                top, left = i * stride[0], j * stride[1]
                window = padded[:, channels, top : top + 3, left : left + 2 * dilation[1] : dilation[1]]
                np.testing.assert_allclose(y[:, o, i, j], np.sum(window * w[o], axis=(1, 2, 3)))
    assert groups == 2


def test_convolution_leaves_memory_channels_last() -> None:
    y = reference.conv2d(np.ones((2, 3, 4, 4)), np.ones((5, 3, 1, 1)), None, ConvGeometry())
    assert y.shape == (2, 5, 4, 4)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous


def test_equal_elements_give_the_gradient_to_the_first() -> None:
    geometry = PoolGeometry((2, 2), (2, 2))
    _, offsets = reference.max_pool2d(np.ones((1, 1, 2, 2)), geometry)
    assert offsets.item() == 0


def test_nan_is_the_largest() -> None:
    y, _ = reference.max_pool2d(np.array([[[[1.0, np.nan], [3.0, 4.0]]]]), PoolGeometry((2, 2), (2, 2)))
    assert np.isnan(y).all()


def test_moments_keep_their_digits_far_from_zero() -> None:
    x = (np.random.default_rng(0).standard_normal((64, 1, 32, 32)) + 1000).astype(np.float32)
    mean, variance = reference.batch_moments(x)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(), rtol=1e-12)
    np.testing.assert_allclose(variance, x.astype(np.float64).var(), rtol=1e-7)
