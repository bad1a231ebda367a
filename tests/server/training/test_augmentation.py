"""What is done to images: each transform by its definition, and the same bits whoever draws it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chainrule.server.training.augmentation import (
    Augmentation,
    ColorJitter,
    Cutout,
    Normalize,
    RandomCrop,
    RandomFlip,
    RandomResizedCrop,
    Resize,
    Transform,
    draw_key,
    draws,
    mixing,
    size_after,
)

ALL: tuple[Transform, ...] = (
    RandomResizedCrop(12, 10),
    RandomCrop(9, 8, padding=2),
    RandomFlip(),
    RandomFlip(0.3, vertical=True),
    ColorJitter(0.4, 0.3, 0.2),
    Cutout(3, 0.7),
    Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
    Resize(7, 11),
)


def images(count: int = 6, height: int = 16, width: int = 14, channels: int = 3) -> Any:
    return np.random.default_rng(0).random((count, channels, height, width), np.float32)


def applied(transform: Transform, x: Any, u: list[list[float]]) -> Any:
    return transform.apply(x, np.array(u))


# --- draws -----------------------------------------------------------------------------------------------------


def test_the_first_numbers_are_those_of_splitmix64() -> None:
    # the reference implementation, seeded with 1234567, gives these words
    words = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert draws(1234567, np.array([0]), 4)[0].tolist() == [(word >> 11) * 2.0**-53 for word in words]


def test_a_sample_has_the_same_draws_whoever_else_is_drawn() -> None:
    together = draws(5, np.arange(1000), 3)
    assert (draws(5, np.array([77, 3]), 3) == together[[77, 3]]).all()
    assert ((together >= 0) & (together < 1)).all()
    assert len(np.unique(together)) == together.size
    assert abs(together.mean() - 0.5) < 0.02


def test_keys_differ_by_seed_epoch_and_transform() -> None:
    places = [(seed, epoch, number) for seed in range(3) for epoch in range(3) for number in range(3)]
    assert len({draw_key(*place) for place in places}) == len(places)


@pytest.mark.parametrize("transform", ALL, ids=lambda transform: type(transform).__name__)
def test_bits_do_not_depend_on_which_images_are_together(transform: Transform) -> None:
    x, chosen = images(), Augmentation((transform,))
    samples = np.array([4, 9, 2, 30, 31, 7])
    whole = chosen.train(x, samples, seed=3, epoch=2)
    parts = [chosen.train(x[part], samples[part], seed=3, epoch=2) for part in (slice(0, 1), slice(1, 4), slice(4, 6))]
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert whole.dtype == np.float32


@pytest.mark.parametrize("transform", ALL, ids=lambda transform: type(transform).__name__)
def test_images_are_only_read(transform: Transform) -> None:
    x = images()
    x.flags.writeable = False
    once = Augmentation((transform,)).train(x, np.arange(6), seed=0, epoch=0)
    again = Augmentation((transform,)).train(x, np.arange(6), seed=0, epoch=1)
    assert (once.tobytes() != again.tobytes()) == bool(transform.num_draws)


def test_what_is_evaluated_is_not_drawn() -> None:
    x, augmentation = images(), Augmentation(ALL)
    assert (augmentation.evaluate(x) == Resize(7, 11).apply(ALL[6].apply(x, np.empty((6, 0))), np.empty((6, 0)))).all()
    assert Augmentation().evaluate(x) is x


# --- transforms ------------------------------------------------------------------------------------------------


def test_a_crop_is_a_window_of_the_padded_image() -> None:
    x = images(3, 4, 4)
    cropped = applied(RandomCrop(4, 4, padding=1), x, [[0.0, 0.0], [0.5, 0.5], [0.999, 0.0]])
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    assert (cropped[0] == padded[0, :, :4, :4]).all()
    assert (cropped[1] == x[1]).all()
    assert (cropped[2] == padded[2, :, 2:, :4]).all()


def test_flips() -> None:
    x = images(2)
    assert (applied(RandomFlip(0.5), x, [[0.49], [0.5]]) == np.stack([x[0, :, :, ::-1], x[1]])).all()
    assert (applied(RandomFlip(1.0, vertical=True), x, [[0.0], [0.9]]) == x[:, :, ::-1]).all()


def test_a_crop_that_is_resized_covers_area_and_ratio() -> None:
    x = np.broadcast_to(np.arange(100, dtype=np.float32), (1, 1, 100, 100))
    for area, ratio in ((0.0, 0.5), (1.0, 0.5), (0.5, 0.0), (0.5, 1.0)):
        cropped = applied(RandomResizedCrop(50, 50, scale=(0.25, 0.81)), x, [[area, ratio, 0.0, 0.0]])
        side = np.sqrt(0.25 + area * 0.56) * 100 * np.sqrt((3 / 4) ** (1 - 2 * ratio))
        assert cropped[0, 0, 0, -1] - cropped[0, 0, 0, 0] == pytest.approx(side, abs=2.0)


def test_a_window_is_never_larger_than_the_image() -> None:
    u = np.random.default_rng(1).random((200, 4))
    wide = RandomResizedCrop(8, 8, scale=(0.9, 1.0), ratio=(0.2, 5.0)).apply(images(200, 10, 6), u)
    assert np.isfinite(wide).all()


def test_jitter_by_its_definition() -> None:
    x = images(1)
    bright, dark = applied(ColorJitter(brightness=0.5), np.repeat(x, 2, 0), [[1.0, 0, 0], [0.0, 0, 0]])
    np.testing.assert_allclose(bright, np.clip(x[0] * 1.5, 0, 1), rtol=1e-6)
    np.testing.assert_allclose(dark, x[0] * 0.5, rtol=1e-6)
    grey = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    [flat] = applied(ColorJitter(contrast=1.0), x, [[0, 0.0, 0]])
    np.testing.assert_allclose(flat, np.full_like(flat, grey.mean()), rtol=1e-5)
    [pale] = applied(ColorJitter(saturation=1.0), x, [[0, 0, 0.0]])
    np.testing.assert_allclose(pale, np.repeat(grey, 3, 0), rtol=1e-5)
    one = images(1, channels=1)
    assert (applied(ColorJitter(saturation=1.0), one, [[0, 0, 0.0]]) == one).all()


def test_cutout_is_cut_off_at_the_border() -> None:
    x = np.ones((3, 1, 5, 5), np.float32)
    holes = applied(Cutout(3, probability=0.5), x, [[0.0, 0.5, 0.5], [0.0, 0.0, 0.99], [0.6, 0.5, 0.5]])
    assert holes.sum(axis=(1, 2, 3)).tolist() == [16.0, 21.0, 25.0]
    assert holes[1, 0, :2, 3:].sum() == 0.0


@pytest.mark.torch
@pytest.mark.parametrize(("height", "width"), [(7, 11), (16, 14), (33, 5), (1, 1)])
def test_a_resized_image_is_that_of_torch(height: int, width: int) -> None:
    torch = pytest.importorskip("torch")
    x = images()
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(x), size=(height, width), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(Resize(height, width).apply(x, np.empty((6, 0))), theirs.numpy(), atol=1e-6)


# --- mixing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0])
def test_weights_are_of_the_beta_distribution(alpha: float) -> None:
    weights = np.array([mixing(alpha, np.arange(2), seed=1, step=step)[1] for step in range(4000)])
    assert ((weights >= 0) & (weights <= 1)).all()
    assert weights.mean() == pytest.approx(0.5, abs=0.02)
    assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.02)


def test_everybody_is_mixed_once_and_with_another() -> None:
    samples = np.random.default_rng(0).permutation(50)
    partners, _ = mixing(0.2, samples, seed=1, step=0)
    assert sorted(partners.tolist()) == list(range(50))
    assert (partners != np.arange(50)).all()
    assert (mixing(0.2, samples, seed=1, step=1)[0] != partners).any()
    assert mixing(0.2, samples[:1], seed=1, step=0)[0].tolist() == [0]


# --- sizes -----------------------------------------------------------------------------------------------------


def test_the_size_that_images_have_afterwards() -> None:
    for number in range(len(ALL)):
        found = Augmentation(ALL[: number + 1]).train(images(), np.arange(6), seed=0, epoch=0).shape[2:]
        assert size_after(ALL[: number + 1], (16, 14)) == found
    with pytest.raises(ValueError, match=r"width 20 is more than the image's 14 with 2 of padding on each side"):
        size_after([RandomCrop(16, 20, padding=2)], (16, 14))
