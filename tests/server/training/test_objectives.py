"""Losses and metrics: PyTorch's values and gradients, plain definitions, and the same whatever the parts of a batch."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.server.training.config import Loss, MetricSpec, TrainingConfig
from chainrule.server.training.contributions import Measured, pack_sums, unpack_sums
from chainrule.server.training.errors import ObjectiveError
from chainrule.server.training.objectives import Objective

RNG = np.random.default_rng(0)
N, C = 12, 5
LABELS = RNG.integers(0, C, N)
SOME = np.where(np.arange(N) % 3 == 0, -100, LABELS)
ROWS = RNG.normal(size=(N, C)).astype(np.float32)
IMAGES = RNG.normal(size=(N, 3, 4, 4)).astype(np.float32)
MASKS = RNG.integers(0, 3, (N, 4, 4))
TOKENS = RNG.normal(size=(N, 6, 7)).astype(np.float32)
NEXT = RNG.integers(0, 7, (N, 6))
HOT = (RNG.random((N, C)) > 0.5).astype(np.float32)
REAL = RNG.normal(size=(N, C)).astype(np.float32)
WEIGHTS = (0.5, 2.0, 1.0, 0.0, 3.0)

CASES: dict[str, tuple[Loss, Any, Any, Any]] = {
    "cross entropy": (Loss(), ROWS, LABELS, lambda F, t, x, y: F.cross_entropy(x, y)),
    "smoothed": (
        Loss(label_smoothing=0.1),
        ROWS,
        LABELS,
        lambda F, t, x, y: F.cross_entropy(x, y, label_smoothing=0.1),
    ),
    "weighted": (
        Loss(class_weights=WEIGHTS, label_smoothing=0.2),
        ROWS,
        LABELS,
        lambda F, t, x, y: F.cross_entropy(x, y, t(WEIGHTS), label_smoothing=0.2),
    ),
    "ignored": (
        Loss(ignore_index=-100, class_weights=WEIGHTS),
        ROWS,
        SOME,
        lambda F, t, x, y: F.cross_entropy(x, y, t(WEIGHTS)),
    ),
    "nll": (Loss("nll"), ROWS, LABELS, lambda F, t, x, y: F.nll_loss(x, y)),
    "tokens": (
        Loss(ignore_index=3),
        TOKENS,
        NEXT,
        lambda F, t, x, y: F.cross_entropy(x.transpose(1, 2), y, ignore_index=3),
    ),
    "segmentation": (
        Loss(ignore_index=0),
        IMAGES,
        MASKS,
        lambda F, t, x, y: F.cross_entropy(x, y, ignore_index=0),
    ),
    "probabilities": (Loss(), ROWS, HOT, lambda F, t, x, y: F.cross_entropy(x, y)),
    "labels": (
        Loss("bce_with_logits", pos_weight=(1.0, 2.0, 3.0, 4.0, 5.0)),
        ROWS,
        HOT,
        lambda F, t, x, y: F.binary_cross_entropy_with_logits(x, y, pos_weight=t((1.0, 2.0, 3.0, 4.0, 5.0))),
    ),
    "mse": (Loss("mse"), ROWS, REAL, lambda F, t, x, y: F.mse_loss(x, y)),
    "mse of a column": (Loss("mse"), ROWS[:, :1], REAL[:, 0], lambda F, t, x, y: F.mse_loss(x[:, 0], y)),
    "l1": (Loss("l1", weight=2.0), ROWS, REAL, lambda F, t, x, y: 2 * F.l1_loss(x, y)),
    "huber": (Loss("huber", delta=0.5), ROWS, REAL, lambda F, t, x, y: F.huber_loss(x, y, delta=0.5)),
    "smooth l1": (Loss("smooth_l1", beta=0.5), ROWS, REAL, lambda F, t, x, y: F.smooth_l1_loss(x, y, beta=0.5)),
    "dice": (
        Loss("dice"),
        IMAGES,
        MASKS,
        lambda F, t, x, y: (
            1
            - (
                (2 * (F.softmax(x, 1) * F.one_hot(y, 3).movedim(-1, 1)).sum((2, 3)) + 1)
                / (F.softmax(x, 1).sum((2, 3)) + F.one_hot(y, 3).movedim(-1, 1).sum((2, 3)) + 1)
            )
        ).mean(),
    ),
}


def computed(
    objective: Objective, x: np.ndarray, t: np.ndarray, parts: list[slice]
) -> tuple[float, np.ndarray, Measured]:
    """The loss, the gradient and what was measured, added up over the parts of a batch."""
    amounts = objective.amounts(len(t), lambda: {"targets": t})
    gradients, total = [], Measured()
    for part in parts:
        outputs = cr.tensor(x[part], requires_grad=True)
        cost = objective.cost(outputs, {"targets": t[part]}, amounts)
        cost.tensor.backward(cr.tensor(cost.seed, dtype=cost.tensor.dtype))
        assert outputs.grad is not None
        gradients.append(outputs.grad.data)
        total = total + objective.measure(cost, outputs, {"targets": t[part]})
    return total.loss, np.concatenate(gradients), total


@pytest.mark.torch
@pytest.mark.parametrize("parts", [[slice(0, N)], [slice(0, 1), slice(1, 4), slice(4, N)]], ids=["K=1", "K=3"])
@pytest.mark.parametrize("case", CASES)
def test_a_loss_and_its_gradient_are_pytorchs(case: str, parts: list[slice]) -> None:
    torch = pytest.importorskip("torch")
    loss, x, t, theirs = CASES[case]
    x_ = torch.tensor(x, requires_grad=True)
    expected = theirs(torch.nn.functional, torch.tensor, x_, torch.tensor(t))
    expected.backward()
    value, gradient, _ = computed(Objective(TrainingConfig(losses=(loss,))), x, t, parts)
    assert value == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(gradient, x_.grad.numpy(), rtol=1e-5, atol=1e-7)


def test_a_batch_of_which_nothing_counts_has_no_loss_and_no_gradient() -> None:
    objective = Objective(TrainingConfig(losses=(Loss(ignore_index=-100),)))
    value, gradient, measured = computed(objective, ROWS, np.full(N, -100), [slice(0, N)])
    assert (value, np.abs(gradient).max(), objective.finish(measured)) == (0.0, 0.0, (None, {}))


def test_a_missing_label_is_refused_unless_it_is_ignored() -> None:
    with pytest.raises(cr.TargetError, match="stands for no label; set ignore_index of the loss to -100"):
        computed(Objective(TrainingConfig()), ROWS, SOME, [slice(0, N)])


def test_weights_of_examples_count() -> None:
    objective = Objective(TrainingConfig(losses=(Loss("mse", example_weight="w"),)))
    w = RNG.random(N).astype(np.float32)
    targets = {"targets": REAL, "w": w}
    amounts = objective.amounts(N, lambda: targets)
    total = 0.0
    for part in (slice(0, 5), slice(5, N)):
        here = {name: column[part] for name, column in targets.items()}
        total += objective.cost(cr.tensor(ROWS[part]), here, amounts).value
    assert total == pytest.approx((w * np.square(ROWS - REAL).mean(1)).sum() / w.sum(), rel=1e-6)


def test_several_losses_are_added_up_and_told_apart() -> None:
    config = TrainingConfig(losses=(Loss("mse", output="a"), Loss("l1", output="1", weight=0.5)))
    objective = Objective(config, ("a", "b"))
    outputs, targets = (cr.tensor(ROWS), cr.tensor(-ROWS)), {"targets": REAL}
    cost = objective.cost(outputs, targets, objective.amounts(N, lambda: targets))
    mse, l1 = np.square(ROWS - REAL).mean(), np.abs(-ROWS - REAL).mean()
    assert cost.value == pytest.approx(mse + 0.5 * l1, rel=1e-6)
    _, values = objective.finish(objective.measure(cost, outputs, targets))
    assert values == pytest.approx({"loss.a.mse": mse, "loss.1.l1": l1}, rel=1e-6)
    with pytest.raises(ObjectiveError, match='output is "c", which is no output; name one of a, b') as caught:
        objective.output(outputs, "c")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


# --- metrics ---------------------------------------------------------------------------------------------------


def f1_of(predicted: np.ndarray, truth: np.ndarray) -> float:
    right = (predicted & truth).sum()
    return float(2 * right / (predicted.sum() + truth.sum())) if predicted.sum() + truth.sum() else 0.0


GUESS = ROWS.argmax(1)
P, T = ROWS > 0, HOT > 0
PIXELS = IMAGES.argmax(1)
METRICS: dict[str, tuple[Loss, MetricSpec, Any, Any, dict[str, float]]] = {
    "top": (
        Loss(),
        MetricSpec("top_k", k=2),
        ROWS,
        LABELS,
        {"top_2": float(np.mean([t in np.argsort(-x)[:2] for x, t in zip(ROWS, LABELS, strict=True)]))},
    ),
    "macro": (
        Loss(),
        MetricSpec("f1", average="macro"),
        ROWS,
        LABELS,
        {"f1_macro": float(np.mean([f1_of(c == GUESS, c == LABELS) for c in set(GUESS) | set(LABELS)]))},
    ),
    "micro": (Loss(), MetricSpec("f1", average="micro"), ROWS, LABELS, {"f1_micro": (GUESS == LABELS).mean()}),
    "precision": (
        Loss("bce_with_logits"),
        MetricSpec("precision", average="micro"),
        ROWS,
        HOT,
        {"precision_micro": (P & T).sum() / P.sum()},
    ),
    "recall": (
        Loss("bce_with_logits"),
        MetricSpec("recall", average="none"),
        ROWS,
        HOT,
        {f"recall_{c}": (P & T)[:, c].sum() / T[:, c].sum() for c in range(C)},
    ),
    "binary": (
        Loss("bce_with_logits"),
        MetricSpec("f1", average="binary"),
        ROWS[:, :1],
        HOT[:, 0],
        {"f1_binary": f1_of(P[:, 0], T[:, 0])},
    ),
    "subset": (
        Loss("bce_with_logits"),
        MetricSpec("subset_accuracy"),
        ROWS,
        HOT,
        {"subset_accuracy": (P == T).all(1).mean()},
    ),
    "iou": (
        Loss(),
        MetricSpec("mean_iou"),
        IMAGES,
        MASKS,
        {
            "mean_iou": np.mean(
                [((c == PIXELS) & (c == MASKS)).sum() / ((c == PIXELS) | (c == MASKS)).sum() for c in range(3)]
            )
        },
    ),
    "mae": (Loss("mse"), MetricSpec("mae"), ROWS, REAL, {"mae": np.abs(ROWS - REAL).mean()}),
    "rmse": (Loss("mse"), MetricSpec("rmse"), ROWS, REAL, {"rmse": np.sqrt(np.square(ROWS - REAL).mean())}),
    "r2": (
        Loss("mse"),
        MetricSpec("r2"),
        ROWS,
        REAL,
        {"r2": np.mean(1 - np.square(ROWS - REAL).sum(0) / np.square(REAL - REAL.mean(0)).sum(0))},
    ),
    "perplexity": (
        Loss(),
        MetricSpec("perplexity"),
        TOKENS,
        NEXT,
        {
            "perplexity": np.exp(
                np.mean(np.log(np.exp(TOKENS).sum(2)) - np.take_along_axis(TOKENS, NEXT[..., None], 2)[..., 0])
            )
        },
    ),
}


@pytest.mark.parametrize("case", METRICS)
def test_a_metric_is_its_definition_whatever_the_parts(case: str) -> None:
    loss, spec, x, t, expected = METRICS[case]
    objective = Objective(TrainingConfig(losses=(loss,), metrics=(spec,)))
    for parts in ([slice(0, N)], [slice(0, 1), slice(1, 7), slice(7, N)]):
        *_, measured = computed(objective, x, t, parts)
        assert unpack_sums(pack_sums(measured.sums)) == measured.sums
        accuracy, values = objective.finish(measured)
        assert accuracy is None
        assert values == pytest.approx(expected, rel=1e-5)


def test_sums_are_part_of_what_two_results_are_compared_by() -> None:
    assert Measured(sums=((1.0,),)).bits != Measured(sums=((2.0,),)).bits
    assert Measured().bits == Measured(sums=()).bits
