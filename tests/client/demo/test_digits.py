"""The digits that come with the package are the ones that PROVENANCE.md describes."""

import hashlib
from importlib.resources import files

import numpy as np

from chainrule.client.demo import load_digits
from chainrule.client.demo.digits import FILE, split

SHA256 = "b2dab7b501728c22e9119ad76740b2e17c77a231e42d1e592380d90886f1a05e"


def test_the_file_is_the_one_described() -> None:
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == SHA256
    provenance = files("chainrule.client.demo").joinpath("PROVENANCE.md").read_text()
    assert SHA256 in provenance
    assert "CC BY 4.0" in provenance


def test_digits_are_images_from_0_to_1_with_labels_from_0_to_9() -> None:
    inputs, targets = load_digits()
    assert inputs.shape == (1797, 1, 8, 8)
    assert inputs.dtype == np.float32
    assert targets.shape == (1797,)
    assert targets.dtype == np.int64
    assert (inputs.min(), inputs.max()) == (0.0, 1.0)
    assert np.bincount(targets).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_first_digit_is_a_zero() -> None:
    inputs, targets = load_digits()
    assert targets[0] == 0
    assert (inputs[0, 0, 2] * 16).tolist() == [0, 3, 15, 2, 0, 11, 8, 0]


def test_a_split_takes_every_example_once_and_depends_on_its_seed_alone() -> None:
    train, test = split(1797)
    assert (len(train), len(test)) == (1438, 359)
    assert sorted([*train, *test]) == list(range(1797))
    np.testing.assert_array_equal(split(1797)[1], test)
    assert not np.array_equal(split(1797, seed=1)[1], test)
