"""What a network consists of, told without it."""

from __future__ import annotations

from dataclasses import replace

import pytest

import chainrule.engine as cr
from chainrule.engine import models, nn
from chainrule.engine.models import Outline, outline_of


class Tied(nn.Module):
    """Parameters and statistics with two names, a buffer, and one that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2, momentum=None)
        self.again = self.norm
        self.last = nn.Linear(2, 2)
        self.last.weight = self.first.weight
        self.plain = nn.BatchNorm1d(2, track_running_stats=False)
        self.register_buffer("passing", cr.zeros(2), persistent=False)


TIED = outline_of(Tied())


def test_each_parameter_and_buffer_is_named_once_and_its_other_names_are_told() -> None:
    assert list(TIED.parameters) == [
        "first.weight", "first.bias", "norm.weight", "norm.bias", "last.bias", "plain.weight", "plain.bias",
    ]  # fmt: skip
    assert TIED.buffers == {
        "norm.running_mean": ("float32", (2,)),
        "norm.running_var": ("float32", (2,)),
        "norm.num_batches_tracked": ("int64", ()),
    }
    names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert TIED.tied == {"last.weight": "first.weight", **{f"again.{name}": f"norm.{name}" for name in names}}
    assert TIED.batch_norms == {"norm": None}
    assert TIED.num_parameters == 4 + 2 + 2 + 2 + 2 + 2 + 2
    assert TIED.specs.keys() == Tied().state_dict().keys()


@pytest.mark.parametrize("family", ["small_cnn", "gpt", "mlp"])
def test_families_are_outlined_as_they_are(family: str) -> None:
    module = models.build(family)
    outline = outline_of(module)
    assert list(outline.parameters) == [name for name, _ in module.named_parameters()]
    assert outline.specs == {name: (t.data.dtype.name, tuple(t.shape)) for name, t in module.state_dict().items()}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (TIED, []),
        (replace(TIED, buffers=dict(reversed(list(TIED.buffers.items())))), []),
        (
            outline_of(nn.Linear(2, 2)),
            [
                'it lacks the parameters "first.weight"',
                'it has the parameters "weight", "bias" besides',
                "it lacks the",
            ],
        ),
        (
            replace(TIED, parameters=dict(reversed(list(TIED.parameters.items())))),
            ['its parameters come in another order: "plain.bias"'],
        ),
        (
            replace(TIED, parameters={**TIED.parameters, "last.bias": ("float64", (3,))}),
            ['its "last.bias" is float64 [3] instead of float32 [2]'],
        ),
        (replace(TIED, tied={}), ["its tied names are {} instead of {"]),
        (
            replace(TIED, batch_norms={"norm": 0.1}),
            ["its BatchNorm layers are {'norm': 0.1} instead of {'norm': None}"],
        ),
    ],
)
def test_in_what_another_network_differs(other: Outline, said: list[str]) -> None:
    found = TIED.differences(other)
    assert len(found) == len(said)
    assert all(text.startswith(beginning) for text, beginning in zip(found, said, strict=True))
