"""The works that are measured, and the operations they take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.single.works import WORKS, Order, Work, flops, select

BY_NAME = {work.name: work for work in WORKS}


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(WORKS)


def test_select_keeps_the_order_of_the_table() -> None:
    assert [work.name for work in select("gpt, resnet18-64")] == ["resnet18-64", "gpt"]
    assert select(None) == WORKS


def test_select_names_what_there_is_not() -> None:
    with pytest.raises(ValueError, match="no work is named resnet19; --list lists them"):
        select("gpt,resnet19")


def test_orders_survive_json() -> None:
    order = Order(engine="torch", work=BY_NAME["gpt"], memory_format="channels_last", seconds=0.5)
    assert Order.from_json(order.to_json()) == order


def test_a_resnet18_takes_the_multiplications_that_are_published() -> None:
    """1.814 · 10⁹ for an image of 224², as torchvision's table says."""
    inference = replace(BY_NAME["resnet18-224"], mode="infer", batch=1)
    assert flops(inference) == 2 * 1_814_073_344


def test_training_takes_three_times_forward_but_for_the_first_input() -> None:
    train = Work(name="m", title="m", network="mlp", batch=2, shape=(5, 7, 3))
    assert flops(replace(train, mode="infer")) == 2 * 2 * (35 + 21)
    assert flops(train) == 3 * 2 * 2 * (35 + 21) - 2 * 2 * 35


def test_tuning_takes_the_gradient_of_the_head_alone() -> None:
    tune = BY_NAME["tune-eval"]
    inference = flops(replace(tune, mode="infer"))
    assert inference is not None
    # The head of an inference tells 1000 classes apart.
    assert flops(tune) == inference - 2 * 32 * 512 * 990 + 2 * 32 * 512 * 10


def test_a_gpt_takes_products_by_weights_and_attention() -> None:
    """Per token 2 layers of 12·8² weights, a head of 8·16, and 2·3·8 for the scores and values of 3 tokens."""
    gpt = Work(name="g", title="g", network="gpt", batch=5, shape=(16, 3, 8, 2, 2))
    assert flops(gpt) == 6 * 5 * 3 * (2 * (12 * 64 + 2 * 3 * 8) + 8 * 16)


def test_a_chain_has_no_products() -> None:
    assert flops(BY_NAME["chain"]) is None
