"""Running statistics kept by someone else are, to the bit, those the layer would have kept."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import io, models, nn
from chainrule.engine.nn import functional as F


def batch(seed: int) -> cr.Tensor:
    return cr.randn(6, 1, 8, 8, generator=cr.Generator(seed))


def test_collecting_leaves_buffers_alone_and_gives_the_batchs_statistics() -> None:
    model = models.small_cnn(width=4)
    before = io.save(model.state_dict())
    with nn.collect_batch_statistics(model) as statistics:
        model(batch(0))
    assert io.save(model.state_dict()) == before
    assert set(statistics) == {"bn1.running_mean", "bn1.running_var", "bn2.running_mean", "bn2.running_var"}
    assert all(array.dtype == np.float32 for array in statistics.values())
    h = model.conv1(batch(0)).detach().numpy()
    np.testing.assert_allclose(statistics["bn1.running_mean"], h.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(statistics["bn1.running_var"], h.var((0, 2, 3), ddof=1), rtol=1e-4)


def test_collected_statistics_update_to_the_same_bits() -> None:
    kept, collected = (models.small_cnn(width=4, generator=cr.Generator(0)) for _ in range(2))
    running = {name: buffer.numpy().copy() for name, buffer in collected.named_buffers() if "running" in name}
    for step in range(3):
        y = kept(batch(step))
        with nn.collect_batch_statistics(collected) as statistics:
            assert cr.equal(collected(batch(step)), y)
        for name, array in statistics.items():
            running[name] = F.running_update(running[name], array, 0.1)
    expected = {name: buffer.numpy() for name, buffer in kept.named_buffers() if "running" in name}
    assert io.save(running) == io.save(expected)


def test_without_momentum_the_running_statistics_are_the_mean_of_all_batches() -> None:
    layer = nn.BatchNorm2d(1, momentum=None)
    batches = [batch(seed) for seed in range(3)]
    for x in batches:
        layer(x)
    assert layer.running_mean is not None
    assert layer.num_batches_tracked is not None
    assert layer.num_batches_tracked.item() == 3
    mean = np.mean([x.numpy().mean() for x in batches])
    np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-4, atol=1e-6)


def test_evaluation_is_not_collected() -> None:
    model = models.small_cnn(width=4).eval()
    with nn.collect_batch_statistics(model) as statistics:
        model(batch(0))
    assert statistics == {}


def test_other_models_and_other_threads_keep_their_own() -> None:
    model, other = models.small_cnn(width=4), models.small_cnn(width=4)
    with nn.collect_batch_statistics(model) as statistics:
        other(batch(0))
        thread = threading.Thread(target=lambda: model(batch(0)))
        thread.start()
        thread.join()
    assert statistics == {}
    assert other.state_dict()["bn1.num_batches_tracked"].item() == 1
    assert model.state_dict()["bn1.num_batches_tracked"].item() == 1


def test_collecting_ends_with_the_block() -> None:
    layer = nn.BatchNorm2d(1)
    with pytest.raises(ZeroDivisionError), nn.collect_batch_statistics(layer):
        _ = 1 / 0
    layer(batch(0))
    assert layer.num_batches_tracked is not None
    assert layer.num_batches_tracked.item() == 1


def test_a_layer_alone_is_collected_under_its_own_names() -> None:
    layer = nn.BatchNorm2d(1)
    with nn.collect_batch_statistics(layer) as statistics:
        layer(batch(0))
    assert set(statistics) == {"running_mean", "running_var"}
