"""An optimizer of ours and PyTorch's beside it, with equal parameters and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

import chainrule.engine as cr
from chainrule.engine import nn, optim

SHAPES = ((3, 2), (5,), (), (2, 3, 2))
TOLERANCE: dict[str, dict[str, Any]] = {
    "float32": {"rtol": 2e-6, "atol": 2e-7},
    "float64": {"rtol": 1e-13, "atol": 1e-14},
}


def values(seed: int, dtype: str) -> list[np.ndarray[Any, Any]]:
    draws = np.random.default_rng(seed)
    return [np.asarray(draws.standard_normal(shape), dtype) for shape in SHAPES]


class Twins:
    """Two optimizers of two groups, the second with a learning rate of its own; the last parameter is frozen."""

    def __init__(self, torch: Any, kind: str, settings: dict[str, Any], dtype: str = "float32") -> None:
        self.torch, self.kind, self.settings, self.dtype = torch, kind, settings, dtype
        self.p = [nn.Parameter(cr.tensor(x)) for x in values(0, dtype)]
        self.q = [torch.nn.Parameter(torch.tensor(x)) for x in values(0, dtype)]
        self.ours: Any = getattr(optim, kind)(self.groups(self.p), **settings)
        self.theirs: Any = getattr(torch.optim, kind)(self.groups(self.q), **settings)
        self.steps = 0

    def groups(self, parameters: list[Any]) -> list[dict[str, Any]]:
        return [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.02}]

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.steps += 1
            for p, q, g in zip(self.p[:3], self.q[:3], values(self.steps, self.dtype)[:3], strict=True):
                p.grad, q.grad = cr.tensor(g), self.torch.tensor(g)
            self.ours.step()
            self.theirs.step()

    def agree(self) -> None:
        """The parameters and everything remembered of them are equal, and of one dtype."""
        for p, q in zip(self.p, self.q, strict=True):
            assert str(p.data.dtype) == self.dtype
            np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), **TOLERANCE[self.dtype])
            ours, theirs = self.ours.state[p], self.theirs.state[q]
            assert list(ours) == list(theirs)
            for key, expected in theirs.items():
                assert ours[key].shape == tuple(expected.shape)
                assert f"torch.{ours[key].data.dtype}" == str(expected.dtype)
                np.testing.assert_allclose(ours[key].numpy(), expected.numpy(), **TOLERANCE[self.dtype])
        assert self.p[3].detach().numpy().tobytes() == values(0, self.dtype)[3].tobytes()


def follows_pytorch(torch: Any, kind: str, settings: dict[str, Any], dtype: str) -> None:
    """Ten steps are those of PyTorch, and so are ten more after the state went to the other side and back."""
    twins = Twins(torch, kind, settings, dtype)
    assert repr(twins.ours) == repr(twins.theirs)
    twins.step(10)
    twins.agree()

    exchanged = Twins(torch, kind, {**settings, "lr": 0.5}, dtype)
    exchanged.steps = twins.steps
    for mine, given in zip([*exchanged.p, *exchanged.q], [*twins.p, *twins.q], strict=True):
        (mine.data if isinstance(mine, cr.Tensor) else mine.detach().numpy())[...] = given.detach().numpy()
    exchanged.ours.load_state_dict(twins.theirs.state_dict())
    exchanged.theirs.load_state_dict(for_pytorch(torch, twins.ours.state_dict()))
    assert repr(exchanged.ours) == repr(exchanged.theirs) == repr(twins.ours)
    exchanged.step(10)
    exchanged.agree()
    twins.step(10)
    for p, q in zip(twins.p, exchanged.p, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), **TOLERANCE[dtype])


def for_pytorch(torch: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A state_dict of ours with PyTorch's tensors."""
    state = {
        number: {key: torch.tensor(np.asarray(value)) for key, value in remembered.items()}
        for number, remembered in state_dict["state"].items()
    }
    return {"state": state, "param_groups": state_dict["param_groups"]}
