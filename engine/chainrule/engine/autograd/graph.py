"""The graph that recording leaves behind: a node per operation, and one per leaf to receive its gradient."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.dtypes import Array, type_name
from chainrule.engine.errors import AutogradError

if TYPE_CHECKING:
    from chainrule.engine.ops.op import Op, Plan
    from chainrule.engine.tensor import Tensor, VersionCounter

# A node takes its number when it is made, after the nodes it consumes: falling order is a topological order.
_sequence = itertools.count()


class Node:
    """What a tensor's `grad_fn` is: it turns the gradient of its output into the gradients of its inputs."""

    __slots__ = ("__weakref__", "sequence")

    sequence: int
    edges: tuple[Node | None, ...]

    def name(self) -> str:
        """PyTorch's name of the node, `MulBackward0` say."""
        raise NotImplementedError

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """The nodes that receive the gradients of the inputs; None where none is wanted."""
        return tuple((edge, 0) for edge in self.edges)

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"


class AccumulateGrad(Node):
    """The node of a leaf: adds what arrives to `variable.grad`."""

    __slots__ = ("variable",)

    edges = ()

    def __init__(self, variable: Tensor) -> None:
        self.variable = variable
        self.sequence = next(_sequence)

    def name(self) -> str:
        return "AccumulateGrad"


class Saved:
    """A tensor as it was when an operation used it; knows whether it has been written to since."""

    __slots__ = ("array", "counter", "tensor", "version")

    def __init__(self, array: Array, counter: VersionCounter, tensor: Tensor | None) -> None:
        self.array = array
        self.counter = counter
        self.tensor = tensor  # None for an operation's own output, which would otherwise keep itself alive
        self.version = counter.value

    def check(self) -> None:
        """Refuses a value that was overwritten.

        Raises:
            AutogradError: an in-place operation has changed the tensor since.
        """
        if self.counter.value != self.version:
            kind = f"{type_name(self.array.dtype)}Tensor {list(self.array.shape)}"
            raise AutogradError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: "
                f"[{kind}] is at version {self.counter.value}; expected version {self.version} instead. "
                "Compute on a clone() where the value is still needed"
            )


class OpNode(Node):
    """The node of a recorded operation, with exactly what its gradients use."""

    __slots__ = ("attributes", "edges", "intermediates", "op", "plan", "saved", "shapes")

    def __init__(
        self,
        op: Op,
        plan: Plan,
        edges: tuple[Node | None, ...],
        saved: tuple[Any, ...],
        shapes: tuple[Any, ...],
        attributes: dict[str, Any],
        intermediates: dict[str, Any],
    ) -> None:
        self.op = op
        self.plan = plan
        self.edges = edges
        self.saved: tuple[Any, ...] | None = saved
        self.shapes = shapes
        self.attributes = attributes
        self.intermediates = intermediates
        self.sequence = next(_sequence)

    def name(self) -> str:
        return f"{self.op.name}Backward0"

    def free(self) -> None:
        """Lets go of what was saved; a node that saved nothing can be walked through again."""
        if self.saved or self.intermediates:
            self.saved = None
            self.intermediates = {}

    def gradients(self, g: Any, *, recording: bool) -> list[Any]:
        """The gradients of the inputs that require one, in the order of `plan.formulas`.

        Args:
            g: the gradient of the output: an array, or a Tensor where `recording`.
            recording: whether saved values are handed out as Tensors with their history.

        Raises:
            AutogradError: the graph was freed, or a saved tensor was overwritten.
        """
        if self.saved is None:
            raise AutogradError(
                "Trying to backward through the graph a second time (or directly access saved tensors after they "
                "have already been freed). Saved intermediate values of the graph are freed when you call "
                ".backward() or autograd.grad(). Specify retain_graph=True if you need to backward through the "
                "graph a second time or if you need to access saved tensors after calling backward."
            )
        known: dict[str, Any] = {**self.op.defaults, **self.attributes, **self.intermediates, "g": g}
        for name, saved in zip(self.plan.saved_names, self.saved, strict=True):
            known[name] = self._unpack(saved, recording) if isinstance(saved, Saved) else saved
        for name, position in self.plan.shape_names:
            known[name] = self.shapes if position is None else self.shapes[position]
        gradients = []
        for position, formula, names in self.plan.formulas:
            known["position"] = position
            gradient = formula(*[known[name] for name in names])
            gradients.append(self.op.fit(gradient, self.shapes, position))
        return gradients

    def _unpack(self, saved: Saved, recording: bool) -> Array | Tensor:
        saved.check()
        if not recording:
            return saved.array
        if saved.tensor is not None and saved.tensor.data is saved.array:
            return saved.tensor
        from chainrule.engine.tensor import Tensor  # which is built on this module

        history = self if saved.tensor is None else None
        return Tensor.wrap(saved.array, counter=saved.counter, grad_fn=history)


def is_alias(gradient: Array, g: Array) -> bool:
    """Whether a gradient is (a view of) the gradient it was computed from: a formula returns that, or a new array."""
    return gradient is g or np.may_share_memory(gradient, g)
