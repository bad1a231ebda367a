"""Writing to tensors that are recorded, and the views that share their memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule.engine as cr

# ---- In place, where it is recorded ----


def test_the_gradient_flows_through_what_was_written() -> None:
    a = cr.tensor([1.0, 2.0, 3.0], requires_grad=True)
    x = a * 2
    x.mul_(a)  # 2a²
    x += 1
    x.sum().backward()
    assert x.tolist() == [3.0, 9.0, 19.0]
    assert a.grad is not None
    assert a.grad.tolist() == [4.0, 8.0, 12.0]
    assert repr(x.grad_fn).startswith("<AddBackward0")


def test_an_operation_that_needs_the_old_value_keeps_a_copy_of_it() -> None:
    a, w = cr.ones(2, requires_grad=True), cr.tensor([2.0, 3.0], requires_grad=True)
    x = a * 5
    x.mul_(w)
    x.sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [5.0, 5.0]


def test_an_operation_that_needs_its_result_finds_it_in_the_memory_written_to() -> None:
    x = cr.zeros(2, requires_grad=True) * 1
    x.exp_()
    x.sum().backward()
    y = cr.zeros(2, requires_grad=True) * 1
    y.exp_()
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_writing_to_what_a_gradient_needs_is_found_out_in_backward() -> None:
    x = cr.ones(2, requires_grad=True)
    y = x.exp()
    y.mul_(2)
    with pytest.raises(
        RuntimeError, match=r"\[FloatTensor \[2\]\], which is output 0 of Exp, is at version 1; expected"
    ):
        y.sum().backward()


def test_leaves_that_require_a_gradient_are_not_written_to() -> None:
    x = cr.ones(3, requires_grad=True)
    for write in (lambda: x.add_(1), lambda: x.zero_(), lambda: x.__setitem__(0, 1.0)):
        with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
            write()
    with pytest.raises(RuntimeError, match="a view of a leaf Variable that requires grad"):
        x[:2].add_(1)
    assert x.tolist() == [1.0, 1.0, 1.0]


def test_zeroing_cuts_the_gradient_off() -> None:
    a = cr.ones(3, requires_grad=True)
    x = a * 2
    x.zero_()
    (x + a).sum().backward()
    assert a.grad is not None
    assert a.grad.tolist() == [1.0, 1.0, 1.0]


def test_detached_memory_counts_as_written_to() -> None:
    a = cr.ones(2, requires_grad=True)
    x = a * 1
    y = x * x
    x.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_kept_gradient_is_that_of_the_value_held_now() -> None:
    a = cr.ones(2, requires_grad=True)
    x = a * 2
    x.retain_grad()
    x.mul_(3)
    (x * 5).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [5.0, 5.0]
    assert x.retains_grad


# ---- Views ----


def test_writing_to_a_view_rewrites_the_history_of_its_base() -> None:
    a, w = cr.ones(4, requires_grad=True), cr.tensor([3.0, 4.0], requires_grad=True)
    x = a * 2
    part = x[1:3]
    part.mul_(w)
    assert x.grad_fn is not None
    assert x.grad_fn.name() == "CopySlices"
    assert part.grad_fn is not None
    assert part.grad_fn.name() == "AsStridedBackward0"
    assert part._base is x
    x.sum().backward()
    assert a.grad is not None
    assert w.grad is not None
    assert a.grad.tolist() == [2.0, 6.0, 8.0, 2.0]
    assert w.grad.tolist() == [2.0, 2.0]


def test_other_views_see_what_was_written_and_lead_back_to_it() -> None:
    a = cr.ones(2, 3, requires_grad=True)
    x = a * 1
    row, column = x[0], x.T[0]
    x.mul_(2)
    column.add_(1)
    (row * cr.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert row.tolist() == [3.0, 2.0, 2.0]
    assert a.grad is not None
    assert a.grad.tolist() == [[2.0, 20.0, 200.0], [0.0, 0.0, 0.0]]


def test_a_base_that_required_nothing_does_once_something_recorded_is_written_to_it() -> None:
    buffer, w = cr.zeros(3), cr.ones(2, requires_grad=True)
    early = buffer[:1]
    buffer[1:] = w * 3
    assert (buffer.requires_grad, early.requires_grad, early.is_leaf) == (True, True, False)
    (buffer * buffer).sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [18.0, 18.0]


def test_items_can_be_set_by_every_kind_of_index() -> None:
    a, w = cr.ones(3, 2, requires_grad=True), cr.tensor([1.0, 2.0], requires_grad=True)
    x = a * 1
    x[0] = 5.0
    x[cr.tensor([2, 1])] = w
    x[x > 4] = 0.0
    x.sum().backward()
    assert x.tolist() == [[0.0, 0.0], [1.0, 2.0], [1.0, 2.0]]
    assert a.grad is not None
    assert w.grad is not None
    assert a.grad.tolist() == [[0.0, 0.0]] * 3
    assert w.grad.tolist() == [2.0, 2.0]


def test_a_view_made_without_recording_is_not_written_to_with() -> None:
    x = cr.ones(3, requires_grad=True) * 1
    with cr.no_grad():
        part = x[:2]
    with pytest.raises(RuntimeError, match="view was created in no_grad mode"):
        part.add_(1)
    with cr.no_grad():
        part.add_(1)
    assert x.tolist() == [2.0, 2.0, 1.0]


def test_views_of_views_share_the_base_and_the_version() -> None:
    x = cr.zeros(2, 3, 4)
    y = x[1].view(12)[4:]
    assert y._base is x
    before = x._version
    y.add_(1)
    assert x._version == y._version == before + 1
    assert x.sum().item() == 8.0


def test_memory_laid_out_channels_last_is_followed_too() -> None:
    a = cr.Tensor(np.arange(24, dtype=np.float32).reshape(1, 2, 4, 3).transpose(0, 3, 1, 2), requires_grad=True)
    x = a.clone()
    assert x.data.strides == a.data.strides
    x[:, 1, :, 2:].mul_(7)
    x.sum().backward()
    expected = np.ones(a.shape, np.float32)
    expected[:, 1, :, 2:] = 7
    assert a.grad is not None
    np.testing.assert_array_equal(a.grad.numpy(), expected)


def test_writing_through_a_view_can_be_differentiated_twice() -> None:
    def written(a: Any, w: Any) -> Any:
        x = a * a
        x[1:].mul_(w)
        x[0] = w[0] * a[1]
        return x * x

    a = cr.Tensor(np.array([0.3, -0.4, 0.5]), requires_grad=True)
    w = cr.Tensor(np.array([1.2, 0.7]), requires_grad=True)
    assert cr.autograd.gradcheck(written, (a, w))
    assert cr.autograd.gradgradcheck(written, (a, w))


def test_a_result_written_through_a_view_and_saved_can_be_differentiated_twice() -> None:
    def written(a: Any) -> Any:
        x = a * 1
        x[1:].sigmoid_()
        return x * x

    a = cr.Tensor(np.array([0.3, -0.4, 0.5]), requires_grad=True)
    assert cr.autograd.gradgradcheck(written, (a,))
    (g,) = cr.autograd.grad(written(a).sum(), a, create_graph=True)
    assert g is not None
    g.sum().backward()  # which frees what it has passed
    y = 1 / (1 + np.exp(-a.data[1:]))
    slope = y * (1 - y)
    assert a.grad is not None
    np.testing.assert_allclose(a.grad.data[1:], 2 * slope * slope + 2 * y * slope * (1 - 2 * y), rtol=1e-12)


def test_a_view_that_was_written_to_and_saved_is_one_with_what_was_saved() -> None:
    def run(a: Any, watch: Callable[[Any], Any]) -> Any:
        x = a * 1
        part = x[1:]
        part.sigmoid_()
        watch(part)
        (g,) = cr.autograd.grad((x * x).sum(), a, create_graph=True)
        assert g is not None
        g.sum().backward()
        return part

    a = cr.tensor([0.3, -0.4, 0.5], dtype=cr.float64, requires_grad=True)
    part = run(a, lambda part: part.retain_grad())
    y = part.detach()
    expected = 2 * y * (1 - 2 * y)  # of the saved y in 2x · y(1 − y); x leads to the base
    np.testing.assert_allclose(part.grad.data, expected.data, rtol=1e-12)
    seen: list[Any] = []
    run(a, lambda part: part.register_hook(seen.append))
    (g,) = seen
    np.testing.assert_allclose(g.data, expected.data, rtol=1e-12)


@pytest.mark.torch
def test_a_view_of_what_came_to_require_a_gradient_can_be_written_to(torch: Any) -> None:
    found = []
    for m in (cr, torch):
        w = m.ones(1, requires_grad=True)
        x = m.zeros(2, 3).detach()
        part = x.transpose(0, 1)
        x[x == 0] = w.sum()
        if m is torch:  # which takes `part` for a leaf until it is asked
            with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
                part.mul_(0.5)
            assert part.grad_fn is not None
        part.mul_(0.5)
        x.sum().backward()
        found.append((w.grad.item(), x.tolist()))
    assert found[0] == found[1] == (3.0, [[0.5] * 3] * 2)


def test_a_part_of_an_expanded_tensor_can_be_written_to_but_not_the_whole() -> None:
    a = cr.ones(3, requires_grad=True)
    x = a * 1
    whole = x.expand(2, 3)
    whole[1].mul_(4)
    assert whole.tolist() == [[4.0] * 3] * 2
    x.sum().backward()
    assert a.grad is not None
    assert a.grad.tolist() == [4.0] * 3
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        cr.ones(1).expand(3).mul_(2)
    assert cr.ones(1, 0).expand(3, 0).mul_(2).shape == (3, 0)


def _halves(w: Any) -> Any:
    x = w * 1
    x[:2].mul_(x[2:])
    return x


def _recurrence(w: Any) -> Any:
    x = cr.zeros(4, 4, dtype=cr.float64)
    for t in range(1, 4):
        x[t] = x[t - 1] * w + 1
    return x


def _saved_result(w: Any) -> Any:
    x = w * 1
    x[:2].sigmoid_()
    return x


@pytest.mark.parametrize("written", [_halves, _recurrence, _saved_result])
def test_what_is_written_to_with_its_own_parts_goes_with_its_last_reference(written: Callable[[Any], Any]) -> None:
    w = cr.tensor([0.3, -0.4, 0.5, 0.2], dtype=cr.float64, requires_grad=True)
    gc.disable()
    try:
        x = written(w)
        left = [weakref.ref(x), weakref.ref(x.grad_fn)]
        del x
        assert [reference() for reference in left] == [None, None]
    finally:
        gc.enable()


def test_a_saved_view_has_its_history_when_it_is_gone() -> None:
    a = cr.tensor([0.3, -0.4, 0.5, 0.2], dtype=cr.float64, requires_grad=True)
    assert cr.autograd.gradgradcheck(lambda a: (a * a)[:2] * (a * a)[2:], (a,))


@pytest.mark.torch
def test_a_saved_view_is_the_tensor_itself_while_that_is_there(torch: Any) -> None:
    found = []
    for m in (cr, torch):
        w = m.ones(2, requires_grad=True)
        part = m.tensor([1.0, 2.0, 3.0])[1:]
        y = (part * w * w).sum()
        part.requires_grad_()
        (g,) = m.autograd.grad(y, w, create_graph=True)
        g.sum().backward()
        found.append((part.grad.tolist(), w.grad.tolist()))
    assert found[0] == found[1] == ([1.0, 1.0], [4.0, 6.0])


# ---- Random programs ----

Step = Callable[[Any, list[Any], Any], None]


def _view(make: Callable[[Any, Any], Any]) -> Step:
    return lambda m, pool, x: pool.append(make(m, x))


def _write(write: Callable[[Any, Any, Any], Any]) -> Step:
    def run(m: Any, pool: list[Any], x: Any) -> None:
        write(m, x, pool[0])

    return run


def _no_grad(step: Step) -> Step:
    def run(m: Any, pool: list[Any], x: Any) -> None:
        with m.no_grad():
            step(m, pool, x)

    return run


def _hook(m: Any, pool: list[Any], x: Any) -> None:
    if x.requires_grad and not x.is_leaf:
        x.register_hook(lambda g: g * 0.5)


def _retain(m: Any, pool: list[Any], x: Any) -> None:
    if x.requires_grad and not x.is_leaf:
        x.retain_grad()


def _masked(m: Any, x: Any, w: Any) -> None:
    x[x.detach() > 0.1] = w.sum()


STEPS: tuple[Step, ...] = (
    _view(lambda m, x: x[0]),
    _view(lambda m, x: x[1:]),
    _view(lambda m, x: x[..., 0]),
    _view(lambda m, x: x.transpose(0, -1)),
    _view(lambda m, x: x.unbind()[0]),
    _view(lambda m, x: x.chunk(2)[-1]),
    _view(lambda m, x: x.permute(*reversed(range(x.ndim)))),
    _write(lambda m, x, w: x.__setitem__(0, w)),
    _view(lambda m, x: x.reshape(-1)),
    _view(lambda m, x: x * 0.5),
    _view(lambda m, x: m.sin(x)),
    _view(lambda m, x: x.flip(tuple(range(x.ndim)))),
    _view(lambda m, x: x.unsqueeze(0).expand(2, *x.shape)[1]),
    _view(lambda m, x: x.detach()),
    _view(lambda m, x: x.clone()),
    _write(lambda m, x, w: x.mul_(w)),
    _write(lambda m, x, w: x.add_(w * 0.5)),
    _write(lambda m, x, w: x.mul_(0.7)),
    _write(lambda m, x, w: x.copy_(w * w)),
    _write(lambda m, x, w: x.zero_()),
    _write(lambda m, x, w: x.sigmoid_()),
    _write(lambda m, x, w: x.pow_(2)),
    _write(_masked),
    _no_grad(_view(lambda m, x: x.reshape(-1))),
    _no_grad(_write(lambda m, x, w: x.mul_(0.9))),
    _hook,
    _retain,
)
FOR_DIMENSIONS = 8
"""The first so many steps need a tensor of one dimension or more."""


def _run(m: Any, program: list[tuple[int, int]], twice: bool) -> tuple[list[Any], list[str]]:
    """The values of all tensors a program makes, their kept gradients and those of the two it starts from, or errors.

    Args:
        m: the module to run it with.
        program: steps, and what of that which is there they are done to.
        twice: whether the gradients are differentiated in turn.
    """
    w = m.tensor([1.5], dtype=m.float64, requires_grad=True)
    a = m.linspace(-1, 1, 12, dtype=m.float64).reshape(3, 4).requires_grad_()
    pool: list[Any] = [w, a * 1]
    errors: list[str] = []
    try:
        for step, target in program:
            x = pool[1 + target % (len(pool) - 1)]
            x.grad_fn  # noqa: B018 - else PyTorch takes a view of a base that came to require a gradient for a leaf
            if x.ndim > 0 or step >= FOR_DIMENSIONS:
                STEPS[step](m, pool, x)
    except (RuntimeError, IndexError) as error:
        errors.append("RuntimeError" if isinstance(error, RuntimeError) else "IndexError")
    values = [x.detach().numpy().copy() for x in pool]
    slopes: list[Any] = []
    if errors:
        return values, errors
    try:
        total = sum((x * x).sum() for x in pool[1:])
        if twice:
            found = m.autograd.grad(total, (w, a), create_graph=True, allow_unused=True)
            slopes = [g for g in found if g is not None]
            total = sum(((g * g).sum() for g in slopes), (w * w).sum())
        total.backward()
        slopes += [w.grad, a.grad]
        slopes += [x.grad for x in pool[1:] if x.requires_grad and not x.is_leaf and x.retains_grad]
    except RuntimeError:
        errors.append("backward")
        slopes = []
    return values + [None if g is None else g.detach().numpy() for g in slopes], errors


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:The .grad attribute")
@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 20)), max_size=9), st.booleans())
def test_random_programs_of_views_and_writes_give_what_pytorch_gives(
    program: list[tuple[int, int]], twice: bool
) -> None:
    torch = pytest.importorskip("torch")
    ours, errors = _run(cr, program, twice)
    theirs, expected = _run(torch, program, twice)
    assert errors == expected
    for x, y in zip(ours, theirs, strict=True):
        assert (x is None) == (y is None)
        if x is not None and y is not None:
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)
