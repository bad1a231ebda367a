"""The graph, its traversal, and the checks of its gradients."""

from chainrule.engine.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck
from chainrule.engine.autograd.mode import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from chainrule.engine.autograd.traversal import backward, grad

__all__ = [
    "GradcheckError",
    "backward",
    "enable_grad",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "is_grad_enabled",
    "no_grad",
    "set_grad_enabled",
]
