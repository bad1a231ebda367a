"""The GPT learns, sees nothing of what is to come, and computes what PyTorch computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import models, optim
from chainrule.engine.nn import functional as F

CONFIG: dict[str, Any] = {"vocab_size": 11, "context": 8, "dim": 16, "heads": 4, "layers": 2}


def tokens(n: int, t: int) -> Any:
    return np.random.default_rng(0).integers(0, 11, (n, t))


def test_later_tokens_change_nothing_before_them() -> None:
    model = models.gpt(**CONFIG, generator=cr.Generator(0))
    x = tokens(2, 8)
    with cr.no_grad():
        before = model(cr.tensor(x)).numpy().copy()
        x[:, 5:] = (x[:, 5:] + 1) % 11
        after = model(cr.tensor(x)).numpy()
    assert before.shape == (2, 8, 11)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert not np.allclose(before[:, 5:], after[:, 5:])


def test_it_learns_a_sequence_by_heart() -> None:
    model = models.gpt(**CONFIG, generator=cr.Generator(0))
    x = cr.tensor(tokens(1, 9))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[:, :-1]).reshape(-1, 11), x[:, 1:].reshape(-1))
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    assert model(x[:, :-1]).argmax(-1).tolist() == x[:, 1:].tolist()


def test_tied_weights_are_one_parameter_under_two_names() -> None:
    tied, free = (models.gpt(**CONFIG, tie_weights=tie) for tie in (True, False))
    assert tied.head.weight is tied.token_embedding.weight
    assert free.head.weight is not free.token_embedding.weight
    assert "head.weight" not in dict(tied.named_parameters())
    assert set(tied.state_dict()) == set(free.state_dict())
    tied(cr.tensor(tokens(2, 8))).sum().backward()
    assert tied.token_embedding.weight.grad is not None


def test_weights_begin_small_and_smaller_where_they_add_up() -> None:
    model = models.gpt(vocab_size=64, context=32, dim=64, layers=8, generator=cr.Generator(0))
    expected = {"token_embedding": 0.02, "blocks.0.fc": 0.02, "blocks.0.proj": 0.005, "blocks.7.attn.proj": 0.005}
    for path, std in expected.items():
        weight = model.get_parameter(f"{path}.weight").detach().numpy()
        assert weight.std() == pytest.approx(std, rel=0.05)
    assert not model.get_parameter("blocks.0.attn.qkv.bias").detach().numpy().any()


def test_dropout_is_for_training() -> None:
    model = models.gpt(**CONFIG, dropout=0.2)
    x = cr.tensor(tokens(2, 8))
    assert not cr.equal(model(x), model(x))
    model.eval()
    assert cr.equal(model(x), model(x))


def test_sequences_beyond_the_context_are_refused() -> None:
    with pytest.raises(cr.ShapeError, match=r"\(N, T\) with T at most 8, got \(2, 9\)"):
        models.gpt(**CONFIG)(cr.tensor(tokens(2, 9)))


@pytest.mark.torch
def test_logits_and_gradients_are_pytorchs(torch: Any) -> None:
    model: Any = models.gpt(**CONFIG, generator=cr.Generator(0)).double()
    p = {name: torch.tensor(value.detach().numpy(), requires_grad=True) for name, value in model.named_parameters()}
    x, f = tokens(3, 7), torch.nn.functional
    y = p["token_embedding.weight"][torch.tensor(x)] + p["position_embedding.weight"][:7]
    for i in range(2):
        b = {name.removeprefix(f"blocks.{i}."): value for name, value in p.items() if name.startswith(f"blocks.{i}.")}
        h = f.layer_norm(y, (16,), b["ln_1.weight"], b["ln_1.bias"])
        q, k, v = f.linear(h, b["attn.qkv.weight"], b["attn.qkv.bias"]).view(3, 7, 3, 4, 4).permute(2, 0, 3, 1, 4)
        scores = (q @ k.mT / 2).masked_fill(~torch.ones(7, 7).tril().bool(), -torch.inf)
        h = (scores.softmax(-1) @ v).transpose(1, 2).reshape(3, 7, 16)
        y = y + f.linear(h, b["attn.proj.weight"], b["attn.proj.bias"])
        h = f.layer_norm(y, (16,), b["ln_2.weight"], b["ln_2.bias"])
        h = f.gelu(f.linear(h, b["fc.weight"], b["fc.bias"]))
        y = y + f.linear(h, b["proj.weight"], b["proj.bias"])
    expected = f.layer_norm(y, (16,), p["ln_f.weight"], p["ln_f.bias"]) @ p["token_embedding.weight"].T

    logits = model(cr.tensor(x))
    np.testing.assert_allclose(logits.detach().numpy(), expected.detach().numpy(), rtol=1e-9, atol=1e-12)
    (logits**2).sum().backward()
    (expected**2).sum().backward()
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.grad.numpy(), p[name].grad.numpy(), rtol=1e-9, atol=1e-11)
