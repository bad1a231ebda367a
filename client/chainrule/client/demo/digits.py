"""The 1,797 handwritten digits that come with the package; PROVENANCE.md says where they are from."""

from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import NDArray

FILE: Final = files("chainrule.client.demo") / "digits.npz"
MAX_INTENSITY: Final = 16  # each pixel counts the inked ones of a 4×4 block


def load_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The digits as (inputs, targets).

    Returns:
        inputs: (1797, 1, 8, 8) float32, from 0 (blank) to 1 (inked).
        targets: (1797,) int64, the digit each of them shows.
    """
    with FILE.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        images, labels = archive["images"], archive["labels"]
    inputs = images[:, np.newaxis].astype(np.float32) / np.float32(MAX_INTENSITY)
    return inputs, labels.astype(np.int64)


def split(num_examples: int, *, held_out: float = 0.2, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices to train on and indices to test on, drawn by `seed` alone.

    Args:
        num_examples: how many there are.
        held_out: share of them to test on, from 0 to 1.
    """
    order = np.random.default_rng(seed).permutation(num_examples)
    num_held_out = round(num_examples * held_out)
    return np.sort(order[num_held_out:]), np.sort(order[:num_held_out])
