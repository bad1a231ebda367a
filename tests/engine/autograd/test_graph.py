"""The graph as its users see it."""

from __future__ import annotations

import chainrule.engine as cr
from chainrule.engine.autograd.graph import AccumulateGrad


def test_nodes_have_pytorchs_names_and_order() -> None:
    x = cr.ones(2, requires_grad=True)
    y = (x * 3 + 1).mean()
    assert y.grad_fn is not None
    assert y.grad_fn.name() == "MeanBackward0"
    ((add, number),) = y.grad_fn.next_functions
    assert add is not None
    assert (add.name(), number) == ("AddBackward0", 0)
    (mul, _), (nothing, _) = add.next_functions
    assert mul is not None
    assert nothing is None
    (leaf, _), _ = mul.next_functions
    assert isinstance(leaf, AccumulateGrad)
    assert leaf.name() == "AccumulateGrad"
    assert leaf.variable is x
    assert repr(mul).startswith("<MulBackward0 object at 0x")


def test_a_leaf_has_one_node_while_a_graph_holds_it() -> None:
    x = cr.ones(2, requires_grad=True)
    y = x * x
    assert y.grad_fn is not None
    first, second = (node for node, _ in y.grad_fn.next_functions)
    assert first is second


def test_a_leaf_has_no_grad_fn() -> None:
    x = cr.ones(2, requires_grad=True)
    assert x.is_leaf
    assert x.grad_fn is None
    assert not (x * 1).is_leaf


def test_dropping_the_output_drops_the_graph() -> None:
    import gc
    import weakref

    gc.disable()
    try:
        x = cr.ones(2, requires_grad=True)
        y = (x * x).sum()
        assert y.grad_fn is not None
        node = weakref.ref(y.grad_fn)
        del y
        assert node() is None
    finally:
        gc.enable()
