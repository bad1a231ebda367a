"""The graph, its traversal, and the checks of its gradients."""

from chainrule.engine.autograd import function, functional, graph
from chainrule.engine.autograd.anomaly import detect_anomaly, set_detect_anomaly
from chainrule.engine.autograd.function import Function
from chainrule.engine.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck
from chainrule.engine.autograd.mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from chainrule.engine.autograd.traversal import backward, grad

__all__ = [
    "Function",
    "GradcheckError",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "function",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "graph",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]
