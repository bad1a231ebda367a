"""The Variable: a numpy array that remembers how it was computed. `Tensor` adds the operations."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, NoReturn, TypeGuard

import numpy as np

from chainrule.engine.autograd.graph import AccumulateGrad, Hook, Node, Output, add_hook, lock_of
from chainrule.engine.autograd.mode import state
from chainrule.engine.autograd.views import MULTIPLE, OF_FUNCTION, UNRECORDED, AsStrided, CopySlices, View, places
from chainrule.engine.dtypes import Array, is_floating, type_name
from chainrule.engine.errors import AutogradError, DTypeError, ShapeError
from chainrule.engine.hooks import RemovableHandle

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor


class VersionCounter:
    """How often the memory of a tensor, shared with its views, was written to."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def bump(self) -> None:
        self.value += 1


class _NoVersion(VersionCounter):
    """The counter of tensors made in inference mode, which do not count; reading it is what saving one does."""

    @property
    def value(self) -> int:  # type: ignore[override]
        raise AutogradError(
            "Inference tensors cannot be saved for backward. Please do not use Tensors created in inference mode in "
            "computation tracked by autograd. To work around this, you can make a clone to get a normal tensor and use "
            "it in autograd, or use `no_grad()` instead of `inference_mode()`."
        )

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def bump(self) -> None:
        pass


_new = object.__new__
no_version = _NoVersion()


_making_accumulators = threading.RLock()  # making one may be watched, and collect garbage


class LeafExtra:
    """What few leaves have: hooks, and memory for the gradient."""

    __slots__ = ("after", "memory", "tensor_hooks")

    def __init__(self) -> None:
        self.tensor_hooks: OrderedDict[int, Hook] = OrderedDict()
        self.after: OrderedDict[int, Hook] = OrderedDict()
        self.memory: Array | None = None


class Variable:
    """The part of a Tensor that automatic differentiation works on.

    Attributes:
        data: the elements. Writing to them directly is not seen by autograd.
        counter: how often the memory was written to, shared with views.
    """

    __slots__ = (
        "__weakref__",
        "_accumulator",
        "_extra",
        "_grad",
        "_grad_fn",
        "_requires_grad",
        "_view",
        "counter",
        "data",
    )

    data: Array
    _grad: Tensor | None
    counter: VersionCounter
    _grad_fn: Node | None
    _requires_grad: bool
    _view: View | None
    _accumulator: weakref.ref[AccumulateGrad] | None
    _extra: LeafExtra | None

    kind: ClassVar[type[Tensor]]  # what results are; set where Tensor is made
    __array_ufunc__ = None  # so that `ndarray * Tensor` is ours

    def _set(self, array: Array, counter: VersionCounter | None, grad_fn: Node | None) -> None:
        self.data = array
        self._grad = None
        self._grad_fn = grad_fn
        self.counter = counter or VersionCounter()
        self._requires_grad = grad_fn is not None
        self._view = None
        self._accumulator = None
        self._extra = None

    @staticmethod
    def wrap(array: Array, *, counter: VersionCounter | None = None, grad_fn: Node | None = None) -> Tensor:
        """A tensor around an array, without a copy or a check."""
        tensor = _new(Variable.kind)
        tensor.data = array  # as `_set` does, which every operation would have to call
        tensor._grad = tensor._view = tensor._accumulator = tensor._extra = None
        tensor._grad_fn = grad_fn
        if counter is None:  # as `VersionCounter()` does
            counter = _new(VersionCounter)
            counter.value = 0
        tensor.counter = counter
        tensor._requires_grad = grad_fn is not None
        return tensor

    # ---- History ----

    @property
    def grad_fn(self) -> Node | None:
        """The node that turns this tensor's gradient into those of what it was computed from; None for a leaf."""
        node = self._recorded()
        return None if node is None else node.shown

    def _recorded(self) -> Node | None:
        """The node whose output this is, as it is after what was written to the memory through other views."""
        view = self._view
        if view is not None and view.version != self.counter.value:
            if view.base._requires_grad:
                if view.made is not None:
                    self._refuse_to_follow("its base or another view of its base has been modified inplace")
                self.set_history(self._part_of(view.base))
            view.version = self.counter.value
        return self._grad_fn

    def _part_of(self, base: Tensor) -> AsStrided:
        index = places(self.data, base.data)
        return AsStrided(base.gradient_edge(), index, base.data.shape, self.data.shape)

    def set_history(self, node: Node) -> None:
        """Makes this the output of `node`; if it keeps its gradient, that is now of what it holds now."""
        before = self._grad_fn
        if before is not None and before.extra is not None:
            retained = before.extra.retained
            if retained is not None and retained() is self:
                before.extra.retained = None
                node.more().retained = retained
        self._grad_fn = node
        self._requires_grad = True
        if self._view is not None:
            self._view.version = self.counter.value

    def rewrite_history(self, node: Node, before: Node | None) -> None:
        """Makes this the output of `node`, which was written into its memory, and the base what it is written into.

        Args:
            node: of what was written.
            before: the node that this was the output of until then; None if it required no gradient.
        """
        view = self._view
        if view is None:
            self.set_history(node)
            return
        base = view.base
        slices = CopySlices(base, self.data, node, before)
        base.set_history(slices)
        self.set_history(slices.part())

    def gradient_edge(self) -> Node:
        """The node that receives this tensor's gradient."""
        node = self._grad_fn if self._view is None else self._recorded()
        if node is not None:
            return node
        kept = self._accumulator
        accumulator = None if kept is None else kept()
        if accumulator is None:
            with _making_accumulators:
                kept = self._accumulator
                accumulator = None if kept is None else kept()
                if accumulator is None:
                    accumulator = AccumulateGrad(self)
                    self._accumulator = weakref.ref(accumulator)  # the graph keeps it, not the leaf, which it keeps
        return accumulator

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded."""
        return self._requires_grad or (self._view is not None and self._view.base._requires_grad)

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and not is_floating(self.data.dtype):
            raise AutogradError(
                f"only Tensors of floating point dtype can require gradients, this is {type_name(self.data.dtype)} "
                f"({self.data.dtype})"
            )
        if not value and self.grad_fn is not None:
            raise AutogradError(
                "you can only change requires_grad flags of leaf variables. If you want to use a computed variable "
                "in a subgraph that doesn't require differentiation use var_no_grad = var.detach()."
            )
        if value and self.is_inference() and not state.inference:
            raise AutogradError("Setting requires_grad=True on inference tensor outside InferenceMode is not allowed.")
        self._requires_grad = bool(value)

    @property
    def grad(self) -> Tensor | None:
        """Of a leaf that requires one, the gradient that `backward` has added up so far.

        Raises:
            DTypeError: it is set to what is no tensor, or to one of another dtype.
            ShapeError: it is set to a tensor of another shape.
        """
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            self._check_grad(value)
        self._grad = value

    @property
    def grad_memory(self) -> Array | None:
        """Of a leaf, where `backward` puts a gradient where there is none yet; None: in memory of its own.

        The array becomes that of `grad`, without a copy where the operation that uses the leaf can compute into it.
        What was there is overwritten, also if an older `grad` shares it. One backward at a time may use it, and one
        with `create_graph` does not.

        Raises:
            AutogradError: it is set for a tensor that is no leaf, or requires no gradient.
            DTypeError: it is set to what is no array, or to one of another dtype.
            ShapeError: it is set to an array of another shape, with gaps, or that cannot be written to.
        """
        return None if self._extra is None else self._extra.memory

    @grad_memory.setter
    def grad_memory(self, memory: Array | None) -> None:
        if memory is not None:
            self._check_memory(memory)
        elif self._extra is None:
            return
        self._more().memory = memory

    def _check_memory(self, memory: Array) -> None:
        if not self.requires_grad or not self.is_leaf:
            raise AutogradError("grad_memory is for leaves that require a gradient; others have no grad to put there")
        if not isinstance(memory, np.ndarray) or memory.dtype != self.data.dtype:
            kind = memory.dtype if isinstance(memory, np.ndarray) else type(memory).__name__
            raise DTypeError(f"grad_memory of a tensor of {self.data.dtype} is an array of that, not {kind}")
        if memory.shape != self.data.shape:
            raise ShapeError(f"grad_memory has shape {list(memory.shape)}, the tensor has {list(self.data.shape)}")
        if not (memory.flags.c_contiguous and memory.flags.writeable):
            raise ShapeError("grad_memory has to be contiguous and writeable; give an array that owns its memory, say")

    def _check_grad(self, value: Tensor) -> None:
        if not isinstance(value, Variable):
            raise DTypeError(
                f"assigned grad expected to be a Tensor or None but got grad of type {type(value).__name__}"
            )
        if value is self:
            raise AutogradError("can't assign Variable as its own grad")
        if value.data.shape != self.data.shape:
            raise ShapeError(
                f"attempting to assign a gradient of size '{list(value.data.shape)}' to a tensor of size "
                f"'{list(self.data.shape)}'. Please ensure that the gradient and the tensor are the same size"
            )
        if value.data.dtype != self.data.dtype:
            raise DTypeError(
                f"attempting to assign a gradient with dtype '{value.data.dtype}' to a tensor with dtype "
                f"'{self.data.dtype}'. The gradient must match the tensor's dtype"
            )

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user rather than recorded."""
        return self._recorded() is None

    @property
    def output_nr(self) -> int:
        """Which of the outputs of `grad_fn` this is."""
        node = self._recorded()
        return node.position if isinstance(node, Output) else 0

    def is_inference(self) -> bool:
        """Whether it was made in inference mode."""
        return self.counter is no_version

    @property
    def _version(self) -> int:
        if self.counter is no_version:
            raise AutogradError("Inference tensors do not track version counter.")
        return self.counter.value

    # ---- Views ----

    @property
    def _base(self) -> Tensor | None:
        """The tensor whose memory this is a view of."""
        return None if self._view is None else self._view.base

    def _is_view(self) -> bool:
        return self._view is not None

    def view_of(self, source: Variable, *, one_of_many: bool = False) -> None:
        """Makes this a view of `source`, or of what that is a view of: it shares the version, and follows what is
        written to the memory."""
        self.counter = source.counter
        if source.counter is no_version:
            return
        view = source._view
        whole = source if view is None else view.base
        made = MULTIPLE if one_of_many else None if state.recording else UNRECORDED
        if made is None and view is not None:
            made = view.made
        self._view = View(whole, self.counter.value, made)  # type: ignore[arg-type]

    # ---- Writing ----

    def check_writable(self, name: str) -> None:
        """Refuses to be written to where autograd could not follow, or memory would be written to twice.

        Raises:
            AutogradError: for those reasons; the message says which.
        """
        if self.counter is no_version and not state.inference:
            raise AutogradError(
                "Inplace update to inference tensor outside InferenceMode is not allowed. You can make a clone to get "
                "a normal tensor before doing inplace update."
            )
        if state.recording and self.requires_grad:
            self._check_history()
        if (
            0 in self.data.strides
            and self.data.size
            and any(n > 1 and step == 0 for n, step in zip(self.data.shape, self.data.strides, strict=True))
        ):
            raise AutogradError(
                "unsupported operation: more than one element of the written-to tensor refers to a single memory "
                "location. Please clone() the tensor before performing the operation."
            )
        if not self.data.flags.writeable:
            raise AutogradError(f"{name}: the memory is read-only. Please clone() the tensor before writing to it.")

    def _check_history(self) -> None:
        view = self._view
        if view is None:
            if self._grad_fn is None:
                raise AutogradError("a leaf Variable that requires grad is being used in an in-place operation.")
            return
        self.check_followed()
        if view.base.is_leaf:
            raise AutogradError("a view of a leaf Variable that requires grad is being used in an in-place operation.")

    def check_followed(self) -> None:
        """Refuses what is recorded to be written to a view that was made in a way that autograd cannot follow."""
        if self._view is not None and self._view.made is not None:
            self._refuse_to_follow("is being modified inplace")

    def _refuse_to_follow(self, what_happens: str) -> NoReturn:
        view = self._view
        assert view is not None
        node = self._grad_fn
        number = node.position if isinstance(node, Output) else 0
        named = "A view" if node is None else f"Output {number} of {node.name()} is a view and"
        if view.made is UNRECORDED:
            named = "A view was created in no_grad mode and"
            remedy = (
                "with grad mode enabled. Put both the view and the inplace operation inside the no_grad block, if it "
                "is not to be tracked, or both outside."
            )
        elif view.made is MULTIPLE:
            remedy = (
                "This view is the output of a function that returns multiple views. Such functions do not allow the "
                "output views to be modified inplace. You should replace the inplace operation by an out-of-place one."
            )
        else:
            assert view.made is OF_FUNCTION
            remedy = (
                "This view was created inside a custom Function (or because an input was returned as-is) and the "
                "autograd logic to handle view+inplace would override the custom backward associated with the custom "
                "Function, leading to incorrect gradients. You can fix this by cloning the output of the Function."
            )
        stop = "" if view.made is UNRECORDED else "."
        raise AutogradError(f"{named} {what_happens}{stop} {remedy}")

    # ---- Hooks ----

    def register_hook(self, hook: Hook) -> RemovableHandle:
        """Calls hook(grad) with the gradient of this tensor each time one is computed; what it returns replaces it.

        Raises:
            AutogradError: the tensor requires no gradient.
        """
        if not self.requires_grad:
            raise AutogradError("cannot register a hook on a tensor that doesn't require gradient")
        node = self._recorded()
        return add_hook(self._more().tensor_hooks if node is None else node.more().tensor_hooks, hook)

    def register_post_accumulate_grad_hook(self, hook: Hook) -> RemovableHandle:
        """Calls hook(tensor) each time a gradient has been added to `grad` of this leaf.

        Raises:
            AutogradError: the tensor requires no gradient, or is no leaf.
        """
        if not self.requires_grad:
            raise AutogradError("cannot register a hook on a tensor that doesn't require gradient")
        if not self.is_leaf:
            raise AutogradError("post accumulate grad hooks cannot be registered on non-leaf tensors")
        return add_hook(self._more().after, hook)

    def _more(self) -> LeafExtra:
        """The leaf's extra, made when it is first asked for."""
        if self._extra is None:
            with lock_of(self):
                if self._extra is None:
                    self._extra = LeafExtra()
        return self._extra

    def retain_grad(self) -> None:
        """Has backward set `grad` of this tensor, too, though it is no leaf.

        Raises:
            AutogradError: the tensor requires no gradient.
        """
        if not self.requires_grad:
            raise AutogradError("can't retain_grad on Tensor that has requires_grad=False")
        node = self._recorded()
        if node is not None and not self.retains_grad:
            node.more().retained = weakref.ref(self)

    def forget_to_retain_grad(self) -> None:
        """Undoes `retain_grad`."""
        node = self._recorded()
        if node is not None and node.extra is not None:
            node.extra.retained = None

    @property
    def retains_grad(self) -> bool:
        """Whether `retain_grad` was called."""
        node = self._recorded()
        extra = None if node is None else node.extra
        return extra is not None and extra.retained is not None and extra.retained() is self


def is_tensor(x: object) -> TypeGuard[Tensor]:
    """Whether `x` is a tensor."""
    return isinstance(x, Variable)


set_grad: Callable[[Variable, Tensor | None], None] = vars(Variable)["_grad"].__set__
"""Sets the gradient without a check: for who made it, or for every parameter of a network."""
